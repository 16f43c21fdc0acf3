"""The page about exports: its commands run, and what they make loads as it says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.export.columns import COLUMNS
from tests.cli.command import runner
from tests.docs.sections import ROOT

PAGE = (ROOT / "runner" / "export" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated run becomes a dataset with all of its videos, which the code of the page loads."""
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))

    for line in re.findall(r"^\$ runner (.*)", PAGE, re.MULTILINE):
        result = runner(*shlex.split(line))
        assert 0 == result.exit_code, result.stderr

    assert result.stderr.startswith("wrote kittens: 12 videos, ")
    assert 12 == len(list(Path("kittens/data/train/0000").glob("*.mp4")))
    for code in re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        pytest.importorskip(code.split()[1])
        names: dict[str, Any] = {}
        exec(code, names)
        assert 12 == len(names["loaded"])


def test_every_column_is_on_the_page() -> None:
    """The table has each column."""
    table = PAGE.split("\n## Columns\n")[1].split("\n## ")[0]

    assert set(COLUMNS) <= set(re.findall(r"`(\w+)`", table))
