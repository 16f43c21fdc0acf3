"""Deleting older runs of a series: only what is whole, settled, ours and free."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from runner.api import run_facts
from runner.api.retention import delete_older, require_series
from runner.core.lifecycle import State
from runner.errors import UsageError
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest

TODAY = date(2026, 11, 21)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Have a folder of runs."""
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


def night(folder: Path, day: int, state: State = State.SUCCEEDED, *, simulate: bool = False) -> Path:
    """Make the run of a night with one job in a state."""
    manifest = write_manifest(folder.parent / "nightly.yaml", "a")
    run_dir = make_run(folder / f"nightly-2026-11-{day:02}", manifest, {"a": state})
    if simulate:
        with Store(run_dir) as store, store.transaction() as connection:
            origin = run_facts.RunOrigin(str(manifest), is_simulated=True, sharded=False)
            connection.execute("UPDATE meta SET value = ? WHERE key = ?", (origin.text(), run_facts.ORIGIN))
    (run_dir / "assets").mkdir()
    (run_dir / "assets" / "a.mp4").write_bytes(b"x")
    (run_dir / "results.jsonl").write_text("")
    return run_dir


def names(folder: Path) -> list[str]:
    """Name the days that are left."""
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
def test_newest_stay(keep_runs: int | None, keep_days: int | None, left: list[str], folder: Path) -> None:
    """
    So many of the newest stay, or those of the last days; what either keeps stays.
    """
    for day in (10, 15, 20, 21):
        night(folder, day)

    delete_older(folder / "nightly-2026-11-21", keep_runs=keep_runs, keep_days=keep_days, today=TODAY)

    assert left == names(folder)


@pytest.mark.parametrize(
    "state", [state for state in State if state not in (State.SUCCEEDED, State.FAILED)], ids=str
)
def test_run_with_something_left_stays(state: State, folder: Path) -> None:
    """
    A directory with an unfinished job, or one in doubt, is never deleted, and that is said.
    """
    old, new = night(folder, 20, state), night(folder, 21)

    tidied = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert ["20", "21"] == names(folder)
    assert [old] == [kept.run_dir for kept in tidied.kept]
    assert (old / "assets" / "a.mp4").exists()


def test_what_is_not_clearly_ours_stays(folder: Path) -> None:
    """
    Files of others, links, other programs' directories, other series and simulated runs all stay.
    """
    new = night(folder, 21)
    (night(folder, 1) / "notes.txt").write_text("mine")
    linked = night(folder, 2)
    (linked / "assets" / "a.mp4").unlink()
    (linked / "assets").rmdir()
    (linked / "assets").symlink_to(folder)
    (folder / "nightly-2026-11-03").mkdir()
    (folder / "nightly-2026-11-04").symlink_to(new)
    night(folder, 5, simulate=True)
    (folder / "nightly-2026-11-06").write_text("a file")
    night(folder, 7).rename(folder / "other-2026-11-07")
    broken = folder / "nightly-2026-11-08"
    broken.mkdir()
    (broken / "run.db").write_text("no database")
    before = names(folder)

    tidied = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert () == tidied.deleted
    assert before == names(folder)


def test_run_in_use_stays_until_it_is_free(folder: Path) -> None:
    """
    A directory that a process works in is left alone.
    """
    old, new = night(folder, 20), night(folder, 21)
    with Store(old):
        in_use = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    free = delete_older(new, keep_runs=1, keep_days=None, today=TODAY)

    assert "in use by pid" in in_use.kept[0].why
    assert (old,) == free.deleted


def test_later_runs_are_not_older(folder: Path) -> None:
    """
    A run of an earlier date that is done again deletes nothing that came after it.
    """
    old, _ = night(folder, 20), night(folder, 21)

    delete_older(old, keep_runs=1, keep_days=None, today=TODAY)

    assert ["20", "21"] == names(folder)


@pytest.mark.parametrize("name", ["kittens", "a-2026-11-21-b-2026-11-20", "2026-13-01", "v12026-11-21"])
def test_series_needs_one_date(name: str) -> None:
    """
    Without exactly one date in its name a run is no part of a series.
    """
    with pytest.raises(UsageError, match="no date"):
        require_series(Path("output") / name)
