"""`runner validate` prints problems to stdout in the chosen format, and needs no key and no request."""

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


def test_a_valid_manifest() -> None:
    """Nothing on stdout, the counts on stderr, exit code 0, and no key is needed."""
    result = runner("validate", _write(VALID), "--var", "length=5")

    assert (0, "", "no errors, no warnings in 1 job\n") == (result.exit_code, result.stdout, result.stderr)


def test_variables_of_the_command_line() -> None:
    """The value of --var is checked like any other."""
    result = runner("validate", _write(VALID), "--var", "length=13")

    assert 2 == result.exit_code
    assert (
        "m.yaml:4:74: jobs[0] \"a\": seconds: '13' is not allowed for seedance-1-0-pro-250528"
        in result.stdout
    )


@pytest.mark.parametrize("given", ["length", "=5", "a b=1"])
def test_a_variable_without_name_or_value_is_refused(given: str) -> None:
    """A mistake in --var must not become an empty variable."""
    result = runner("validate", _write(VALID), "--var", given)

    assert 2 == result.exit_code
    assert f"{given!r} is not NAME=VALUE" in result.stderr


def test_all_problems_of_all_files_in_one_pass() -> None:
    """A file that can't be read does not hide the problems of the next one."""
    bad = _write("version: 1\njobz: []\njobs:\n  - id: a\n    request: {model: wan2.7-i2, prompt: x}\n")

    result = runner("validate", "missing.yaml", bad)

    assert 2 == result.exit_code
    places = [line.partition(": ")[0] for line in result.stdout.splitlines()]
    assert ["missing.yaml", "m.yaml:2:1", "m.yaml:5:22"] == places
    assert "3 errors, no warnings in 1 job; nothing was submitted\n" == result.stderr


WARNED = "version: 1\njobs:\n  - {id: a, request: {model: wan2.2-kf2v-flash, images: [https://e.com/a, https://e.com/b]}}\n"


def test_a_warning_is_an_error_with_strict() -> None:
    """A warning is marked as one, and is an error with --strict."""
    path = _write(WARNED)

    assert 0 == runner("validate", path).exit_code
    assert runner("validate", path).stdout.startswith('m.yaml:3:22: warning: jobs[0] "a": no prompt')
    assert 2 == runner("validate", path, "--strict").exit_code


def test_json_is_one_object() -> None:
    """The JSON has the same problems, with their places as numbers."""
    result = runner("validate", _write(WARNED), "--format", "json")

    found = json.loads(result.stdout)
    assert (True, 1) == (found["valid"], found["jobs"])
    (problem,) = found["problems"]
    assert ["severity", "file", "line", "column", "job", "path", "message", "hint"] == list(problem)
    assert ("warning", "m.yaml", 3, 22) == tuple(
        problem[key] for key in ("severity", "file", "line", "column")
    )


def test_json_without_problems() -> None:
    """The list of problems is empty."""
    result = runner("validate", _write(VALID), "--var", "length=5", "--format", "json")

    assert {"problems": [], "valid": True, "jobs": 1} == json.loads(result.stdout)


def test_github_annotations_are_escaped() -> None:
    """A name with a comma or a line break can't forge a second annotation."""
    path = _write("version: 1\njobs: []\n100%: 1\n", "a,b:c.yaml")

    lines = runner("validate", path, "--format", "github").stdout.splitlines()

    assert 2 == len(lines)
    assert all(line.startswith("::error file=a%2Cb%3Ac.yaml,line=") for line in lines)
    assert any("unknown key '100%25'" in line for line in lines)


def test_hostile_text_does_not_reach_the_terminal() -> None:
    """Escape sequences in a job's id are shown as pictures."""
    path = _write('version: 1\njobs:\n  - {id: "a\\e[31m", request: {model: x}}\n')

    assert "\x1b" not in runner("validate", path).stdout
