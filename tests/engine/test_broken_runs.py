"""What ends a run that can't go on: results and stores that can't be written, and bugs."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.engine.engine import Engine
from runner.engine.events import Delivered
from runner.errors import DiskFull, ObjectStoreError, RunDirError
from tests.engine.answers import REMOTE_FAILED, Bug
from tests.engine.fakes import FakeApi, FakeDownloader, specs
from tests.engine.harness import EngineHarness
from tests.engine.test_stops import SLOW, slow_api


def test_results_that_cannot_be_written_stop_the_run(tmp_path: Path) -> None:
    """
    If the results can't be appended to, the run stops with the reason, and no job is paid for twice.
    """

    def append(seqs: Mapping[str, int]) -> dict[str, Delivered]:
        raise DiskFull("no room left for results.jsonl")

    api = slow_api()
    harness = EngineHarness(tmp_path, api, settings=SLOW, append=append)
    harness.add_jobs(specs(40))

    run = harness.run()

    assert ["disk"] == run.stop_reasons
    assert run.counts[State.PENDING] > 0
    assert {1} == set(api.paid().values())


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (RunDirError("assets can't be written"), "assets"),
        (ObjectStoreError("the store refuses the credentials"), "the store"),
        (sqlite3.DatabaseError("database disk image is malformed"), "{run_dir}/run.db"),
        (OSError(errno.EIO, "Input/output error"), "{run_dir} can't be written: Input/output error"),
    ],
)
def test_store_that_cannot_be_used_stops_the_run(error: Exception, where: str, tmp_path: Path) -> None:
    """
    A step that can't write, or read, is not a failure of its job: the run stops and says where, and the job stays as it is.
    """
    harness = EngineHarness(tmp_path, downloader=FakeDownloader(lambda name, nth: error))
    harness.add_jobs(specs(20))

    run = harness.run()

    assert ["store"] == run.stop_reasons
    assert run.engine.stops[0].message.startswith(where.format(run_dir=tmp_path))
    assert run.counts[State.DOWNLOADING] > 0
    assert 0 == run.counts[State.UNDELIVERED]


@pytest.mark.parametrize("answer_s", [0.2, 2.0], ids=["in the failed commit", "after it"])
def test_tasks_that_could_not_be_saved_are_named(answer_s: float, tmp_path: Path) -> None:
    """
    If the store fails, every task that was paid for is in it or among those that the engine names.
    """
    settings = replace(SLOW, limits=replace(SLOW.limits, in_flight=40))
    unwritable = replace(REMOTE_FAILED, task=replace(REMOTE_FAILED.task, raw_status="\ud800"))
    api = FakeApi(on_poll=lambda task, nth: unwritable, answer_s=answer_s)
    harness = EngineHarness(tmp_path, api, settings=settings)
    harness.add_jobs(specs(40))

    run = harness.run()

    saved = {record.task_id for record in run.records.values() if record.task_id}
    named = {task_id for _, task_id in run.engine.unsaved}
    assert named
    assert {post.task_id for post in api.posts if post.task_id} == saved | named


def test_bug_in_the_engine_stops_the_run(tmp_path: Path) -> None:
    """
    If the engine itself fails it ends, because nothing else would reschedule.
    """

    async def break_it(engine: Engine, store: Any) -> None:
        def schedule(now: float, *, backlog: int | None) -> float:
            raise Bug("schedule")

        await asyncio.sleep(2.0)
        engine.submissions.schedule = schedule

    harness = EngineHarness(tmp_path)
    harness.add_jobs(specs(40))

    run = harness.run(meanwhile=break_it)

    assert ["internal"] == run.stop_reasons
    assert 0 == run.counts[State.UNCERTAIN]
