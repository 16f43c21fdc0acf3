"""An outage of the gateway puts a handful of jobs in doubt, and the run goes on by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.core.settings import Limits, PollPolicy, Settings
from tests.engine.answers import ACCEPTED, AMBIGUOUS, POLL_502, RUNNING, SUCCEEDED
from tests.engine.fakes import FakeApi, Stage, specs

USUAL = Settings(name="usual", limits=Limits(submit_per_s=1.0, in_flight=120), poll=PollPolicy())
OUT_FROM_S, OUT_TO_S = 120.0, 720.0
TASK_TAKES_S = 40.0


def is_out() -> bool:
    """Say whether the gateway is out at this virtual moment."""
    return OUT_FROM_S <= asyncio.get_running_loop().time() < OUT_TO_S


@pytest.mark.parametrize("answers_probes", [False, True], ids=["all out", "upstream out"])
@pytest.mark.parametrize("answer_s", [0.2, 4.0], ids=["at once", "slow"])
@pytest.mark.slow
def test_ten_minutes_of_502_leave_fewer_than_ten_jobs_in_doubt(
    answers_probes: bool, answer_s: float, tmp_path: Path
) -> None:
    """
    At 60 jobs a minute, ten minutes of 502 leave fewer than ten jobs uncertain; the rest succeeds.
    """

    def look(task_id: str, nth: int) -> Any:
        if is_out():
            return POLL_502
        submitted_at = api.posts[int(task_id.rsplit("-", 1)[1])].at
        is_done = asyncio.get_running_loop().time() - submitted_at > TASK_TAKES_S
        return SUCCEEDED if is_done else RUNNING

    async def probe() -> bool:
        return answers_probes or not is_out()

    api = FakeApi(lambda job, nth: AMBIGUOUS if is_out() else ACCEPTED, look, answer_s=answer_s)
    stage = Stage(tmp_path, api, settings=USUAL, probe=probe)
    stage.take_in(specs(900))

    played = stage.play()

    assert 0 < played.counts[State.UNCERTAIN] < 10
    assert 900 == played.counts[State.UNCERTAIN] + played.counts[State.SUCCEEDED]
    assert [] == played.reasons
    assert {1} == set(api.paid().values())
    assert played.took_s < 900 * 1.5 + (OUT_TO_S - OUT_FROM_S) + 300.0
