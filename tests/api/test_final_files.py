"""The derived files of a run: what is taken over from the last process is as if everything was written again."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from runner.api.blocks import written
from runner.api.final_files import FinalFiles
from runner.api.outputs import Outputs
from runner.api.run_facts import RunFacts, read_facts
from runner.core.lifecycle import State
from runner.errors import ObjectStoreError
from runner.store import work_list
from runner.store.database import connect_reader
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.store.journals import DOWN, HookedStore, journal, memory

FILES = ("results.jsonl", "failed.yaml", "summary.json", "report.html")
IDS = [f"j{n:02}" for n in range(17)]
BLOCK = 3
ERRORS = {
    "moderation": json.dumps(["moderation", "refused", None, 400, None]),
    "remote_failed": json.dumps(["remote_failed", "broken", None, 200, None]),
}
STATES = ("pending", "succeeded", "moderation", "remote_failed")


def set_state(connection: sqlite3.Connection, job_id: str, state: str, at: float) -> None:
    """Let a job be in a state, or have failed with a class of failure."""
    error = ERRORS.get(state)
    values = ("failed" if error else state, state if error else None, error, at, at / 10, job_id)
    connection.execute(
        "UPDATE jobs SET state = ?, error_class = ?, error = ?, finished_at = ?, generate_s = ? WHERE job_id = ?",
        values,
    )


def contents(run_dir: Path) -> dict[str, bytes | None]:
    """Return the derived files; None for one that is not there."""
    return {name: (run_dir / name).read_bytes() if (run_dir / name).exists() else None for name in FILES}


def facts_of(reader: sqlite3.Connection) -> RunFacts:
    """Return what a run knows of its manifest."""
    facts = read_facts(reader)
    assert facts is not None
    return facts


def finish(run_dir: Path, change: str = "") -> None:
    """Open a run as a process does, change something, and bring its files up to date."""
    with Store(run_dir) as store, closing(Outputs(store, facts_of(store.reader), min_jobs=1)) as outputs:
        if change:
            with store.transaction() as connection:
                connection.execute(change)
        outputs.finish(now_at=0.0)


def test_files_never_have_what_the_journal_lacks(tmp_path: Path) -> None:
    """
    What was changed outside of a run is in the journal before it is in the files: a process that dies between the two
    would leave a run.db that is made anew from the journal, and older than the results.
    """
    make_run(tmp_path / "out", write_manifest(tmp_path / "m.yaml", "j"), {"j": State.PENDING})
    objects = HookedStore(memory())
    with Store(tmp_path / "out", journal=journal(objects)) as store:
        store.give_base()
        with store.transaction() as connection:
            set_state(connection, "j", "remote_failed", 1.0)
        with closing(Outputs(store, facts_of(store.reader))) as outputs:
            objects.before = failing
            with pytest.raises(ObjectStoreError):
                outputs.finish(now_at=0.0)
            assert not (tmp_path / "out" / "results.jsonl").exists()
            objects.before = lambda method, name: None
            outputs.finish(now_at=0.0)

        assert b"remote_failed" in (tmp_path / "out" / "results.jsonl").read_bytes()


def failing(method: str, name: str) -> None:
    """Be a store that can't be reached."""
    raise DOWN


@pytest.mark.parametrize("seed", range(4))
def test_changed_files_are_those_that_are_written_as_a_whole(tmp_path: Path, seed: int) -> None:
    """
    After changes of a few jobs, every file is the same whether only their blocks are written again or everything.
    """
    chance = random.Random(seed)
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    finish(run_dir)
    with closing(connect_reader(run_dir)) as reader:
        files = FinalFiles(run_dir, facts_of(reader), reader, keeps_blocks=True, block_jobs=BLOCK)
        files.write(None, None, now_at=0.0)
        for turn in range(12):
            old = written(run_dir, run="", gateway="", failed_start=files.failed_start)
            with Store(run_dir) as store:
                with store.transaction() as connection:
                    for job_id in chance.sample(IDS, chance.randint(1, 3)):
                        set_state(connection, job_id, chance.choice(STATES), at=100.0 * turn)
                changed = store.changed.blocks(reader, BLOCK)
                store.mark_finished()
            assert changed

            files.write(old, changed, now_at=0.0)
            partly = contents(run_dir)
            blocks = (run_dir / ".blocks").read_bytes()
            files.write(None, None, now_at=0.0)

            assert contents(run_dir) == partly
            assert (run_dir / ".blocks").read_bytes() == blocks


def test_blocks_without_changes_are_not_read_again(tmp_path: Path) -> None:
    """The lines of jobs far from those that were changed are copied as they are."""
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    with closing(connect_reader(run_dir)) as reader:
        files = FinalFiles(run_dir, facts_of(reader), reader, keeps_blocks=True, block_jobs=BLOCK)
        files.write(None, None, now_at=0.0)
        old = written(run_dir, run="", gateway="", failed_start=files.failed_start)
        with closing(sqlite3.connect(run_dir / "run.db")) as other:
            other.execute("UPDATE jobs SET polls = 77")
            other.commit()

        files.write(old, {(0, 2)}, now_at=0.0)

    polls = [json.loads(line)["polls"] for line in (run_dir / "results.jsonl").read_text().splitlines()]
    assert [0] * 6 + [77] * 3 + [0] * 8 == polls


CHANGE = "UPDATE jobs SET polls = 5 WHERE job_id = 'j03'"


def replace_file(path: Path) -> None:
    """Replace a file by a copy, as an editor does."""
    text = path.read_bytes()
    path.unlink()
    path.write_bytes(text)


@pytest.mark.parametrize(
    ("before", "change", "is_kept"),
    [
        (None, CHANGE, True),
        (None, "INSERT INTO usages SELECT seq, 1, '{}' FROM jobs WHERE job_id = 'j03'", True),
        (None, "UPDATE jobs SET idx = 99 WHERE job_id = 'j03'", False),
        (None, "DELETE FROM jobs WHERE job_id = 'j03'", False),
        (None, "UPDATE specs SET request = '{}'", False),
        (lambda run_dir: replace_file(run_dir / "results.jsonl"), CHANGE, False),
        (lambda run_dir: replace_file(run_dir / ".blocks"), CHANGE, False),
        (lambda run_dir: (run_dir / "results.jsonl").unlink(), CHANGE, False),
        (lambda run_dir: (run_dir / ".blocks").write_bytes(b"0000"), CHANGE, False),
    ],
)
def test_only_what_the_last_process_wrote_is_taken_over(
    tmp_path: Path, before: Callable[[Path], object] | None, change: str, is_kept: bool
) -> None:
    """
    Lines are taken over if they are exactly those that the last process wrote, and no job of their block was changed,
    and none was added, removed or moved.
    """
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    # A job that was removed from the manifest is in another block than the rest.
    finish(run_dir, "UPDATE jobs SET is_gone = 1 WHERE job_id = 'j16'")
    with closing(sqlite3.connect(run_dir / "run.db")) as other:
        other.execute("UPDATE jobs SET polls = 77 WHERE job_id = 'j16'")
        other.commit()
    if before is not None:
        before(run_dir)

    finish(run_dir, change)

    *_, line = (run_dir / "results.jsonl").read_text().splitlines()
    assert ("j16", 0 if is_kept else 77) == (json.loads(line)["job_id"], json.loads(line)["polls"])


def test_file_of_failed_jobs_is_removed_after_the_last_one(tmp_path: Path) -> None:
    """`failed.yaml` is there as long as it has jobs to run; comments alone are no reason."""
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    seen = []
    for state in ("succeeded", "remote_failed", "moderation"):
        with Store(run_dir) as store:
            with closing(Outputs(store, facts_of(store.reader))) as outputs:
                with store.transaction() as connection:
                    set_state(connection, "j03", state, at=1.0)
                outputs.finish(now_at=0.0)
            assert store.is_finished
        seen.append((run_dir / "failed.yaml").exists())
        assert not (run_dir / ".blocks").exists()
    assert [False, True, False] == seen


async def test_run_takes_lines_over_and_adds_those_of_its_jobs(tmp_path: Path) -> None:
    """After a run of one more job, the results have one line of each job, in the order of the manifest."""
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    states = {job_id: State.SUCCEEDED for job_id in IDS if job_id != "j04"}
    run_dir = make_run(tmp_path / "out", manifest, states, simulate=True)
    finish(run_dir, "UPDATE jobs SET is_gone = 1 WHERE job_id = 'j16'")
    with closing(sqlite3.connect(run_dir / "run.db")) as other:
        other.execute("UPDATE jobs SET polls = 77 WHERE job_id = 'j16'")
        other.commit()
    with Store(run_dir) as store:
        facts = facts_of(store.reader)
        with closing(Outputs(store, facts, min_jobs=1)) as outputs:
            async with store:
                (job,) = work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0.0)
                job.state = State.FAILED
                await store.durable(store.save(job))
                outputs.append({job.job_id: job.seq})
            outputs.finish(now_at=0.0)

    lines = [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]
    assert IDS == [line["job_id"] for line in lines]
    assert ("failed", 0) == (lines[4]["status"], lines[-1]["polls"])
