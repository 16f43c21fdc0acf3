"""One limit over all shards of a run: rate, breaker, counts. Everything is on virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import Ambiguous, Rejected, Throttled
from runner.core.settings import CanaryPolicy, Limits, ModelLimits
from runner.core.shared_governor import SharedBudget
from tests.core.simulated_gateways import TokenBucket
from tests.engine.answers import (
    ACCEPTED,
    BAD_KEY,
    NO_MONEY,
    REMOTE_FAILED,
    RUNNING,
    SUCCEEDED,
    THROTTLED,
    Answer,
)
from tests.engine.fakes import FAST, FakeApi
from tests.engine.fleet import PRICE, Fleet

AT_6 = replace(FAST, limits=Limits(submit_per_s=6.0, poll_per_s=50.0, in_flight=1000))


def _most_in(times: list[float], seconds: float) -> int:
    """Return the most POSTs in any such window."""
    return max(sum(start <= at < start + seconds for at in times) for start in times)


@pytest.mark.slow
@pytest.mark.parametrize("per_s", [6.0, 200.0, pytest.param(20.0, marks=pytest.mark.extended)])
def test_four_shards_keep_one_rate(tmp_path: Path, per_s: float) -> None:
    """
    Over 60 s and over any 10 s, four shards submit what one process would, in equal parts.
    """
    limits = Limits(submit_per_s=per_s, poll_per_s=500.0, in_flight=10_000)
    seconds = 60 if per_s < 100 else 2
    jobs = round(per_s * seconds / 4)
    fleet = Fleet(tmp_path, FakeApi(), replace(FAST, limits=limits), message_s=0.001)

    fleet.run(jobs)

    times = sorted(post.at for post in fleet.api.posts)
    rate = (len(times) - 1) / (times[-1] - times[0])
    assert 4 * jobs == len(times)
    assert 0.98 * per_s <= rate <= 1.02 * per_s
    assert _most_in(times, 10.0 if per_s < 100 else 1.0) <= 1.02 * per_s * (10 if per_s < 100 else 1) + 1


@pytest.mark.slow
def test_a_halved_limit_is_followed(tmp_path: Path) -> None:
    """
    Five seconds after a gateway halves what it allows, four shards together send what it allows, and no more is refused.
    """
    bucket = TokenBucket(8.0, 2.0)
    limits = Limits(submit_per_s=8.0, poll_per_s=500.0, in_flight=10_000)

    def answer(job: str, nth: int) -> Answer:
        now = asyncio.get_running_loop().time()
        if now >= 10.0:
            bucket.per_s = 4.0
        return ACCEPTED if bucket.allows(now) else Throttled(Failure(FailureClass.RATE_LIMITED, "429"))

    fleet = Fleet(tmp_path, FakeApi(answer), replace(FAST, limits=limits))

    fleet.run(36)

    later = [post for post in fleet.api.posts if 15.0 <= post.at < 30.0]
    refused = sum(post.task_id is None for post in later)
    assert 144 == fleet.count(State.SUCCEEDED)
    assert len(later) <= 1.1 * 4.0 * 15.0
    assert refused <= 0.1 * len(later)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4, 16])
def test_an_outage_is_one_for_all(tmp_path: Path, shards: int) -> None:
    """
    An outage leaves three jobs uncertain, and those whose POST was in flight, however many shards there are.
    """
    limits = Limits(submit_per_s=10.0, poll_per_s=500.0, in_flight=1000)
    down_at = 4.0

    def answer(job: str, nth: int) -> Answer:
        now = asyncio.get_running_loop().time()
        if down_at <= now < 200.0:
            return Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, "the gateway answers 502"))
        return ACCEPTED

    async def is_up() -> bool:
        return asyncio.get_running_loop().time() >= 200.0

    settings = replace(FAST, limits=limits, poll=replace(FAST.poll, timeout_s=600.0))
    fleet = Fleet(tmp_path, FakeApi(answer, answer_s=0.5), settings, shards=shards)
    fleet.probe = is_up

    fleet.run(80 // shards)

    in_flight = [post for post in fleet.api.posts if down_at <= post.at < down_at + 0.5]
    assert fleet.count(State.UNCERTAIN) <= 3 + len(in_flight)
    assert 80 == fleet.count(State.UNCERTAIN) + fleet.count(State.SUCCEEDED)


@pytest.mark.parametrize(("of_model", "expected"), [(5, 5), (None, 8)])
def test_tasks_in_flight_are_those_of_all_shards(tmp_path: Path, of_model: int | None, expected: int) -> None:
    """
    Four shards with many jobs never have more tasks at once than the manifest allows to the run, and to a model.
    """
    running: set[str] = set()
    most = [0]

    def poll(task_id: str, nth: int) -> Answer:
        most[0] = max(most[0], len(running))
        if nth:
            running.discard(task_id.removeprefix("task-").rsplit("-", 1)[0])
            return SUCCEEDED
        return RUNNING

    def submit(job: str, nth: int) -> Answer:
        running.add(job)
        most[0] = max(most[0], len(running))
        return ACCEPTED

    limits = Limits(
        submit_per_s=50.0, poll_per_s=500.0, in_flight=8, models={"model-a": ModelLimits(in_flight=of_model)}
    )
    fleet = Fleet(tmp_path, FakeApi(submit, poll), replace(FAST, limits=limits))

    fleet.run(10)

    assert 40 == fleet.count(State.SUCCEEDED)
    assert expected == most[0]


def test_a_limit_counts_the_jobs_of_all_shards(tmp_path: Path) -> None:
    """
    With a limit of ten, four shards submit ten jobs, of which refused ones are no part, and all of them stop.
    """
    api = FakeApi(lambda job, nth: ACCEPTED if nth or job[-1] != "1" else THROTTLED, answer_s=1.0)
    fleet = Fleet(tmp_path, api, AT_6, limit=10)

    fleet.run(10)

    assert 10 == fleet.count(State.SUCCEEDED)
    assert ["limit"] * 4 == [stop.reason.value for stop in fleet.stops]


def test_failures_count_over_all_shards(tmp_path: Path) -> None:
    """
    When more jobs of all shards end without a video than allowed, all shards stop.
    """
    fleet = Fleet(tmp_path, FakeApi(on_poll=lambda task, nth: REMOTE_FAILED), AT_6, max_failures=5)

    fleet.run(20)

    assert {"failures"} == {stop.reason.value for stop in fleet.stops}
    assert 4 == len(fleet.stops)
    assert 5 < fleet.count(State.FAILED) <= 5 + 8 * 4


def test_a_canary_is_one_for_all_shards(tmp_path: Path) -> None:
    """
    Two jobs of the whole run are submitted first, and the others once these have a video.
    """
    fleet = Fleet(tmp_path, FakeApi(), replace(AT_6, canary=CanaryPolicy(jobs=2, succeed=2)))

    fleet.run(3)

    times = sorted(post.at for post in fleet.api.posts)
    assert 12 == fleet.count(State.SUCCEEDED)
    assert times[2] - times[1] > 1.0


@pytest.mark.parametrize(("refused", "reason"), [(NO_MONEY, "quota"), (BAD_KEY, "auth")])
def test_a_refused_key_stops_all_shards(tmp_path: Path, refused: Answer, reason: str) -> None:
    """
    When one shard's only key has no credit, or is not known any more, the others submit nothing more.
    """
    fleet = Fleet(tmp_path, FakeApi(lambda job, nth: refused if job.endswith("005") else ACCEPTED), AT_6)

    fleet.run(30)

    assert {reason} == {stop.reason.value for stop in fleet.stops}
    assert 4 == len(fleet.stops)
    assert len(fleet.api.posts) <= 30


def test_a_governor_that_begins_anew_keeps_the_rate(tmp_path: Path) -> None:
    """
    A governor that lost all it knew takes in the shards again: every job gets its video, at the same rate.
    """

    async def lose(fleet: Fleet) -> None:
        await asyncio.sleep(5.0)
        fleet.is_reachable = False
        await asyncio.sleep(4.0)
        fleet.begin_governor()
        fleet.is_reachable = True

    # A task takes four polls.
    api = FakeApi(on_poll=lambda task_id, nth: SUCCEEDED if nth > 3 else RUNNING)
    fleet = Fleet(tmp_path, api, AT_6, limit=60, asides=[lose])

    fleet.run(30)

    times = sorted(post.at for post in fleet.api.posts)
    assert 60 == fleet.count(State.SUCCEEDED) == len(times)
    assert _most_in(times, 5.0) <= 1.02 * 6.0 * 5 + 4
    assert not [at for at in times if 6.0 < at < 9.0]
    assert [at for at, *_ in api.polls if 6.0 < at < 9.0]


def test_a_budget_is_one_for_all_shards(tmp_path: Path) -> None:
    """
    Four shards with a budget for ten jobs submit ten, whichever has them, and stop for the budget.
    """
    fleet = Fleet(tmp_path, FakeApi(), AT_6, budget=SharedBudget(run=10 * PRICE))

    fleet.run(10)

    assert 10 == len(fleet.api.posts) == fleet.count(State.SUCCEEDED)
    assert {"budget"} == {stop.reason.value for stop in fleet.stops}
    assert "budget.run: 10.00 USD of 10.00 USD used by all shards" in fleet.stops[0].message


def test_what_failed_jobs_give_back_is_spent_by_other_shards(tmp_path: Path) -> None:
    """
    Jobs that are refused cost nothing, so that others are submitted in their place.
    """
    fleet = Fleet(
        tmp_path,
        FakeApi(
            lambda job, nth: (
                ACCEPTED
                if int(job[-3:]) >= 5
                else Rejected(Failure(FailureClass.INVALID_REQUEST, f"refused {job}"))
            )
        ),
        AT_6,
        budget=SharedBudget(process=10 * PRICE),
    )

    fleet.run(5)

    assert 10 == fleet.count(State.SUCCEEDED)
    assert fleet.count(State.FAILED) > 0
    assert {"budget"} == {stop.reason.value for stop in fleet.stops}
