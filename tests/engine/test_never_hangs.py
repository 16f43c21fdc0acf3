"""Whatever the gateway does, a run goes on, or ends and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.settings import PollPolicy
from runner.engine.context import EngineOptions
from tests.engine.answers import (
    ACCEPTED,
    AMBIGUOUS,
    NOT_SENT,
    POLL_401,
    POLL_403,
    POLL_429,
    POLL_502,
    RUNNING,
    SUCCEEDED,
    THROTTLED,
    UNKNOWN,
    Bug,
)
from tests.engine.fakes import BRISK, FakeApi, Stage, specs

PATIENT = replace(
    BRISK, poll=PollPolicy(first_s=10.0, interval_s=15.0, max_interval_s=60.0, timeout_s=3600.0)
)


async def _is_out() -> bool:
    return False


async def _raises() -> bool:
    raise Bug("probe")


@pytest.mark.parametrize("answer", [THROTTLED, NOT_SENT, AMBIGUOUS], ids=["429", "refused", "502"])
@pytest.mark.parametrize("probe", [_is_out, _raises], ids=["out", "bug"])
def test_gateway_that_takes_nothing_ends_the_run_after_the_patience(
    answer: Any, probe: Any, tmp_path: Path
) -> None:
    """
    A gateway that only refuses, for as long as a task may take, ends the run; nearly all jobs stay pending.
    """
    stage = Stage(tmp_path, FakeApi(lambda job, nth: answer), settings=PATIENT, probe=probe)
    stage.take_in(specs(40))

    played = stage.play()

    assert ["unavailable"] == played.reasons
    assert "3600s" in played.engine.stops[0].message or "1h" in played.engine.stops[0].message
    assert 3600.0 <= played.took_s < 2 * 3600.0
    assert played.counts[State.UNCERTAIN] <= 10
    assert 40 == played.counts[State.UNCERTAIN] + played.counts[State.PENDING]


def test_gateway_that_answers_while_its_upstream_is_out_puts_few_in_doubt(tmp_path: Path) -> None:
    """
    Probes that are well and POSTs that all end in 502: the trials grow rare, and end.
    """
    stage = Stage(tmp_path, FakeApi(lambda job, nth: AMBIGUOUS), settings=PATIENT)
    stage.take_in(specs(100))

    played = stage.play()

    assert ["unavailable"] == played.reasons
    assert played.counts[State.UNCERTAIN] <= 15


def test_slow_pace_of_ones_own_is_no_standstill(tmp_path: Path) -> None:
    """
    A run that submits a job every two hours waits that long between any two, and stops for nothing.
    """
    limits = replace(PATIENT.limits, submit_per_s=1 / 7200)
    api = FakeApi(lambda job, nth: THROTTLED if nth == 0 and job.endswith("1") else ACCEPTED)
    stage = Stage(tmp_path, api, settings=replace(PATIENT, limits=limits))
    stage.take_in(specs(3))

    played = stage.play()

    assert [] == played.reasons
    assert {State.SUCCEEDED} == set(played.states.values())


@pytest.mark.parametrize(
    "look",
    [RUNNING, POLL_403, POLL_401, POLL_429, POLL_502, UNKNOWN],
    ids=["running", "403", "401", "429", "502", "unknown"],
)
def test_tasks_that_never_end_rest_when_patience_does(look: Any, tmp_path: Path) -> None:
    """
    No answer to queries keeps a task in hand longer than its time-out and one wait more.
    """
    stage = Stage(tmp_path, FakeApi(on_poll=lambda task, nth: look), settings=PATIENT)
    stage.take_in(specs(8))

    played = stage.play()

    assert {State.TIMED_OUT, State.FAILED} >= set(played.states.values()) - {State.PENDING}
    assert played.took_s <= 3600.0 + 60.0 + 60.0
    assert all(record.task_id for record in played.records.values() if record.state is not State.PENDING)


def test_deadline_ends_a_run_that_only_waits(tmp_path: Path) -> None:
    """
    With --max-runtime a run ends in time, however the gateway behaves.
    """
    stage = Stage(tmp_path, FakeApi(lambda job, nth: NOT_SENT), settings=PATIENT, probe=_is_out)
    stage.take_in(specs(10))

    played = stage.play(EngineOptions(run_s=60.0))

    assert ["deadline"] == played.reasons
    assert played.took_s < 62.0


def test_run_says_what_it_waits_for(tmp_path: Path) -> None:
    """
    An outage is told when it begins and when it ends, and the run goes on by itself.
    """

    def answer(job: str, nth: int) -> Any:
        import asyncio

        return NOT_SENT if asyncio.get_running_loop().time() < 300.0 else ACCEPTED

    stage = Stage(tmp_path, FakeApi(answer, lambda task, nth: SUCCEEDED), settings=PATIENT)
    stage.take_in(specs(20))

    played = stage.play()

    assert {State.SUCCEEDED} == set(played.states.values())
    assert "nothing is submitted until it is back" in played.notices("outage")[0].message
    assert played.notices("recovered")
