"""`runner init`: the starter manifest is valid, and no file is overwritten."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import runner


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_path_it_writes_manifest_yaml() -> None:
    """The first command of a new user needs no argument, and prints the next command."""
    result = runner("init")

    assert 0 == result.exit_code
    assert Path("manifest.yaml").is_file()
    assert "runner run manifest.yaml --simulate" in result.stderr
    assert "" == result.stdout


def test_the_starter_manifest_is_valid() -> None:
    """The starter manifest has no errors and no warnings."""
    runner("init", "first/steps.yaml")

    assert runner("validate", "--strict", "first/steps.yaml").exit_code == 0


def test_the_starter_makes_one_cheap_video() -> None:
    """Who runs it as it is pays for one short clip with a public price."""
    runner("init")

    result = runner("plan", "manifest.yaml")

    assert "wan3.0-video in 480p: 1 clip, 5 s" in result.stdout
    assert "0.25 USD" in result.stdout


def test_the_commented_jobs_are_valid() -> None:
    """The jobs that are commented out are valid too."""
    Path("prompts.csv").write_text("name,prompt\na,A kitten\n")
    runner("init")
    path = Path("manifest.yaml")
    text = path.read_text()
    path.write_text(re.sub(r"^  # (- id:|  )", r"  \1", text, flags=re.MULTILINE))

    result = runner("validate", "--strict", path)

    assert (0, "no errors, no warnings in 9 jobs\n") == (result.exit_code, result.stderr)


def test_an_existing_file_is_not_overwritten() -> None:
    """An existing file is an error, and stays as it is."""
    Path("manifest.yaml").write_text("mine")

    result = runner("init")

    assert 2 == result.exit_code
    assert "error[usage]: manifest.yaml exists, and was left as it is" in result.stderr
    assert "mine" == Path("manifest.yaml").read_text()


def test_a_folder_gets_manifest_yaml() -> None:
    """If the path is a folder, the file in it is called manifest.yaml."""
    Path("batch").mkdir()

    assert 0 == runner("init", "batch").exit_code
    assert Path("batch/manifest.yaml").is_file()


def test_a_dash_is_stdout() -> None:
    """The starter manifest is printed, and no file is created."""
    result = runner("init", "-")

    assert result.stdout.startswith("# yaml-language-server: $schema=manifest.schema.json\n")
    assert [] == list(Path().iterdir())


def test_an_unwritable_path_is_an_error() -> None:
    """A path through a file can't be created, and there is no traceback."""
    Path("file").write_text("")

    result = runner("init", "file/manifest.yaml")

    assert 2 == result.exit_code
    assert result.stderr.startswith("error[usage]: file/manifest.yaml can't be written")


def test_editors_find_the_schema_beside_the_manifest() -> None:
    """The first line names a copy in the manifest's folder, so that both may move; a file of another kind is left."""
    Path("with blank").mkdir()
    Path("mine").mkdir()
    Path("mine/manifest.schema.json").write_text("{}")

    assert [0, 0, 0] == [
        runner("init", path).exit_code for path in ("with blank", "with blank/b.yaml", "mine")
    ]

    first = Path("with blank/b.yaml").read_text().splitlines()[0]
    assert "# yaml-language-server: $schema=manifest.schema.json" == first
    copy = Path("with blank/manifest.schema.json")
    assert json.loads(runner("schema", "manifest").stdout) == json.loads(copy.read_text())
    assert "{}" == Path("mine/manifest.schema.json").read_text()
