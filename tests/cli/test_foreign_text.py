"""Texts from outside never reach a terminal as they are: escapes, directions and invisible characters are shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest

from runner.cli.console import show_bug, wants_color
from runner.core.sanitize import command_text
from tests.cli.command import runner

HOSTILE = "\x1b]52;c;aGk=\x07\x1b[31m\u202eevil\u200b\u2066\U000e0041\x9b1m"
RAW = ("\x1b", "\x07", "\u202e", "\u200b", "\u2066", "\U000e0041", "\x9b")


def _write(folder: Path, **job: object) -> Path:
    path = folder / "m.yaml"
    entry = {"id": "a", "request": {"model": "seedance-1-0-pro-250528", "prompt": "x"}, **job}
    text = json.dumps({"version": 1, "jobs": [entry]})
    # YAML has no pairs of surrogates.
    path.write_text(text.replace("\\udb40\\udc41", "\\U000e0041"))
    return path


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_refused_id(command: str, tmp_path: Path) -> None:
    """The messages of a manifest that is refused show its id without its controls."""
    options = ("--simulate", "-o", tmp_path / "o") if command != "validate" else ()
    result = runner(command, _write(tmp_path, id=f"ok{HOSTILE}"), *options)

    assert result.exit_code == 2
    assert 'jobs[0] "ok' in result.stdout + result.stderr
    assert not [raw for raw in RAW if raw in result.stdout + result.stderr]


def test_error_of_a_path(tmp_path: Path) -> None:
    """A file name is a text from outside, too."""
    result = runner("validate", tmp_path / f"a{HOSTILE}.yaml")
    missing = runner("resume", tmp_path / f"a{HOSTILE}")

    assert (2, 2) == (result.exit_code, missing.exit_code)
    shown = result.stdout + result.stderr + missing.stderr
    assert not [raw for raw in RAW if raw in shown]


def test_plan_shows_an_exact_request(tmp_path: Path) -> None:
    """What can't be shown is an escape of JSON, so that the request that is shown is the one that is sent."""
    prompt = f"{HOSTILE}\x7f \u2028 ordinary 猫"
    path = _write(tmp_path, request={"model": "seedance-1-0-pro-250528", "prompt": prompt})
    result = runner("plan", path, "--simulate", "--show", "1", "-o", tmp_path / "o")

    assert not [raw for raw in (*RAW, "\x7f", "\u2028") if raw in result.stdout]
    assert "ordinary 猫" in result.stdout
    shown = result.stdout[result.stdout.index("\n{") : result.stdout.index("\n}") + 2]
    assert prompt == json.loads(shown)["prompt"]


def test_command_to_paste() -> None:
    """A command that is offered to be pasted is exact, and shows everything that it has."""
    argument = f"it's {HOSTILE}\udcff\\ \n"
    text = command_text("printf", "%s", argument)

    assert text.isprintable()
    printed = subprocess.run(["bash", "-c", text], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert argument.encode("utf-8", "surrogateescape") == printed.stdout


def test_hint_to_paste(tmp_path: Path) -> None:
    """A command in a hint is quoted as a shell needs it, whatever part of the program writes the hint."""
    results = tmp_path / "my runs (1)" / "results.jsonl"
    results.parent.mkdir()
    results.write_text('{"schema_version": 1}\n')
    result = runner("resume", results.parent)

    (hint,) = (line for line in result.stderr.splitlines() if line.startswith("  hint: "))
    assert ["runner", "rerun", str(results), "-o", "NEW"] == shlex.split(hint[hint.index("runner ") :])


def test_commands_are_quoted() -> None:
    """No message puts a text after the name of a command, or the id of a record, except through what quotes it."""
    unquoted = re.compile(
        r"runner (?!simulator)[a-z]+ \{(?!option_name\()|-(?:o|-where) '?\{|command_text\(.*\.job_id"
    )
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in Path(__file__).parents[2].joinpath("runner").rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if unquoted.search(line)
    ]
    assert [] == found


def test_colors_of_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR colors the places of findings; without it they are plain text."""
    path = _write(tmp_path, id=7)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    plain = runner("validate", path).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    colored = runner("validate", path).stdout

    assert plain.startswith(f"{path}:1:")
    assert colored.startswith(f"\x1b[31m{path}:1:")
    assert plain.split(": ", 1)[1] == colored.split("\x1b[0m ", 1)[1]


@pytest.mark.parametrize(
    ("force", "term", "is_colored"), [("", "xterm", True), ("", "dumb", False), ("1", "dumb", True)]
)
def test_colors_of_terminals(
    force: str, term: str, is_colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that says it has no colors gets none, unless they are asked for."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", force)
    monkeypatch.setenv("TERM", term)
    ours, theirs = os.openpty()

    with open(theirs, "w", encoding="utf-8") as stream:
        assert is_colored is wants_color(stream)
    os.close(ours)


def test_internal_error_writes_its_traceback_to_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    An internal error prints a short message and the path of its traceback, which -v prints too, without keys.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bug = KeyError("sk-secret-0123456789")
    bug.__traceback__ = None

    exit_codes = show_bug(bug, ["run", "x"]), show_bug(bug, ["run", "x", "-v"])

    stderr = capsys.readouterr().err
    traces = [path.read_text() for path in tmp_path.glob("runner-bug-*.txt")]
    assert (3, 3) == exit_codes
    assert 2 == stderr.count("error[bug]")
    assert 2 == len(traces)
    assert all("sk-secret" not in text for text in (stderr, *traces))
    assert 1 == stderr.count("\nKeyError") + stderr.startswith("KeyError")
