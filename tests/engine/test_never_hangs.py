"""Whatever the gateway does, a run continues, or ends and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.settings import Limits, PollPolicy
from tests.engine.answers import (
    ACCEPTED,
    AMBIGUOUS,
    NOT_SENT,
    POLL_403,
    POLL_429,
    POLL_502,
    RUNNING,
    SUCCEEDED,
    THROTTLED,
    UNKNOWN,
    Bug,
)
from tests.engine.fakes import FAST, FakeApi, specs
from tests.engine.harness import EngineHarness

SLOW = replace(FAST, poll=PollPolicy(first_s=10.0, interval_s=15.0, max_interval_s=60.0, timeout_s=3600.0))


async def _probe_fails() -> bool:
    return False


async def _probe_raises() -> bool:
    raise Bug("probe")


def first_throttled(job: str, nth: int) -> Any:
    """Answer one POST, as a gateway that exists, and let no other reach it."""
    return THROTTLED if nth == 0 and job.endswith("000") else NOT_SENT


@pytest.mark.parametrize("answer", [THROTTLED, NOT_SENT, AMBIGUOUS], ids=["429", "refused", "502"])
@pytest.mark.parametrize("probe", [_probe_fails, _probe_raises], ids=["fails", "bug"])
def test_gateway_that_accepts_nothing_ends_the_run_after_the_timeout(
    answer: Any, probe: Any, tmp_path: Path
) -> None:
    """
    A gateway that accepts nothing for as long as a task may take ends the run; nearly all jobs stay pending.
    """
    api = FakeApi(first_throttled if answer == NOT_SENT else lambda job, nth: answer)
    harness = EngineHarness(tmp_path, api, settings=SLOW, probe=probe)
    harness.add_jobs(specs(40))

    run = harness.run()

    assert ["unavailable"] == run.stop_reasons
    assert "3600s" in run.engine.stops[0].message or "1h" in run.engine.stops[0].message
    assert 3600.0 <= run.took_s < 2 * 3600.0
    assert run.counts[State.UNCERTAIN] <= 10
    assert 40 == run.counts[State.UNCERTAIN] + run.counts[State.PENDING]


@pytest.mark.parametrize(
    ("patience_s", "waits_s", "posts"), [(600.0, 3600.0, 1), (3600.0, 3600.0, 2)], ids=["longer", "as long"]
)
def test_a_wait_that_the_gateway_asks_for_has_an_end(
    patience_s: float, waits_s: float, posts: int, tmp_path: Path
) -> None:
    """
    A gateway that asks for one long wait after another ends the run too, once it has accepted nothing for so long.
    """
    settings = replace(SLOW, poll=replace(SLOW.poll, timeout_s=patience_s))
    api = FakeApi(lambda job, nth: replace(THROTTLED, retry_after_s=waits_s))
    harness = EngineHarness(tmp_path, api, settings=replace(settings, limits=Limits(submit_per_s=0.5)))
    harness.add_jobs(specs(3))

    run = harness.run()

    assert ["unavailable"] == run.stop_reasons
    assert posts == len(api.posts)
    assert patience_s <= run.took_s < patience_s + 10.0


def test_an_outage_after_a_last_sign_of_life_ends_the_run(tmp_path: Path) -> None:
    """
    A task that is shown once more after the first unclear answers makes them count no more; the outage ends the run
    all the same, although nothing but probes is sent then.
    """
    settings = replace(SLOW, poll=replace(SLOW.poll, timeout_s=600.0))
    api = FakeApi(
        lambda job, nth: ACCEPTED if job.endswith("000") else AMBIGUOUS,
        lambda task, nth: RUNNING if nth < 3 else POLL_502,
    )
    harness = EngineHarness(tmp_path, api, settings=settings, probe=_probe_fails)
    harness.add_jobs(specs(40))

    run = harness.run()

    assert ["unavailable"] == run.stop_reasons
    assert run.took_s < 2 * 600.0


def test_upstream_outage_makes_few_jobs_uncertain(tmp_path: Path) -> None:
    """
    If probes succeed while every POST ends in 502, trials become rare, and end.
    """
    harness = EngineHarness(tmp_path, FakeApi(lambda job, nth: AMBIGUOUS), settings=SLOW)
    harness.add_jobs(specs(100))

    run = harness.run()

    assert ["unavailable"] == run.stop_reasons
    assert run.counts[State.UNCERTAIN] <= 15


def test_slow_rate_is_not_a_stall(tmp_path: Path) -> None:
    """
    A run that submits a job every two hours is not stopped because nothing happens in between.
    """
    limits = replace(SLOW.limits, submit_per_s=1 / 7200)
    api = FakeApi(lambda job, nth: THROTTLED if nth == 0 and job.endswith("1") else ACCEPTED)
    harness = EngineHarness(tmp_path, api, settings=replace(SLOW, limits=limits))
    harness.add_jobs(specs(3))

    run = harness.run()

    assert [] == run.stop_reasons
    assert {State.SUCCEEDED} == set(run.states.values())


@pytest.mark.parametrize(
    "answer",
    [RUNNING, POLL_403, POLL_429, POLL_502, UNKNOWN],
    ids=["running", "403", "429", "502", "unknown"],
)
def test_tasks_that_never_end_time_out(answer: Any, tmp_path: Path) -> None:
    """
    No answer to polls keeps a task longer than its time-out and one more wait.
    """
    harness = EngineHarness(tmp_path, FakeApi(on_poll=lambda task, nth: answer), settings=SLOW)
    harness.add_jobs(specs(8))

    run = harness.run()

    assert {State.TIMED_OUT, State.FAILED} >= set(run.states.values()) - {State.PENDING}
    assert run.took_s <= 3600.0 + 60.0 + 60.0
    assert all(record.task_id for record in run.records.values() if record.state is not State.PENDING)


def test_deadline_ends_a_run_that_only_waits(tmp_path: Path) -> None:
    """
    With --max-runtime a run ends in time, whatever the gateway does.
    """
    harness = EngineHarness(tmp_path, FakeApi(first_throttled), settings=SLOW, probe=_probe_fails)
    harness.add_jobs(specs(10))

    run = harness.run(run_s=60.0)

    assert ["deadline"] == run.stop_reasons
    assert run.took_s < 62.0


def test_outage_is_reported(tmp_path: Path) -> None:
    """
    An outage is reported when it begins and when it ends, and the run continues by itself.
    """

    def answer(job: str, nth: int) -> Any:
        import asyncio

        return first_throttled(job, nth) if asyncio.get_running_loop().time() < 300.0 else ACCEPTED

    harness = EngineHarness(tmp_path, FakeApi(answer, lambda task, nth: SUCCEEDED), settings=SLOW)
    harness.add_jobs(specs(20))

    run = harness.run()

    assert {State.SUCCEEDED} == set(run.states.values())
    assert "submissions are paused until it recovers" in run.notices("outage")[0].message
    assert run.notices("recovered")
