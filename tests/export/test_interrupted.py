"""Exports that end early: nothing is under the final name, and the same command continues where it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.cli.video_commands import Progress
from runner.export import selection
from runner.store.lock import RunLock
from tests.cli.command import CommandResult, runner
from tests.export.runs import files_of, mixed_jobs, write_run
from tests.results.records import succeeded

FORMATS = ("videofolder", "webdataset", "parquet")


def export(run: Path, out: Path, dataset_format: str, *options: object) -> CommandResult:
    """Export a run, or try to."""
    return runner("export", run, out, "--format", dataset_format, *options)


def inodes(folder: Path) -> dict[str, int]:
    """Return which file each name below a folder stands for."""
    return {path.name: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run whose seventh of nine videos has another byte, while shards have three videos."""
    monkeypatch.setattr(selection, "_SHARD_ROWS", 3)
    run = write_run(tmp_path / "run", mixed_jobs(9))
    path = run / "assets" / "job-7.mp4"
    path.rename(run / "right")
    path.write_bytes(b"X" + (run / "right").read_bytes()[1:])
    return run


@pytest.mark.parametrize("dataset_format", FORMATS)
def test_it_goes_on_where_it_was(half: Path, tmp_path: Path, dataset_format: str) -> None:
    """What was written is kept, what is left is added, and the dataset is that of an export that was not interrupted."""
    assert 2 == export(half, tmp_path / "out", dataset_format).exit_code
    assert not (tmp_path / "out").exists()
    before = inodes(tmp_path / ".out.partial" / "dataset")
    (half / "right").rename(half / "assets" / "job-7.mp4")
    left = tmp_path / ".out.partial" / "dataset" / "data" / ".x.mp4.99.tmp"
    left.write_bytes(b"of a process that was killed")

    assert 0 == export(half, tmp_path / "out", dataset_format).exit_code
    assert 0 == export(half, tmp_path / "fresh", dataset_format).exit_code

    assert files_of(tmp_path / "fresh") == files_of(tmp_path / "out")
    after = inodes(tmp_path / "out")
    assert len(before) >= 2
    assert before == {name: after[name] for name in before}
    assert {"run", "out", "fresh"} == {path.name for path in tmp_path.iterdir()}


def test_a_file_that_was_damaged_since_is_made_anew(half: Path, tmp_path: Path) -> None:
    """Copies of an earlier export are held against their digests too: a power cut may have emptied them."""
    export(half, tmp_path / "out", "videofolder")
    (half / "right").rename(half / "assets" / "job-7.mp4")
    (tmp_path / ".out.partial/dataset/data/train/0000/job-1.mp4").write_bytes(b"")

    assert 0 == export(half, tmp_path / "out", "videofolder").exit_code
    assert (half / "assets/job-1.mp4").read_bytes() == (
        tmp_path / "out/data/train/0000/job-1.mp4"
    ).read_bytes()


def test_other_options_start_anew(half: Path, tmp_path: Path) -> None:
    """Nothing of another selection gets into the dataset."""
    export(half, tmp_path / "out", "webdataset")
    assert 0 == export(half, tmp_path / "out", "webdataset", "--where", "seed>=8").exit_code
    export(half, tmp_path / "fresh", "webdataset", "--where", "seed>=8")

    assert files_of(tmp_path / "fresh") == files_of(tmp_path / "out")


def test_one_export_at_a_time(tmp_path: Path) -> None:
    """A second process is refused while one makes the same dataset."""
    run = write_run(tmp_path / "run", mixed_jobs(1))
    (tmp_path / ".out.partial").mkdir()

    with RunLock(tmp_path / ".out.partial"):
        result = export(run, tmp_path / "out", "webdataset")

    assert 5 == result.exit_code
    assert "is in use by" in result.stderr
    assert "wait for that export" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dataset_format", FORMATS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_export_goes_on(tmp_path: Path, dataset_format: str, number: signal.Signals) -> None:
    """However the process ends, the next one makes the whole dataset."""
    run = write_run(tmp_path / "run", (succeeded(f"j{n}") for n in range(400)), content=b"x" * 1000)
    command = [
        sys.executable,
        "-m",
        "runner",
        "export",
        str(run),
        str(tmp_path / "out"),
        "--format",
        dataset_format,
    ]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}

    data = tmp_path / ".out.partial" / "dataset" / "data"
    for _ in range(20):
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE)
        while process.poll() is None and not (data.exists() and any(data.rglob("*"))):
            pass
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if not (tmp_path / "out").exists():
            break
        # On a busy machine it may be done before this process sees that it has begun.
        shutil.rmtree(tmp_path / "out")

    assert not (tmp_path / "out").exists()
    if number is signal.SIGINT:
        assert 130 == process.returncode
        assert "interrupted: the same command continues the export" == errors.decode().strip()
    assert 0 == export(run, tmp_path / "out", dataset_format).exit_code
    assert 0 == export(run, tmp_path / "fresh", dataset_format).exit_code
    assert files_of(tmp_path / "fresh") == files_of(tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MB, or skip the test if that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("dataset_format", FORMATS)
def test_a_full_disk(tmp_path: Path, small_disk: Path, dataset_format: str) -> None:
    """The export ends with exit code 3, nothing is under the final name, and it continues once there is room."""
    run = write_run(tmp_path / "run", (succeeded(f"j{n}") for n in range(20)), content=b"x" * 60_000)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_200_000))

    result = export(run, small_disk / "out", dataset_format)

    assert 3 == result.exit_code
    assert "error[disk-full]: no space left to write" in result.stderr
    assert "run the same command again" in result.stderr
    assert not (small_disk / "out").exists()
    filler.unlink()
    assert 0 == export(run, small_disk / "out", dataset_format).exit_code


def test_a_directory_that_can_not_be_written(tmp_path: Path) -> None:
    """The message names the directory, without a traceback."""
    run = write_run(tmp_path / "run", mixed_jobs(1))
    (tmp_path / "file").write_bytes(b"")

    result = export(run, tmp_path / "file" / "out", "webdataset")

    assert 2 == result.exit_code
    assert "can't be written" in result.stderr


def test_progress_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets a line every ten seconds."""
    times = iter([0.0, 1.0, 10.0, 19.0, 20.0, 21.0, 30.0])
    progress = Progress(is_terminal=False, clock=lambda: next(times))
    progress(10_000, 0)
    progress(20_000, 0)
    for done in (1, 2, 3, 4):
        progress(done * 300, 1500)
    progress.end()

    assert (
        "read 20,000 jobs\nexported 600 of 1,500 videos (40%)\nexported 1,200 of 1,500 videos (80%)\n"
        == capsys.readouterr().err
    )


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal has one line that changes every second."""
    times = iter([0.0, 1.0, 1.5, 2.0])
    progress = Progress(is_terminal=True, clock=lambda: next(times))
    for done in (1, 2, 3):
        progress(done, 3)
    progress.end()

    shown = [line.rstrip(" ") for line in capsys.readouterr().err.split("\r")]
    assert ["", "exported 1 of 3 videos (33%)", f"{'exported 3 of 3 videos (100%)':<60}\n"] == shown
