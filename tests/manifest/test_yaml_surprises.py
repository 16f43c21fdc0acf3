"""Texts that YAML cuts short or begins elsewhere than people mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manifest.helpers import read_manifest

_JOBS = """\
version: '1'
vars: {}
jobs:
  - id: a
    request:
      model: seedance-1-0-pro-250528
      prompt: PROMPT
"""
_CUT = "the text ends here, since the '#' begins a comment: {!r}; quote the text if the '#' belongs to it, or write a blank behind the '#'"


@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        ("A kitten #1 on grass", "m.yaml:7:24: warning: jobs[0]: " + _CUT.format("A kitten")),
        ("小猫 #1", "m.yaml:7:18: warning: jobs[0]: " + _CUT.format("小猫")),
        ("two\n        lines #1", "m.yaml:8:15: warning: jobs[0]: " + _CUT.format("two lines")),
        ("A kitten # a comment", None),
        ("A kitten  #1", None),
        ("'A kitten' #1", None),
        ("A kitten#1", None),
        ("x\n      seed: 5 #five", None),
        ("|\n        A kitten #1", None),
        ("&cat on grass", "m.yaml:7:15: warning: '&cat' is an anchor of YAML here, and the text is only 'on grass'; quote the text if it begins with '&'"),
        ("&cat on grass\n    metadata: {p: *cat}", None),
    ],
)  # fmt: skip
def test_surprises(tmp_path: Path, prompt: str, warning: str | None) -> None:
    """A text that is cut short, or begins with an anchor that is never used, gets a warning with its position."""
    path = tmp_path / "m.yaml"
    path.write_text(_JOBS.replace("PROMPT", prompt), encoding="utf-8")

    assert ([warning] if warning else []) == read_manifest(path).problems


def test_in_the_header(tmp_path: Path) -> None:
    """The other keys of a manifest are checked too, once, wherever they are."""
    path = tmp_path / "m.yaml"
    text = _JOBS.replace("PROMPT", "x").replace("{}", "{style: a\n  b #2\n  }")
    path.write_text(text + "name: kitten #2\n", encoding="utf-8")

    assert [
        "m.yaml:3:5: warning: " + _CUT.format("a b"),
        "m.yaml:10:14: warning: " + _CUT.format("kitten"),
    ] == [problem for problem in read_manifest(path).problems if "warning" in problem]
