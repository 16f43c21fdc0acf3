"""Any outcomes in any order, with the process killed at any moment: nothing is paid twice, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runner.assets.request import FetchFailure, NotFetched
from runner.core.filenames import DB_NAME
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.settings import Timeouts
from runner.core.stop import StopReason
from runner.engine.engine import Engine
from tests.engine.answers import (
    ACCEPTED,
    AMBIGUOUS,
    NO_CHANNEL,
    NOT_SENT,
    POLL_403,
    POLL_429,
    POLL_502,
    REJECTED,
    REMOTE_FAILED,
    RUNNING,
    SUCCEEDED,
    THROTTLED,
    UNKNOWN,
    Bug,
    failure,
)
from tests.engine.fakes import FAST, FakeApi, FakeDownloader, specs
from tests.engine.harness import EngineHarness, FinishedRun, HarnessStore

SUBMITS = [ACCEPTED] * 6 + [THROTTLED, NOT_SENT, NO_CHANNEL, REJECTED, AMBIGUOUS, Bug("post")]
POLLS = [RUNNING] * 6 + [SUCCEEDED] * 3 + [REMOTE_FAILED, UNKNOWN, POLL_403, POLL_429, POLL_502, Bug("poll")]
FETCHES = [None] * 5 + [NotFetched(FetchFailure.EXPIRED, failure(FailureClass.DOWNLOAD_FAILED)), Bug("fetch")]
SETTINGS = replace(FAST, timeouts=Timeouts(unknown_task_s=10.0))


class RandomApi(FakeApi):
    """A gateway with random answers, which a process that was killed can no longer reach."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(lambda job, nth: rng.choice(SUBMITS), lambda task, nth: rng.choice(POLLS))
        self._rng = rng
        self.is_cut_off = False

    async def submit(self, body: bytes, key: str) -> Any:
        self.answer_s = self._rng.choice([0.01, 0.3, 4.0])
        await self._hang_if_cut_off()
        return await super().submit(body, key)

    async def poll(self, task_id: str, key: str) -> Any:
        self.answer_s = self._rng.choice([0.01, 0.3])
        await self._hang_if_cut_off()
        return await super().poll(task_id, key)

    async def _hang_if_cut_off(self) -> None:
        if self.is_cut_off:
            await asyncio.Event().wait()


def run_with_kills(harness: EngineHarness, kills_at: list[float]) -> Iterator[FinishedRun]:
    """
    Run one process after the other, each of them killed at its time, and one more to its end.

    A kill leaves what was committed by then, and nothing that the dying process still does: the next one
    gets a copy of the database from that moment.
    """
    api = harness.api
    assert isinstance(api, RandomApi)
    for number, kill_at in enumerate(kills_at):
        copy = harness.run_dir.with_name(f"process-{number + 1}")

        async def kill(engine: Engine, store: HarnessStore, at: float = kill_at, copy: Path = copy) -> None:
            await asyncio.sleep(at)
            _copy_database(store, copy)
            api.is_cut_off = True
            engine.abandon()

        yield harness.run(meanwhile=kill)
        if not copy.exists():
            return
        harness.run_dir = copy
        api.is_cut_off = False
    yield harness.run()


def _copy_database(store: HarnessStore, folder: Path) -> None:
    folder.mkdir()
    with closing(sqlite3.connect(folder / DB_NAME)) as connection:
        store.reader.backup(connection)


@example(seed=9721, count=5, kills_at=[])
@example(seed=20949, count=2, kills_at=[4.0])
@example(seed=134566, count=1, kills_at=[])
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 8),
    kills_at=st.lists(st.floats(0.05, 25.0), max_size=4),
)
@pytest.mark.slow
def test_nothing_is_paid_twice_and_nothing_is_lost(seed: int, count: int, kills_at: list[float]) -> None:
    """
    Per job at most one POST that made a task or may have; every job ends; every slot is released.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        api = RandomApi(rng)
        downloader = FakeDownloader(lambda name, nth: rng.choice(FETCHES))
        harness = EngineHarness(Path(folder) / "process-0", api, settings=SETTINGS, downloader=downloader)
        harness.add_jobs(specs(count))

        *_, run = run_with_kills(harness, kills_at)

    check_run(run, api)


def check_run(run: FinishedRun, api: RandomApi) -> None:
    """Compare the end of a run with what the API saw."""
    assert all(times == 1 for times in api.paid().values()), "paid twice"
    assert dict(run.engine.counts) == run.counts
    assert 0 == run.engine.admission.in_flight
    assert 0 == run.engine.governor.breaker.unanswered
    assert [] == run.engine.unsaved
    # By chance the gateway may accept nothing for longer than a run waits, or not be reached at first.
    stalls = (StopReason.UNAVAILABLE, StopReason.UNREACHABLE)
    is_stalled = any(stop.reason in stalls for stop in run.engine.stops)
    for job_id, record in run.records.items():
        is_left = is_stalled and record.state is State.PENDING
        assert record.state.has_ended or is_left, f"{job_id} is left {record.state}"
        tasks = [post.task_id for post in api.posts_of(job_id) if post.task_id]
        if tasks and record.state is not State.UNCERTAIN:
            assert tasks[0] == record.task_id, f"the task of {job_id} is lost"
        if record.state is State.SUCCEEDED:
            assert tasks
            assert record.assets
