"""`validate`: what is found goes to stdout in the form asked for, and costs neither a key nor a request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import runner

VALID = """\
version: 1
jobs:
  - id: a
    request: {model: seedance-1-0-pro-250528, prompt: A kitten, seconds: '${length}'}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POWERTOKENS_API_KEY", raising=False)


def _write(text: str, name: str = "m.yaml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_valid_manifest_says_so_and_exits_0() -> None:
    """Nothing on stdout, a count on stderr, and no key was needed."""
    ran = runner("validate", _write(VALID), "--var", "length=5")

    assert (0, "", "no errors, no warnings in 1 job\n") == (ran.code, ran.out, ran.err)


def test_variables_of_the_command_line_count() -> None:
    """What --var sets is checked like everything else."""
    ran = runner("validate", _write(VALID), "--var", "length=13")

    assert ran.code == 2
    assert "m.yaml:4:74: jobs[0] \"a\": seconds: '13' is not allowed for seedance-1-0-pro-250528" in ran.out


@pytest.mark.parametrize("given", ["length", "=5", "a b=1"])
def test_a_variable_without_name_or_value_is_refused(given: str) -> None:
    """A slip in --var must not become an empty variable."""
    ran = runner("validate", _write(VALID), "--var", given)

    assert ran.code == 2
    assert f"{given!r} is not NAME=VALUE" in ran.err


def test_all_problems_of_all_files_in_one_pass() -> None:
    """A file that can't be read does not hide what is wrong with the next one."""
    bad = _write("version: 1\njobz: []\njobs:\n  - id: a\n    request: {model: wan2.7-i2, prompt: x}\n")

    ran = runner("validate", "missing.yaml", bad)

    assert ran.code == 2
    assert [line.partition(": ")[0] for line in ran.out.splitlines()] == [
        "missing.yaml",
        "m.yaml:2:1",
        "m.yaml:5:22",
    ]
    assert ran.err == "3 errors, no warnings in 1 job; nothing was submitted\n"


WARNED = "version: 1\njobs:\n  - {id: a, request: {model: wan2.2-kf2v-flash, images: [https://e.com/a, https://e.com/b]}}\n"


def test_a_warning_is_no_error_unless_strict() -> None:
    """--strict is for those who want none; a warning says that it is one."""
    path = _write(WARNED)

    assert runner("validate", path).code == 0
    assert runner("validate", path).out.startswith('m.yaml:3:22: warning: jobs[0] "a": no prompt')
    assert runner("validate", path, "--strict").code == 2


def test_json_is_one_object() -> None:
    """A program reads the same findings, with their places as numbers."""
    ran = runner("validate", _write(WARNED), "--format", "json")

    found = json.loads(ran.out)
    assert (True, 1) == (found["valid"], found["jobs"])
    (problem,) = found["problems"]
    assert list(problem) == ["severity", "file", "line", "column", "job", "path", "message", "hint"]
    assert ("warning", "m.yaml", 3, 22) == tuple(
        problem[key] for key in ("severity", "file", "line", "column")
    )


def test_json_without_problems_is_json_too() -> None:
    """The list is there when it is empty."""
    ran = runner("validate", _write(VALID), "--var", "length=5", "--format", "json")

    assert {"problems": [], "valid": True, "jobs": 1} == json.loads(ran.out)


def test_github_annotations_are_escaped() -> None:
    """A name with a comma or a line break can't forge a second annotation."""
    path = _write("version: 1\njobs: []\n100%: 1\n", "a,b:c.yaml")

    lines = runner("validate", path, "--format", "github").out.splitlines()

    assert len(lines) == 2
    assert all(line.startswith("::error file=a%2Cb%3Ac.yaml,line=") for line in lines)
    assert any("unknown key '100%25'" in line for line in lines)


def test_hostile_text_does_not_reach_the_terminal() -> None:
    """Escape sequences in a job's id are shown as pictures, not obeyed."""
    path = _write('version: 1\njobs:\n  - {id: "a\\e[31m", request: {model: x}}\n')

    assert "\x1b" not in runner("validate", path).out
