"""Runs that end at a time of day, after a time, or after a number of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.engine.engine import Engine
from tests.engine.answers import ACCEPTED, RUNNING, THROTTLED
from tests.engine.fakes import FAST, WALL_AT_0, FakeApi, LoopClock, spec, specs
from tests.engine.harness import EngineHarness
from tests.engine.test_stops import SLOW


def test_deadline_stops_submissions_and_then_the_drain(tmp_path: Path) -> None:
    """
    At the deadline nothing more is submitted; tasks that exist are waited for, until the drain time is over.
    """
    api = FakeApi(on_poll=lambda task, nth: RUNNING)
    harness = EngineHarness(tmp_path, api, settings=SLOW)
    harness.add_jobs(specs(40))

    run = harness.run(run_s=10.0, drain_s=60.0)

    assert ["deadline", "drain_ended"] == run.stop_reasons
    assert 70.0 <= run.took_s < 75.0
    assert 8 == run.counts[State.SUBMITTED]


def test_deadline_that_has_passed_submits_nothing(tmp_path: Path) -> None:
    """
    Without any time no job is submitted; tasks of an earlier process are still polled and downloaded.
    """
    harness = EngineHarness(tmp_path)
    harness.add_jobs([*specs(3), spec("known", 3, task_id="task_known")])

    run = harness.run(run_s=0.0)

    assert (["deadline"], 0) == (run.stop_reasons, len(harness.api.posts))
    assert {State.PENDING: 3, State.SUCCEEDED: 1} == {state: n for state, n in run.counts.items() if n}


def test_limit_that_leaves_jobs_is_a_reason(tmp_path: Path) -> None:
    """
    `--limit` stops the run with its own reason, once what it submitted has ended, unless no job is left.
    """
    harness = EngineHarness(tmp_path)
    harness.add_jobs(specs(4))

    first, rest = harness.run(limit=3), harness.run(limit=1)

    assert (["limit"], 3) == (first.stop_reasons, first.counts[State.SUCCEEDED])
    assert ([], 4) == (rest.stop_reasons, rest.counts[State.SUCCEEDED])


@pytest.mark.parametrize("jump_s", [0.0, 7200.0, -30.0], ids=["steady", "suspended", "set back"])
def test_time_of_day_follows_the_wall_clock(jump_s: float, tmp_path: Path) -> None:
    """
    A machine that slept past the time submits nothing after it; a clock that is set back makes the run last longer.
    """
    jump_at, stop_s = 20.0, 60.0
    api = FakeApi(lambda job, nth: THROTTLED if nth == 0 and "000" in job else ACCEPTED)
    harness = EngineHarness(
        tmp_path, api, settings=replace(FAST, limits=replace(FAST.limits, submit_per_s=0.5))
    )
    harness.add_jobs(specs(100))

    def wall_s(now: float) -> float:
        return now + (jump_s if now >= jump_at else 0.0)

    run = harness.run(stop_at=WALL_AT_0 + stop_s, clock=LoopClock(wall_s))

    ended_at = next(at for at in (n / 2 for n in range(1000)) if wall_s(at) >= stop_s)
    assert ["deadline"] == run.stop_reasons
    assert ended_at - 3.0 <= max(post.at for post in api.posts) < ended_at
    assert run.counts[State.PENDING] > 0


def test_deadline_after_the_end_does_nothing(tmp_path: Path) -> None:
    """
    A run that ends before its deadline cancels the timer.
    """
    harness = EngineHarness(tmp_path)
    harness.add_jobs(specs(2))

    async def outlive(engine: Engine, store: Any) -> None:
        engine.governor.record_probe(0.0, is_healthy=True)

    run = harness.run(run_s=1000.0, meanwhile=outlive)

    assert [] == run.stop_reasons
    assert run.took_s < 100.0
