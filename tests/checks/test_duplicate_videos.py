"""Videos with the same bytes are found by their digests, whenever and however often the results are written."""

from __future__ import annotations

from pathlib import Path

from runner.checks.duplicate_videos import save_duplicates
from runner.core.lifecycle import State
from runner.core.model import JobRecord
from runner.core.settings import Check
from runner.store import query
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest


def records(run_dir: Path, digests: dict[str, str], *reject: Check) -> dict[str, JobRecord]:
    """Give the videos these digests, look for duplicates, and return all jobs."""
    with Store(run_dir) as store:
        with store.transaction() as connection:
            connection.executemany(
                "UPDATE assets SET sha256 = ? WHERE seq = (SELECT seq FROM jobs WHERE job_id = ?)",
                [(digest * 64, job_id) for job_id, digest in digests.items()],
            )
        save_duplicates(store, reject)
        return {record.job_id: record for record in query.records(store.reader)}


def test_copies_name_their_original(tmp_path: Path) -> None:
    """The first in the manifest is the original; the others have a warning, and none if that is no longer so."""
    ids = ["a", "b", "c", "d"]
    run_dir = make_run(
        tmp_path / "run", write_manifest(tmp_path / "m.yaml", *ids), dict.fromkeys(ids, State.SUCCEEDED)
    )

    found = records(run_dir, {"a": "1", "b": "2", "c": "1", "d": "1"})
    assert [None, None, {"ok": False, "of": "a"}, {"ok": False, "of": "a"}] == [
        (found[job_id].checks or {}).get("duplicate") for job_id in ids
    ]
    assert ("the video is the same file as that of 'a'",) == found["c"].warnings
    assert [None] * 4 == [found[job_id].verdict for job_id in ids]

    found = records(run_dir, {"a": "3"}, Check.NEAR_DUPLICATE)
    assert ({}, (), None) == (found["c"].checks, found["c"].warnings, found["c"].verdict)
    assert {"ok": False, "of": "c"} == (found["d"].checks or {})["duplicate"]
    assert {"value": "reject", "by": "checks", "why": "duplicate"} == found["d"].verdict


def test_nothing_is_written_if_nothing_is_found(tmp_path: Path) -> None:
    """A run without copies stays finished: its files are not written again."""
    run_dir = make_run(
        tmp_path / "run", write_manifest(tmp_path / "m.yaml", "a", "b"), {"a": State.SUCCEEDED}
    )
    with Store(run_dir) as store:
        store.mark_finished()
        save_duplicates(store, ())
        assert store.is_finished
