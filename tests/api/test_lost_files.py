"""Which files of succeeded jobs are missed, in runs of few files and of many."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from runner.core.lifecycle import State
from runner.store.database import connect_reader
from runner.store.files import lost_files
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest


@pytest.mark.parametrize(
    ("max_sizes", "expected"),
    [(5, ["assets/a.mp4", "assets/b.mp4", "assets/7f/d.mp4"]), (4, ["assets/a.mp4", "assets/7f/d.mp4"])],
    ids=["few files", "many files"],
)
def test_files_that_are_gone_are_seen(tmp_path: Path, max_sizes: int, expected: list[str]) -> None:
    """
    A file that is gone is seen in a run of any size, in the folder of assets or in one below it; files of jobs that
    have not succeeded are not missed. Sizes are compared only in a run of few files.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b", "c", "d", "e")
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys("abcd", State.SUCCEEDED))
    assets = run_dir / "assets"
    with Store(run_dir) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE assets SET path = 'assets/7f/' || substr(path, 8) WHERE path >= 'assets/c'"
        )
        connection.execute(
            "INSERT INTO assets SELECT seq, 'video', 'assets/e.mp4', 9, '', '', 1, 1, 1, 1 FROM jobs WHERE job_id = 'e'"
        )
    (assets / "7f").mkdir()
    (assets / "c.mp4").rename(assets / "7f" / "c.mp4")
    (assets / "a.mp4").unlink()
    (assets / "b.mp4").write_bytes(b"1")

    with closing(connect_reader(run_dir)) as reader:
        assert expected == list(lost_files(reader, run_dir, max_sizes=max_sizes))


def test_without_the_folder_of_assets_every_file_is_gone(tmp_path: Path) -> None:
    """A run of many files whose assets were all deleted misses each of them."""
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys("ab", State.SUCCEEDED))
    for path in (run_dir / "assets").iterdir():
        path.unlink()
    (run_dir / "assets").rmdir()

    with closing(connect_reader(run_dir)) as reader:
        assert ["assets/a.mp4", "assets/b.mp4"] == list(lost_files(reader, run_dir, max_sizes=0))


def test_a_foreign_file_does_not_stand_in_for_one_that_is_gone(tmp_path: Path) -> None:
    """A run of many files with as many files as there should be, one of them of another name, misses the one that is gone."""
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys("ab", State.SUCCEEDED))

    with closing(connect_reader(run_dir)) as reader:
        assert [] == list(lost_files(reader, run_dir, max_sizes=0))
        (run_dir / "assets" / "a.mp4").rename(run_dir / "assets" / "x.mp4")
        assert ["assets/a.mp4"] == list(lost_files(reader, run_dir, max_sizes=0))
