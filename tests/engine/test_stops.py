"""Why a run stops, what it still finishes, and what it leaves for the next one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.assets.request import FetchFailure, NotFetched
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import Rejected
from runner.core.stop import Stop, StopReason
from runner.engine.engine import DOWNLOAD_GRACE_S, Engine
from tests.engine.answers import (
    ACCEPTED,
    BAD_BASE_URL,
    FORBIDDEN,
    NO_MONEY,
    NOT_SENT,
    POLL_UNANSWERED,
    REMOTE_FAILED,
    RUNNING,
    SUCCEEDED,
)
from tests.engine.fakes import FAST, FakeApi, FakeDownloader, specs
from tests.engine.harness import EngineHarness

SLOW = replace(FAST, poll=replace(FAST.poll, timeout_s=3600.0))


def slow_api(**more: Any) -> FakeApi:
    """Make an API whose tasks take about 20 s."""
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
    After a signal no job is submitted, a POST in progress is waited for, and tasks are left to the next run, whatever
    else stops the run.
    """
    api = slow_api(answer_s=2.0)
    harness = EngineHarness(tmp_path, api, settings=SLOW)
    harness.add_jobs(specs(30))

    run = harness.run(meanwhile=after(1.0, INTERRUPTED, Stop(StopReason.DEADLINE, "late")))

    assert len(api.posts) == run.counts[State.SUBMITTED] > 0
    assert 0 == run.counts[State.UNCERTAIN]
    assert max(post.at for post in api.posts) <= 1.0
    assert run.took_s < 5.0


def test_interrupted_run_continues_where_it_stopped(tmp_path: Path) -> None:
    """
    The next process polls what was submitted and submits the rest: no job is paid for twice.
    """
    api = slow_api()
    harness = EngineHarness(tmp_path, api, settings=SLOW)
    harness.add_jobs(specs(20))

    harness.run(meanwhile=after(3.0, INTERRUPTED))
    run = harness.run()

    assert {State.SUCCEEDED} == set(run.states.values())
    assert {1} == set(api.paid().values())


def test_interrupted_run_finishes_active_downloads(tmp_path: Path) -> None:
    """
    A download that is active at the signal is finished; waiting ones are left.
    """
    harness = EngineHarness(
        tmp_path,
        FakeApi(on_poll=lambda task, nth: SUCCEEDED),
        downloader=FakeDownloader(takes_s=20.0),
    )
    harness.add_jobs(specs(12))

    run = harness.run(meanwhile=after(10.0, INTERRUPTED))

    assert 4 == run.counts[State.SUCCEEDED]
    assert run.counts[State.DOWNLOADING] > 0


def test_second_signal_leaves_posts_uncertain_and_the_rest_as_it_is(tmp_path: Path) -> None:
    """
    It ends at once: jobs whose POSTs were not answered are uncertain, on disk and reported; no other is.
    """
    api = slow_api(answer_s=30.0)
    harness = EngineHarness(tmp_path, api, settings=SLOW)
    harness.add_jobs(specs(10))

    run = harness.run(meanwhile=after(1.0, INTERRUPTED, abandon=True))

    assert len(api.posts) == run.counts[State.UNCERTAIN] > 0
    assert 10 - len(api.posts) == run.counts[State.PENDING]
    assert dict(run.engine.counts) == run.counts
    assert run.took_s < 2.0


def test_cancellation_is_as_the_first_signal(tmp_path: Path) -> None:
    """
    A program that cancels a run loses no answer: POSTs are waited for, and downloads for a while.
    """
    harness = EngineHarness(
        tmp_path,
        FakeApi(answer_s=2.0, on_poll=lambda task, nth: SUCCEEDED),
        downloader=FakeDownloader(takes_s=3600.0),
    )
    harness.add_jobs(specs(30))

    run = harness.run(canceled_at=[12.0])

    assert 0 == run.counts[State.UNCERTAIN]
    assert len(harness.api.posts) == run.counts[State.SUBMITTED] + run.counts[State.DOWNLOADING]
    assert max(post.at for post in harness.api.posts) <= 12.0
    assert run.took_s < 12.0 + DOWNLOAD_GRACE_S + 1.0


def test_another_cancellation_is_as_the_second_signal(tmp_path: Path) -> None:
    """
    It ends at once, and not before everything has ended: what was not answered is uncertain on disk.
    """
    api = slow_api(answer_s=30.0)
    harness = EngineHarness(tmp_path, api, settings=SLOW)
    harness.add_jobs(specs(10))

    run = harness.run(canceled_at=[1.0, 1.5, 1.5, 1.6])

    assert len(api.posts) == run.counts[State.UNCERTAIN] > 0
    assert 10 - len(api.posts) == run.counts[State.PENDING]
    assert dict(run.engine.counts) == run.counts
    assert max(post.at for post in api.posts) <= 1.0
    assert run.took_s < 3.0


def test_abandoned_run_starts_nothing_while_it_ends(tmp_path: Path) -> None:
    """
    No new step starts in place of those that were canceled.
    """
    api = slow_api(answer_s=30.0)
    harness = EngineHarness(tmp_path, api, settings=SLOW)
    harness.add_jobs(specs(10))

    run = harness.run(meanwhile=after(1.0, abandon=True))

    assert max(post.at for post in api.posts) <= 1.0
    assert len(api.posts) == run.counts[State.UNCERTAIN]


@pytest.mark.parametrize(
    ("answer", "reason", "left"),
    [(NO_MONEY, "quota", 20), (BAD_BASE_URL, "bad_base_url", 20), (FORBIDDEN, "forbidden", 0)],
)
def test_refusal_of_every_job_stops_the_run(answer: Any, reason: str, left: int, tmp_path: Path) -> None:
    """
    An empty account and a wrong address leave every job pending; a few jobs fail with 403 before the run stops.
    """
    api = FakeApi(lambda job, nth: answer)
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs(specs(20))

    run = harness.run()

    assert [reason] == run.stop_reasons
    assert run.counts[State.PENDING] >= left
    assert len(api.posts) <= 8
    assert run.took_s < 30.0


@pytest.mark.parametrize("jobs", [1, 20])
def test_gateway_that_was_never_reached_stops_the_run_within_seconds(jobs: int, tmp_path: Path) -> None:
    """
    A wrong address is told at once, in the words of `doctor`, and every job stays pending.
    """
    harness = EngineHarness(tmp_path, FakeApi(lambda job, nth: NOT_SENT))
    harness.add_jobs(specs(jobs))

    run = harness.run()

    assert ["unreachable"] == run.stop_reasons
    assert "the gateway does not answer: as the test wants it" == run.engine.stops[0].message
    assert jobs == run.counts[State.PENDING]
    assert run.took_s < 10.0


def test_gateway_that_never_answers_polls_stops_a_resumed_run(tmp_path: Path) -> None:
    """
    With tasks to poll alone the run stops too, and leaves them to the next one.
    """
    api = slow_api()
    harness = EngineHarness(tmp_path, api, settings=SLOW)
    harness.add_jobs(specs(1))
    harness.run(meanwhile=after(1.0, INTERRUPTED))
    api.on_poll = lambda task, nth: POLL_UNANSWERED

    run = harness.run()

    assert ["unreachable"] == run.stop_reasons
    assert 1 == run.counts[State.SUBMITTED]
    assert run.took_s < 10.0


def test_gateway_that_was_reached_once_is_waited_for(tmp_path: Path) -> None:
    """
    After any answer, connections that fail are an outage, which ends.
    """
    harness = EngineHarness(
        tmp_path,
        FakeApi(lambda job, nth: NOT_SENT if nth < 5 and "000" not in job else ACCEPTED),
        settings=SLOW,
    )
    harness.add_jobs(specs(5))

    run = harness.run()

    assert [] == run.stop_reasons
    assert {State.SUCCEEDED} == set(run.states.values())


def test_same_refusal_of_different_jobs_stops_the_run(tmp_path: Path) -> None:
    """
    A wrong key that a gateway answers with 400 does not fail a whole batch; the ids in the texts differ.
    """

    def refuse(job: str, nth: int) -> Any:
        message = f"invalid token (request id: 20261126{hash(job) % 10**12:012})"
        return Rejected(Failure(FailureClass.INVALID_REQUEST, message))

    harness = EngineHarness(tmp_path, FakeApi(refuse))
    harness.add_jobs(specs(40))

    run = harness.run()

    assert ["refused"] == run.stop_reasons
    assert "5 jobs in a row were refused with the same words: invalid token" in run.engine.stops[0].message
    assert 5 <= run.counts[State.FAILED] <= 8


def test_different_refusals_do_not_stop_the_run(tmp_path: Path) -> None:
    """
    What is wrong with each request is the request's own; so is a content policy, which always says the same.
    """

    def refuse(job: str, nth: int) -> Any:
        number = int(job[-3:])
        if number % 2:
            return Rejected(Failure(FailureClass.MODERATION, "against the content policy"))
        return Rejected(Failure(FailureClass.INVALID_REQUEST, f"prompt {'x' * number} is not allowed"))

    harness = EngineHarness(tmp_path, FakeApi(refuse))
    harness.add_jobs(specs(18))

    assert [] == harness.run().stop_reasons


def test_tasks_that_were_paid_for_are_finished_after_a_stop(tmp_path: Path) -> None:
    """
    An account that runs out of credit stops the submissions, and every task that was paid for is downloaded.
    """
    paid = 0

    def answer(job: str, nth: int) -> Any:
        nonlocal paid
        paid += 1
        return ACCEPTED if paid <= 5 else NO_MONEY

    harness = EngineHarness(tmp_path, FakeApi(answer, lambda task, nth: SUCCEEDED if nth >= 7 else RUNNING))
    harness.add_jobs(specs(12))

    run = harness.run()

    assert {State.SUCCEEDED: 5, State.PENDING: 7} == {s: n for s, n in run.counts.items() if n}


@pytest.mark.parametrize(
    ("most", "failed"), [(3, 4), (0.075, 20), (None, 20)], ids=["number", "share", "default"]
)
def test_too_many_failures_stop_the_run(most: float | None, failed: int, tmp_path: Path) -> None:
    """
    `--max-failures 3` stops at the fourth job that failed; a share, and the default, once 20 jobs have ended.
    """
    api = FakeApi(on_poll=lambda task, nth: REMOTE_FAILED)
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs(specs(60))

    run = harness.run(max_failures=most)

    assert ["failures"] == run.stop_reasons
    assert failed <= run.counts[State.FAILED] <= failed + 8
    assert run.counts[State.PENDING] > 0


def test_undelivered_and_timed_out_jobs_count_as_failures(tmp_path: Path) -> None:
    """
    A host whose files can't be downloaded, or tasks that never end, do not cost the whole batch.
    """
    not_found = NotFetched(FetchFailure.REFUSED, Failure(FailureClass.DOWNLOAD_FAILED, "404"))
    for name, api, downloader in (
        ("undelivered", FakeApi(), FakeDownloader(lambda name, nth: not_found)),
        ("timed_out", FakeApi(on_poll=lambda task, nth: RUNNING), FakeDownloader()),
    ):
        harness = EngineHarness(tmp_path / name, api, downloader=downloader)
        harness.add_jobs(specs(60))

        run = harness.run(max_failures=2)

        assert ["failures"] == run.stop_reasons
        assert 3 <= run.counts[State(name)] <= 3 + 8 + 8


def test_jobs_that_already_ended_without_a_video_do_not_stop_a_later_run(tmp_path: Path) -> None:
    """
    Only what ends because of this process counts: a run with many undelivered jobs still submits the others.
    """
    is_fixed = False
    not_found = NotFetched(FetchFailure.REFUSED, Failure(FailureClass.DOWNLOAD_FAILED, "404"))

    def fetch(name: str, nth: int) -> Any:
        return None if is_fixed and int(name[-3:]) >= 25 else not_found

    harness = EngineHarness(tmp_path, downloader=FakeDownloader(fetch))
    harness.add_jobs(specs(25))
    harness.run(max_failures="off")
    is_fixed = True
    harness.add_jobs(specs(30))

    run = harness.run()

    assert [] == run.stop_reasons
    assert {State.UNDELIVERED: 25, State.SUCCEEDED: 5} == {s: n for s, n in run.counts.items() if n}
