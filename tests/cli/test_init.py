"""The starter manifest: never in the way of a file, and good as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import runner


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_path_it_writes_manifest_yaml() -> None:
    """The first command of a new user works without a question, and names the next one."""
    ran = runner("init")

    assert ran.code == 0
    assert Path("manifest.yaml").is_file()
    assert "runner run manifest.yaml --simulate" in ran.err
    assert ran.out == ""


def test_what_it_writes_is_valid() -> None:
    """A starter that had a problem would teach the wrong thing."""
    runner("init", "first/steps.yaml")

    assert runner("validate", "--strict", "first/steps.yaml").code == 0


def test_the_row_file_that_it_teaches_works() -> None:
    """The job that is commented out is as good as the others."""
    Path("prompts.csv").write_text("name,prompt\na,A kitten\n")
    runner("init")
    path = Path("manifest.yaml")
    lines = path.read_text().splitlines()
    start = lines.index("  # - id: row-${name}")
    path.write_text(
        "\n".join([*lines[:start], *(line.replace("# ", "", 1) for line in lines[start:])]) + "\n"
    )

    ran = runner("validate", "--strict", path)

    assert (0, "no errors, no warnings in 9 jobs\n") == (ran.code, ran.err)


def test_a_file_that_is_there_stays() -> None:
    """Somebody's manifest is never overwritten."""
    Path("manifest.yaml").write_text("mine")

    ran = runner("init")

    assert ran.code == 2
    assert "error[usage]: manifest.yaml exists, and was left as it is" in ran.err
    assert Path("manifest.yaml").read_text() == "mine"


def test_a_folder_gets_manifest_yaml() -> None:
    """A folder is a place to write into."""
    Path("batch").mkdir()

    assert runner("init", "batch").code == 0
    assert Path("batch/manifest.yaml").is_file()


def test_a_dash_is_stdout() -> None:
    """The starter can go through a pipe, and no file appears."""
    ran = runner("init", "-")

    assert ran.out.startswith("# yaml-language-server: $schema=/")
    assert list(Path().iterdir()) == []


def test_an_unwritable_place_is_an_error_that_says_so() -> None:
    """A path through a file can't be made, and there is no traceback."""
    Path("file").write_text("")

    ran = runner("init", "file/manifest.yaml")

    assert ran.code == 2
    assert ran.err.startswith("error[usage]: file/manifest.yaml can't be written")
