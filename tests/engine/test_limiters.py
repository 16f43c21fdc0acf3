"""A limiter that answers 503 makes few jobs uncertain, whatever its rate is, and the run keeps most of that rate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.core.settings import Limits, PollPolicy, Settings
from tests.core.simulated_gateways import TokenBucket
from tests.engine.answers import ACCEPTED, AMBIGUOUS, SUCCEEDED
from tests.engine.fakes import FakeApi, specs
from tests.engine.harness import EngineHarness


@pytest.mark.parametrize(
    ("submit_per_s", "jobs", "limit_per_s", "most"),
    [(1.0, 60, 0.5, 6), (1.0, 60, 0.9, 6), (10.0, 100, 0.5, 8), (10.0, 100, 0.1, 8), (10.0, 100, 5.0, 8)],
)
def test_limiter_that_answers_503_makes_few_jobs_uncertain(
    submit_per_s: float, jobs: int, limit_per_s: float, most: int, tmp_path: Path
) -> None:
    """
    A limiter such as nginx's `limit_req` without a burst refuses with a 503 that nobody can tell from a failure of the gateway.
    """
    limiter, random = TokenBucket(limit_per_s, burst=1.0), Random(7)

    def answer(job: str, nth: int) -> Any:
        arrives_at = asyncio.get_running_loop().time() + random.uniform(0.0, 0.02)
        return ACCEPTED if limiter.allows(arrives_at) else AMBIGUOUS

    settings = Settings(
        name="limiter",
        limits=Limits(submit_per_s=submit_per_s, poll_per_s=50.0, in_flight=50),
        poll=PollPolicy(first_s=1.0, interval_s=1.0, max_interval_s=5.0),
    )
    harness = EngineHarness(tmp_path, FakeApi(answer, lambda task, nth: SUCCEEDED), settings=settings)
    harness.add_jobs(specs(jobs))

    run = harness.run()

    assert run.counts[State.UNCERTAIN] <= most
    assert jobs == run.counts[State.UNCERTAIN] + run.counts[State.SUCCEEDED]
    assert run.took_s < 1.5 * jobs / limit_per_s + 60.0
