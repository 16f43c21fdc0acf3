"""The derived files of a run: lines that it appended are taken over, and are what would be written again."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest

from runner.api.blocks import AppendedBlocks, Block, read_blocks
from runner.api.outputs import Outputs
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, Job
from runner.engine.events import ignore
from runner.engine.progress import ResultsAppender
from runner.results.verdicts import VerdictsWriter
from runner.results.writers import ResultsWriter
from runner.store import query, work_list
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.api.test_final_files import BLOCK, IDS, contents, facts_of

CLASSES = (FailureClass.MODERATION, FailureClass.REMOTE_FAILED, FailureClass.LOST)


async def end(store: Store, outputs: Outputs, jobs: Iterable[Job]) -> None:
    """Save the ends of jobs, and append their lines."""
    appender, ended = ResultsAppender(store, outputs.append, ignore), list(jobs)
    for job in ended:
        store.save(job)
        appender.add(job)
    await store.durable(max(job.commit for job in ended))
    outputs.append({job.job_id: job.seq for job in ended})


def all_jobs(store: Store) -> list[Job]:
    """Return the jobs of a run."""
    return list(work_list.jobs_in_states(store.reader, State, waiting_since=0.0))


def blocks_of(run_dir: Path) -> list[tuple[Block, list[FailureClass]]]:
    """Read what the files have of each block, with durations in one order; and its failure classes in their order."""
    with (run_dir / ".blocks").open("rb") as file:
        blocks = [block for block, _ in read_blocks(file)]
    for block in blocks:
        for _, histogram in block.totals.summary._histograms():
            histogram.exact = None if histogram.exact is None else sorted(histogram.exact)
    return [(block, list(block.totals.summary.by_class)) for block in blocks]


@pytest.mark.parametrize("seed", range(6))
async def test_lines_taken_over_are_those_that_would_be_written(tmp_path: Path, seed: int) -> None:
    """
    However jobs ended, in whatever order, some twice or changed afterwards, the files are the same whether their lines
    are taken over or written again from the jobs.
    """
    chance = random.Random(seed)
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    with closing(sqlite3.connect(run_dir / "run.db")) as other:
        other.execute("UPDATE jobs SET is_gone = 1 WHERE job_id IN ('j07', 'j16')")
        other.commit()
    with Store(run_dir) as store:
        with closing(outputs_of(store)) as outputs:
            async with store:
                jobs = all_jobs(store)
                chance.shuffle(jobs)
                jobs = jobs[: chance.choice([15, 17])]
                for job in jobs:
                    cls = chance.choice(CLASSES)
                    job.state = chance.choice([State.SUCCEEDED, State.FAILED, State.FAILED])
                    job.error = None if job.state is State.SUCCEEDED else Failure(cls, "no <b>", None, 400)
                    job.finished_at, job.generate_s = 9.0 + job.seq, job.seq / 8
                for start in range(0, len(jobs), 4):
                    await end(store, outputs, jobs[start : start + 4])
                for job in chance.sample(jobs, 3):
                    job.polls = 9
                    store.save(job)
                again = jobs[0]
                again.polls = 8
                await end(store, outputs, [again])
            outputs.finish(now_at=0.0)
        taken, blocks = contents(run_dir), blocks_of(run_dir)
        with closing(outputs_of(store)) as outputs:
            outputs.finish(now_at=0.0)
    assert contents(run_dir) == taken
    assert blocks_of(run_dir) == blocks


def outputs_of(store: Store) -> Outputs:
    """Return the derived files of a run, in small blocks."""
    return Outputs(store, facts_of(store.reader), min_jobs=1, block_jobs=BLOCK)


def set_polls(run_dir: Path) -> None:
    """Change all jobs behind the program's back."""
    with closing(sqlite3.connect(run_dir / "run.db")) as other:
        other.execute("UPDATE jobs SET polls = 77")
        other.commit()


def polls_of(run_dir: Path) -> list[int]:
    """Read the polls of each job in the results: 77 if it was read again."""
    return [json.loads(line)["polls"] for line in (run_dir / "results.jsonl").read_text().splitlines()]


def write_directly(store: Store) -> None:
    """Change a job as commands do that change many."""
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET timeout_s = 5 WHERE job_id IN ('j05', 'j16')")


def give_verdict(store: Store) -> None:
    """Give a verdict, as a person does."""
    with VerdictsWriter(store.run_dir) as verdicts:
        verdicts.append("j05", "keep", at=1.0)


def overwrite(store: Store) -> None:
    """Change a line, as another program might."""
    path = store.run_dir / "results.jsonl"
    with path.open("r+b") as file:
        file.write(b"[")


def replace(store: Store) -> None:
    """Write another file in place of the results."""
    path = store.run_dir / "results.jsonl"
    path.rename(path.with_name("other"))
    path.write_bytes(b"{}\n")


@pytest.mark.parametrize(
    ("before", "read_again"),
    [
        (lambda store: None, []),
        (lambda store: store.save_findings(2, 1, {"checks": {}}), [0, 1, 2]),
        (lambda store: store.save_usage(all_jobs(store)[5], {"seconds": 5}), [3, 4, 5]),
        (lambda store: store.save_assets(all_jobs(store)[5], []), [3, 4, 5]),
        (replace, []),
        (overwrite, range(17)),
        (give_verdict, range(17)),
    ],
)
async def test_only_jobs_without_a_line_of_what_they_are_now_are_read_again(
    tmp_path: Path, before: Callable[[Store], object], read_again: Iterable[int]
) -> None:
    """The jobs of a block are read again at the end if one was changed since its line, or lines are not ours alone."""
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    with (
        Store(run_dir) as store,
        closing(Outputs(store, facts_of(store.reader), block_jobs=BLOCK)) as outputs,
    ):
        async with store:
            await end(store, outputs, reversed(all_jobs(store)))
            before(store)
        with closing(sqlite3.connect(run_dir / "run.db")) as other:
            other.execute("UPDATE jobs SET polls = 77")
            other.commit()
        outputs.finish(now_at=0.0)
    polls = [json.loads(line)["polls"] for line in (run_dir / "results.jsonl").read_text().splitlines()]
    assert [77 if n in read_again else 0 for n in range(17)] == polls


async def test_no_line_counts_from_before_something_else_wrote(tmp_path: Path) -> None:
    """Jobs are read again after a transaction changed them, and after another program wrote to the results."""
    for number, write in enumerate((write_directly, overwrite)):
        manifest = write_manifest(tmp_path / "m.yaml", *IDS)
        run_dir = make_run(tmp_path / str(number), manifest, dict.fromkeys(IDS, State.SUCCEEDED))
        with Store(run_dir) as store, closing(outputs_of(store)) as outputs:
            async with store:
                await end(store, outputs, all_jobs(store)[:9])
                if write is overwrite:
                    overwrite(store)
                    await end(store, outputs, all_jobs(store)[9:])
            if write is write_directly:
                write_directly(store)
            set_polls(run_dir)
            outputs.finish(now_at=0.0)
        assert [77] * 17 == polls_of(run_dir)


async def test_block_with_a_job_that_ended_twice_is_read_again(tmp_path: Path) -> None:
    """A block is complete if each of its jobs has a line, not if it has as many lines as jobs."""
    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    with Store(run_dir) as store, closing(outputs_of(store)) as outputs:
        async with store:
            first, *others = all_jobs(store)
            await end(store, outputs, [first])
            await end(store, outputs, [first])
            await end(store, outputs, [job for job in others if job.index != 1])
        set_polls(run_dir)
        outputs.finish(now_at=0.0)
    assert [77] * 3 + [0] * 14 == polls_of(run_dir)


async def test_lines_that_cannot_be_read_whole_are_written_again(tmp_path: Path) -> None:
    """A block is taken over only with all of its lines, whatever a disk returns."""

    class ShortReads(ResultsWriter):
        def read(self, start: int, count: int) -> bytes:
            return super().read(start, count)[:-1]

    manifest = write_manifest(tmp_path / "m.yaml", *IDS)
    run_dir = make_run(tmp_path / "out", manifest, dict.fromkeys(IDS, State.SUCCEEDED))
    with (
        Store(run_dir) as store,
        ShortReads(tmp_path / "lines") as writer,
        closing(AppendedBlocks(store, store.reader, writer, BLOCK)) as blocks,
    ):
        seqs = {job.job_id: job.seq for job in all_jobs(store)[:BLOCK]}
        records = list(query.records(store.reader, list(seqs.values())))
        blocks.add(seqs, records, [b"{}\n"] * BLOCK, writer.append(b"{}\n" * BLOCK))
        assert blocks.find((0, 0)) is None
