"""An outage of the gateway makes a handful of jobs uncertain, and the run continues by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.core.settings import Limits, PollPolicy, Settings
from tests.engine.answers import ACCEPTED, AMBIGUOUS, POLL_502, RUNNING, SUCCEEDED
from tests.engine.fakes import FakeApi, specs
from tests.engine.harness import EngineHarness

TYPICAL = Settings(name="typical", limits=Limits(submit_per_s=1.0, in_flight=120), poll=PollPolicy())
OUT_FROM_S, OUT_TO_S = 120.0, 720.0
TASK_TAKES_S = 40.0


def is_down() -> bool:
    """Return whether the gateway is down at this virtual moment."""
    return OUT_FROM_S <= asyncio.get_running_loop().time() < OUT_TO_S


@pytest.mark.parametrize("answers_probes", [False, True], ids=["gateway down", "upstream down"])
@pytest.mark.parametrize("answer_s", [0.2, 4.0], ids=["fast", "slow"])
@pytest.mark.slow
def test_ten_minutes_of_502_leave_fewer_than_ten_jobs_uncertain(
    answers_probes: bool, answer_s: float, tmp_path: Path
) -> None:
    """
    At 60 jobs a minute, ten minutes of 502 leave fewer than ten jobs uncertain; the rest succeeds, slowly at first.
    """

    def answer_poll(task_id: str, nth: int) -> Any:
        if is_down():
            return POLL_502
        submitted_at = api.posts[int(task_id.rsplit("-", 1)[1])].at
        is_done = asyncio.get_running_loop().time() - submitted_at > TASK_TAKES_S
        return SUCCEEDED if is_done else RUNNING

    async def probe() -> bool:
        return answers_probes or not is_down()

    api = FakeApi(lambda job, nth: AMBIGUOUS if is_down() else ACCEPTED, answer_poll, answer_s=answer_s)
    harness = EngineHarness(tmp_path, api, settings=TYPICAL, probe=probe)
    harness.add_jobs(specs(900))

    run = harness.run()

    assert 0 < run.counts[State.UNCERTAIN] < 10
    assert 900 == run.counts[State.UNCERTAIN] + run.counts[State.SUCCEEDED]
    assert [] == run.stop_reasons
    assert {1} == set(api.paid().values())
    first_at = min(post.at for post in api.posts if post.at >= OUT_TO_S)
    assert len([post for post in api.posts if first_at <= post.at < first_at + 10.0]) <= 3
    assert run.took_s < 900 * 1.5 + (OUT_TO_S - OUT_FROM_S) + 300.0
