"""Standard streams that are closed, full or of a small encoding: they change nothing about how a command ends."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).parents[2]
MANIFEST = """\
version: 1
jobs:
  - {id: good, request: {model: seedance-1-0-pro-250528, prompt: 'Kätzchen 猫', seconds: 4, size: 480p}}
  - {id: bad, request: {model: seedance-1-0-pro-250528, prompt: fails, seconds: 4, size: 480p}}
"""
SCENARIO = """\
version: 1
generate_s: [0.1, 0.2]
rules: [{name: it, match: {prompt: fails}, task: {end: failed}}]
"""
REDIRECTIONS = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1")


def _shell(
    folder: Path, redirections: str, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a folder, with its streams redirected by a shell."""
    command = shlex.join([sys.executable, "-m", "runner", *arguments])
    return subprocess.run(
        ["sh", "-c", f"exec {command} {redirections}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a manifest of two jobs, and a scenario in which one of them fails."""
    (tmp_path / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    (tmp_path / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("redirections", REDIRECTIONS)
def test_run_ends_with_its_own_exit_code(redirections: str, folder: Path) -> None:
    """A run with one failed job exits with 1, whatever its streams are, and everything is on disk."""
    done = _shell(
        folder,
        redirections,
        "run",
        "m.yaml",
        "--simulate",
        "--scenario",
        "scenario.yaml",
        "-o",
        "o",
        "--json",
    )

    assert done.returncode == 1
    assert b"Traceback" not in done.stderr + done.stdout
    results = [json.loads(line) for line in (folder / "o" / "results.jsonl").read_bytes().splitlines()]
    assert {"good": "succeeded", "bad": "failed"} == {line["job_id"]: line["status"] for line in results}


@pytest.mark.parametrize("redirections", REDIRECTIONS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("validate", "m.yaml"), 0),
        (("validate", "absent.yaml"), 2),
        (("plan", "m.yaml", "--simulate", "--show", "2"), 0),
        (("--help",), 0),
        (("no-such-command",), 2),
    ],
)
def test_short_commands_end_with_their_exit_code(
    arguments: tuple[str, ...], code: int, redirections: str, folder: Path
) -> None:
    """Data that can't be written, and messages that nobody gets, are not errors."""
    assert code == _shell(folder, redirections, *arguments).returncode


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "ascii"])
def test_output_in_any_encoding(encoding: str, folder: Path) -> None:
    """Characters that the terminal's encoding lacks are replaced."""
    (folder / "m.yaml").write_text(MANIFEST.replace("seconds: 4", "'秒数 ☃ \U0001f63a': 4"), encoding="utf-8")
    checked = _shell(folder, "", "validate", "m.yaml", PYTHONIOENCODING=encoding)
    (folder / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    planned = _shell(folder, "", "plan", "m.yaml", "--simulate", "--show", "2", PYTHONIOENCODING=encoding)

    assert checked.returncode == 2, checked.stderr
    assert b"unknown key" in checked.stdout
    assert planned.returncode == 0, planned.stderr


def test_names_of_files_in_any_locale(tmp_path: Path) -> None:
    """Names that the locale has no characters for are written as everywhere else."""
    (tmp_path / "m.yaml").write_text(f"name: Кот\n{MANIFEST.replace('good', '猫')}", encoding="utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = _shell(tmp_path, "", "run", "m.yaml", "--simulate", "-o", "Кот", **locale)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "Кот" / "assets" / "猫.mp4").is_file()


def test_terminal_keeps_the_encoding_of_its_locale(tmp_path: Path) -> None:
    """What is printed in another encoding than UTF-8 is so, whatever names of files are written in."""
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")]
    if which("localedef") is None or subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("the locale can't be made here")
    locale = {"LC_ALL": "de_DE.ISO-8859-1", "LOCPATH": str(tmp_path)}

    done = _shell(tmp_path, "", "validate", "ö.yaml", **locale)

    assert done.stdout.startswith("ö.yaml: can't be read".encode("latin-1")), done


def test_reader_of_the_summary_that_went_away(folder: Path) -> None:
    """The exit code of a run is its own even if nobody reads its summary."""
    options = "run m.yaml --simulate --scenario scenario.yaml -o o --json --quiet"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shlex.quote(sys.executable)} -m runner {options} | true"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


UNREAD = """\
version: 1
name: unread
limits: {submit: 100/s, poll: 100/s, in_flight: 100}
poll: {first: 50ms, interval: 50ms, max_interval: 100ms, timeout: 1h}
jobs:
  - id: a-job-with-a-long-name-${n}-LONG
    repeat: 100
    request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}', seconds: 4, size: 480p}
""".replace("LONG", "x" * 150)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="this system has no small pipes")
@pytest.mark.parametrize("is_stopped", [False, True], ids=["finished", "terminated"])
def test_reader_that_does_not_read_holds_no_run(is_stopped: bool, tmp_path: Path) -> None:
    """A run whose stderr is full and not read ends all the same, by itself or at SIGTERM."""
    (tmp_path / "m.yaml").write_text(UNREAD, encoding="utf-8")
    end = "task: {end: never}" if is_stopped else "task: {end: succeeded}"
    (tmp_path / "scenario.yaml").write_text(
        f"version: 1\ngenerate_s: 0.1\nrules:\n  - {{name: last, match: {{prompt: 'kitten 100'}}, {end}}}\n",
        encoding="utf-8",
    )
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "runner", "run", "m.yaml", "--simulate", "--scenario", "scenario.yaml"]
    with subprocess.Popen(
        [*command, "-v", "-o", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=writer,
    ) as process:
        try:
            if is_stopped:
                _wait_for_lines(tmp_path / "out" / "results.jsonl", 99)
                process.send_signal(signal.SIGTERM)
            exit_code = process.wait(60)
        finally:
            process.kill()
            os.close(reader)
            os.close(writer)

    assert (143 if is_stopped else 0) == exit_code
    assert 100 == len((tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines())


def _wait_for_lines(path: Path, count: int) -> None:
    for _ in range(1200):
        if path.exists() and len(path.read_bytes().splitlines()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never had {count} lines")
