"""Why a run stops, what it still finishes, and what it leaves for the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.stop import Stop, StopReason
from runner.engine.context import EngineOptions
from runner.engine.engine import Engine
from runner.errors import DiskFull, RunDirError
from tests.engine.answers import (
    ACCEPTED,
    BAD_BASE_URL,
    FORBIDDEN,
    NO_MONEY,
    REJECTED,
    RUNNING,
    SUCCEEDED,
    Bug,
)
from tests.engine.fakes import BRISK, FakeApi, FakeFetcher, Stage, specs

SLOW = replace(BRISK, poll=replace(BRISK.poll, timeout_s=3600.0))


def slow_api(**more: Any) -> FakeApi:
    """Make an API whose tasks take some 20 s."""
    return FakeApi(on_poll=lambda task, nth: SUCCEEDED if nth >= 7 else RUNNING, **more)


def after(seconds: float, *stops: Stop, abandon: bool = False) -> Any:
    """Stop a run after a while."""

    async def stop(engine: Engine, store: Any) -> None:
        await asyncio.sleep(seconds)
        for each in stops:
            engine.stop(each)
        if abandon:
            engine.abandon()

    return stop


INTERRUPTED = Stop(StopReason.INTERRUPTED, "interrupted")


def test_interrupted_run_waits_for_its_posts_and_leaves_its_tasks(tmp_path: Path) -> None:
    """
    After a signal no job is submitted, a POST on its way is waited for, and tasks stay for the next run.
    """
    api = slow_api(answer_s=2.0)
    stage = Stage(tmp_path, api, settings=SLOW)
    stage.take_in(specs(30))

    played = stage.play(meanwhile=after(1.0, INTERRUPTED))

    assert len(api.posts) == played.counts[State.SUBMITTED] > 0
    assert 0 == played.counts[State.UNCERTAIN]
    assert max(post.at for post in api.posts) <= 1.0
    assert played.took_s < 5.0


def test_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """
    The next process polls what was submitted and submits the rest: no job is paid for twice.
    """
    api = slow_api()
    stage = Stage(tmp_path, api, settings=SLOW)
    stage.take_in(specs(20))

    stage.play(meanwhile=after(3.0, INTERRUPTED))
    played = stage.play()

    assert {State.SUCCEEDED} == set(played.states.values())
    assert {1} == set(api.paid().values())


def test_interrupted_run_finishes_the_downloads_in_hand(tmp_path: Path) -> None:
    """
    A download that is under way at the signal is finished; what waits for one is left.
    """
    stage = Stage(
        tmp_path,
        FakeApi(on_poll=lambda task, nth: SUCCEEDED),
        fetcher=FakeFetcher(takes_s=20.0),
    )
    stage.take_in(specs(12))

    played = stage.play(meanwhile=after(10.0, INTERRUPTED))

    assert 4 == played.counts[State.SUCCEEDED]
    assert played.counts[State.DOWNLOADING] > 0


def test_second_signal_leaves_posts_in_doubt_and_the_rest_as_it_is(tmp_path: Path) -> None:
    """
    Out at once: jobs whose answers were awaited are uncertain, on disk and told; no other is.
    """
    api = slow_api(answer_s=30.0)
    stage = Stage(tmp_path, api, settings=SLOW)
    stage.take_in(specs(10))

    played = stage.play(meanwhile=after(1.0, INTERRUPTED, abandon=True))

    assert len(api.posts) == played.counts[State.UNCERTAIN] > 0
    assert 10 - len(api.posts) == played.counts[State.PENDING]
    assert dict(played.engine.counts) == played.counts
    assert played.took_s < 2.0


def test_abandoned_run_starts_nothing_while_it_ends(tmp_path: Path) -> None:
    """
    Giving up alone is enough: the steps that end do not make room for new ones.
    """
    api = slow_api(answer_s=30.0)
    stage = Stage(tmp_path, api, settings=SLOW)
    stage.take_in(specs(10))

    played = stage.play(meanwhile=after(1.0, abandon=True))

    assert max(post.at for post in api.posts) <= 1.0
    assert len(api.posts) == played.counts[State.UNCERTAIN]


@pytest.mark.parametrize(
    ("answer", "reason", "left"),
    [(NO_MONEY, "quota", 20), (BAD_BASE_URL, "bad_base_url", 20), (FORBIDDEN, "forbidden", 0)],
)
def test_refusal_that_concerns_every_job_stops_the_run(
    answer: Any, reason: str, left: int, tmp_path: Path
) -> None:
    """
    An empty account and a wrong address leave every job pending; a few are lost to 403s before the breaker.
    """
    api = FakeApi(lambda job, nth: answer)
    stage = Stage(tmp_path, api)
    stage.take_in(specs(20))

    played = stage.play()

    assert [reason] == played.reasons
    assert played.counts[State.PENDING] >= left
    assert len(api.posts) <= 8
    assert played.took_s < 30.0


def test_tasks_that_were_paid_for_are_finished_after_a_stop(tmp_path: Path) -> None:
    """
    An account that runs empty stops the submissions, and every task that it paid for is fetched.
    """
    paid = 0

    def answer(job: str, nth: int) -> Any:
        nonlocal paid
        paid += 1
        return ACCEPTED if paid <= 5 else NO_MONEY

    stage = Stage(tmp_path, FakeApi(answer, lambda task, nth: SUCCEEDED if nth >= 7 else RUNNING))
    stage.take_in(specs(12))

    played = stage.play()

    assert {State.SUCCEEDED: 5, State.PENDING: 7} == {s: n for s, n in played.counts.items() if n}


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    """
    `--max-failures 3` stops at the fourth job that failed in this process.
    """
    api = FakeApi(lambda job, nth: REJECTED)
    stage = Stage(tmp_path, api)
    stage.take_in(specs(40))

    played = stage.play(EngineOptions(max_failures=3))

    assert ["failures"] == played.reasons
    assert 4 <= played.counts[State.FAILED] <= 6


def test_deadline_stops_submissions_and_then_the_drain(tmp_path: Path) -> None:
    """
    At the deadline nothing more is submitted; what was paid for is waited for, and no longer than allowed.
    """
    api = FakeApi(on_poll=lambda task, nth: RUNNING)
    stage = Stage(tmp_path, api, settings=SLOW)
    stage.take_in(specs(40))

    played = stage.play(EngineOptions(run_s=10.0, drain_s=60.0))

    assert ["deadline", "drain_ended"] == played.reasons
    assert 70.0 <= played.took_s < 75.0
    assert 8 == played.counts[State.SUBMITTED]


def test_deadline_that_was_not_needed_says_nothing_later(tmp_path: Path) -> None:
    """
    A run that ends before its deadline takes its timer along.
    """
    stage = Stage(tmp_path)
    stage.take_in(specs(2))

    async def outlive(engine: Engine, store: Any) -> None:
        engine.admission.breaker.record_probe(0.0, is_healthy=True)

    played = stage.play(EngineOptions(run_s=1000.0), meanwhile=outlive)

    assert [] == played.reasons
    assert played.took_s < 100.0


def test_results_that_can_not_be_written_stop_the_run(tmp_path: Path) -> None:
    """
    Where the results can't be appended, the run stops with the reason, and every end is in the store.
    """

    def append(seqs: Sequence[int]) -> None:
        raise DiskFull("no room left for results.jsonl")

    api = slow_api()
    stage = Stage(tmp_path, api, settings=SLOW, append=append)
    stage.take_in(specs(40))

    played = stage.play()

    assert ["disk"] == played.reasons
    assert played.counts[State.PENDING] > 0
    assert {1} == set(api.paid().values())


def test_folder_that_can_not_be_written_stops_the_run(tmp_path: Path) -> None:
    """
    A download that finds its folder closed is nobody's failure: the run stops, and the job stays as it is.
    """
    stage = Stage(tmp_path, fetcher=FakeFetcher(lambda name, nth: RunDirError("assets can't be written")))
    stage.take_in(specs(20))

    played = stage.play()

    assert ["store"] == played.reasons
    assert played.counts[State.DOWNLOADING] > 0
    assert 0 == played.counts[State.UNDELIVERED]


def test_bug_that_is_no_jobs_own_stops_the_run(tmp_path: Path) -> None:
    """
    Where the engine itself goes wrong it ends, since nobody else would ever look again.
    """

    async def break_it(engine: Engine, store: Any) -> None:
        def pump(now: float, *, backlog: int | None) -> float | None:
            raise Bug("pump")

        await asyncio.sleep(2.0)
        engine.submissions.schedule = pump

    stage = Stage(tmp_path)
    stage.take_in(specs(40))

    played = stage.play(meanwhile=break_it)

    assert ["internal"] == played.reasons
    assert 0 == played.counts[State.UNCERTAIN]
