"""Deleting older runs of a series: only those that are finished, our own and not in use."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from runner.api.series import delete_older, require_series
from runner.core.lifecycle import State
from runner.errors import UsageError
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest

TODAY = date(2026, 11, 21)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder for runs."""
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


def make_night(folder: Path, day: int, state: State = State.SUCCEEDED, *, simulate: bool = False) -> Path:
    """Make a night's run, with one job in a state."""
    manifest = write_manifest(folder.parent / "nightly.yaml", "a")
    run_dir = make_run(folder / f"nightly-2026-11-{day:02}", manifest, {"a": state}, simulate=simulate)
    with Store(run_dir) as store, store.transaction() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO assets VALUES (1, 'video', 'assets/a.mp4', 1, 'ab', 'video/mp4', 1, 1, 1.0, 1)"
        )
    (run_dir / "assets").mkdir(exist_ok=True)
    (run_dir / "assets" / "a.mp4").write_bytes(b"x")
    (run_dir / "results.jsonl").write_text("")
    return run_dir


def days(folder: Path) -> list[str]:
    """Return the days whose runs are left."""
    return sorted(path.name.rpartition("-")[2] for path in folder.iterdir())


@pytest.mark.parametrize(
    ("keep_runs", "keep_days", "left"),
    [
        (2, None, ["20", "21"]),
        (1, None, ["21"]),
        (9, None, ["10", "15", "20", "21"]),
        (None, 6, ["15", "20", "21"]),
        (None, 0, ["21"]),
        (1, 1, ["20", "21"]),
        (3, 1, ["15", "20", "21"]),
    ],
)
def test_newest_are_kept(keep_runs: int | None, keep_days: int | None, left: list[str], folder: Path) -> None:
    """
    The newest N are kept, or those of the last N days; a run that either keeps is kept.
    """
    for day in (10, 15, 20, 21):
        make_night(folder, day)

    delete_older(folder / "nightly-2026-11-21", keep_runs=keep_runs, keep_days=keep_days, today=TODAY)

    assert left == days(folder)


def test_uploaded_videos_stay(folder: Path) -> None:
    """
    A run whose videos are in an object store is deleted, and they are not.
    """
    run_dir = make_night(folder, 20)
    make_night(folder, 21)
    (folder.parent / "store").mkdir()
    uploaded = (run_dir / "assets/a.mp4").rename(folder.parent / "store/a.1f.mp4")
    with Store(run_dir) as store, store.transaction() as connection:
        urls = json.dumps({"video": uploaded.as_uri()})
        connection.execute("INSERT INTO asset_urls VALUES (1, 1, ?)", (urls,))

    delete_older(folder / "nightly-2026-11-21", keep_runs=1, keep_days=None, today=TODAY)

    assert ["21"] == days(folder)
    assert uploaded.exists()


@pytest.mark.parametrize(
    "state", [state for state in State if state not in (State.SUCCEEDED, State.FAILED)], ids=str
)
def test_unfinished_run_is_kept(state: State, folder: Path) -> None:
    """
    A directory with an unfinished or uncertain job is never deleted, and that is reported.
    """
    old, new = make_night(folder, 20, state), make_night(folder, 21)

    result = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert ["20", "21"] == days(folder)
    assert [old] == [kept.run_dir for kept in result.kept]
    assert (old / "assets" / "a.mp4").exists()


def test_what_is_not_clearly_our_own_is_kept(folder: Path) -> None:
    """
    Other files, links, other programs' directories, other series and simulated runs are all kept.
    """
    new = make_night(folder, 21)
    (make_night(folder, 1) / "notes.txt").write_text("mine")
    linked = make_night(folder, 2)
    (linked / "assets" / "a.mp4").unlink()
    (linked / "assets").rmdir()
    (linked / "assets").symlink_to(folder)
    (folder / "nightly-2026-11-03").mkdir()
    (folder / "nightly-2026-11-03" / "results.jsonl").write_text("")
    (folder / "nightly-2026-11-04").symlink_to(new)
    make_night(folder, 5, simulate=True)
    (folder / "nightly-2026-11-06").write_text("a file")
    make_night(folder, 7).rename(folder / "other-2026-11-07")
    broken = folder / "nightly-2026-11-08"
    broken.mkdir()
    (broken / "run.db").write_text("no database")
    before = days(folder)

    result = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert () == result.deleted
    assert before == days(folder)


@pytest.mark.parametrize(
    "name", ["best/MY-EDIT.mov", "notes.txt", "a.mp4", "b.mp4.part", "05/mine.mp4", "a.txt"], ids=str
)
def test_own_files_among_the_assets_keep_the_run(name: str, folder: Path) -> None:
    """
    A person's files and folders, and a video that was edited, keep the whole directory.
    """
    old, new = make_night(folder, 20), make_night(folder, 21)
    path = old / "assets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine, all mine")

    result = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert ["20", "21"] == days(folder)
    assert f"it has other files, such as assets/{name.split('/')[0]}" in result.kept[0].why
    assert "mine, all mine" == path.read_text()


@pytest.mark.parametrize("rest", [[], [".lock"]], ids=["empty", "lock"])
def test_what_a_killed_deletion_left_is_deleted(rest: list[str], folder: Path) -> None:
    """
    A process that is killed while it deletes a run leaves its lock, or an empty directory.
    """
    (folder / "nightly-2026-11-20").mkdir()
    for name in rest:
        (folder / "nightly-2026-11-20" / name).touch()

    delete_older(make_night(folder, 21), keep_runs=1, keep_days=None, today=TODAY)

    assert ["21"] == days(folder)


def test_what_downloads_left_does_not_keep_the_run(folder: Path) -> None:
    """
    Part files, files that were not videos, and verdicts are the program's own.
    """
    old, new = make_night(folder, 20), make_night(folder, 21)
    (old / "verdicts.jsonl").write_text("")
    for name in ("a.mp4.part", "a.last_frame.png.invalid"):
        (old / "assets" / name).write_bytes(b"xx")

    delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert ["21"] == days(folder)


def test_run_of_another_manifest_is_kept(folder: Path) -> None:
    """
    The same pattern of names does not make two manifests one series.
    """
    new = make_night(folder, 21)
    other = write_manifest(folder.parent / "other.yaml", "a")
    make_run(folder / "nightly-2026-11-20", other, {"a": State.SUCCEEDED})

    result = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert ["20", "21"] == days(folder)
    assert "a run of another manifest" in result.kept[0].why


def test_run_in_use_is_kept(folder: Path) -> None:
    """
    A directory that a process is using is not deleted; once it is free, it is.
    """
    old, new = make_night(folder, 20), make_night(folder, 21)
    with Store(old):
        in_use = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    free = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert "in use by pid" in in_use.kept[0].why
    assert (old,) == free.deleted


def test_later_runs_are_not_older(folder: Path) -> None:
    """
    Running an earlier date again deletes nothing of later dates.
    """
    old, _ = make_night(folder, 20), make_night(folder, 21)

    delete_older(old, keep_runs=1, keep_days=None, today=TODAY)

    assert ["20", "21"] == days(folder)


@pytest.mark.parametrize("name", ["kittens", "a-2026-11-21-b-2026-11-20", "2026-13-01", "v12026-11-21"])
def test_series_needs_one_date(name: str) -> None:
    """
    A run whose name does not have exactly one date is not part of a series.
    """
    with pytest.raises(UsageError, match="no date"):
        require_series(Path("output") / name)
