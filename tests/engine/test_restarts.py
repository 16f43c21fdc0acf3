"""Any outcomes, in any order, with the process killed at any moment: nothing is paid twice, nothing is lost."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runner.assets.request import FetchFailure, NotFetched
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.settings import Timeouts
from runner.engine.engine import Engine
from runner.store.database import DB_NAME
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
from tests.engine.fakes import BRISK, FakeApi, FakeFetcher, Played, Stage, StageStore, specs

SUBMITS = [ACCEPTED] * 6 + [THROTTLED, NOT_SENT, NO_CHANNEL, REJECTED, AMBIGUOUS, Bug("post")]
POLLS = [RUNNING] * 6 + [SUCCEEDED] * 3 + [REMOTE_FAILED, UNKNOWN, POLL_403, POLL_429, POLL_502, Bug("poll")]
FETCHES = [None] * 5 + [NotFetched(FetchFailure.EXPIRED, failure(FailureClass.DOWNLOAD_FAILED)), Bug("fetch")]
SETTINGS = replace(BRISK, timeouts=Timeouts(unknown_task_s=10.0))


class Remote(FakeApi):
    """A gateway that rolls dice for every answer, and hears nothing more from a process once it is dead."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(lambda job, nth: dice.choice(SUBMITS), lambda task, nth: dice.choice(POLLS))
        self._dice = dice
        self.is_cut_off = False

    async def submit(self, body: bytes, key: str) -> Any:
        self.answer_s = self._dice.choice([0.01, 0.3, 4.0])
        await self._if_alive()
        return await super().submit(body, key)

    async def poll(self, task_id: str, key: str) -> Any:
        self.answer_s = self._dice.choice([0.01, 0.3])
        await self._if_alive()
        return await super().poll(task_id, key)

    async def _if_alive(self) -> None:
        if self.is_cut_off:
            await asyncio.Event().wait()


def lives(stage: Stage, kills_at: list[float]) -> Iterator[Played]:
    """
    Play one process after the other, each killed at its moment but for the last.

    A kill leaves what was committed by then, and nothing of what the dying process still does: the next one
    gets a copy of the database from that moment.
    """
    remote = stage.api
    assert isinstance(remote, Remote)
    for number, kill_at in enumerate(kills_at):
        after = stage.run_dir.with_name(f"life-{number + 1}")

        async def kill(engine: Engine, store: StageStore, at: float = kill_at, after: Path = after) -> None:
            await asyncio.sleep(at)
            _copy(store, after)
            remote.is_cut_off = True
            engine.abandon()

        yield stage.play(meanwhile=kill)
        if not after.exists():
            return
        stage.run_dir = after
        remote.is_cut_off = False
    yield stage.play()


def _copy(store: StageStore, folder: Path) -> None:
    folder.mkdir()
    with closing(sqlite3.connect(folder / DB_NAME)) as copy:
        store.reader.backup(copy)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 8),
    kills_at=st.lists(st.floats(0.05, 25.0), max_size=4),
)
@pytest.mark.slow
def test_nothing_is_paid_twice_and_nothing_is_lost(seed: int, count: int, kills_at: list[float]) -> None:
    """
    Per job at most one POST that made a task or may have; every job ends or rests; no slot is kept.
    """
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        remote = Remote(dice)
        fetcher = FakeFetcher(lambda name, nth: dice.choice(FETCHES))
        stage = Stage(Path(folder) / "life-0", remote, settings=SETTINGS, fetcher=fetcher)
        stage.take_in(specs(count))

        *_, played = lives(stage, kills_at)

    check_that_all_is_right(played, remote)


def check_that_all_is_right(played: Played, remote: Remote) -> None:
    """Hold the end of a run against what the remote side saw."""
    assert all(times == 1 for times in remote.paid().values()), "paid twice"
    assert dict(played.engine.counts) == played.counts
    assert 0 == played.engine.admission.in_flight
    assert 0 == played.engine.admission.breaker.unanswered
    assert [] == played.engine.unsaved
    for job_id, record in played.records.items():
        assert record.state.has_ended, f"{job_id} is left {record.state}"
        tasks = [post.task_id for post in remote.posts_of(job_id) if post.task_id]
        if tasks and record.state is not State.UNCERTAIN:
            assert record.task_id == tasks[0], f"the task of {job_id} is lost"
        if record.state is State.SUCCEEDED:
            assert tasks
            assert record.assets
