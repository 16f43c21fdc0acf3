"""How each job ends, whatever goes wrong, and that no job's end affects another."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.assets.request import FetchFailure, NotFetched
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.outcomes import Accepted, RemoteStatus, RemoteTask
from runner.core.settings import RetryPolicy, Timeouts
from runner.errors import FileChanged
from runner.store.store import Store
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
from tests.engine.fakes import FAST, FakeApi, FakeDownloader, spec, specs
from tests.engine.harness import EngineHarness, FinishedRun

ODD = "model-a-001"
"""The one of three jobs that something goes wrong with."""

MISSING_FILE = NotFetched(FetchFailure.EXHAUSTED, failure(FailureClass.DOWNLOAD_FAILED))


def api_with_posts(*first: Any, then: Any = ACCEPTED) -> FakeApi:
    """Make an API that answers the POSTs of the odd job with these."""
    return FakeApi(lambda job, nth: ([*first, then][min(nth, len(first))]) if job == ODD else ACCEPTED)


def api_with_polls(*first: Any, then: Any = SUCCEEDED) -> FakeApi:
    """Make an API that answers the polls of the odd job's task with these."""
    return FakeApi(
        on_poll=lambda task, nth: ([*first, then][min(nth, len(first))]) if ODD in task else SUCCEEDED
    )


def downloads(*first: Any, then: Any = None) -> FakeDownloader:
    """Make downloads that end like this for the odd job."""
    return FakeDownloader(lambda name, nth: ([*first, then][min(nth, len(first))]) if ODD in name else None)


def check_the_others(run: FinishedRun, api: FakeApi) -> None:
    """Check that the other jobs succeeded, and that every slot was released."""
    others = {job_id: state for job_id, state in run.states.items() if job_id != ODD}
    assert dict.fromkeys(others, State.SUCCEEDED) == others
    assert 0 == run.engine.admission.in_flight
    assert 0 == run.engine.governor.breaker.unanswered
    assert dict(run.engine.counts) == run.counts
    assert 1 == max(api.paid().values())


CASES: dict[str, tuple[FakeApi, FakeDownloader, State, FailureClass | None]] = {
    "rejected": (api_with_posts(REJECTED), downloads(), State.FAILED, FailureClass.INVALID_REQUEST),
    "uncertain": (api_with_posts(AMBIGUOUS), downloads(), State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT),
    "not sent, then accepted": (api_with_posts(NOT_SENT, NOT_SENT), downloads(), State.SUCCEEDED, None),
    "no channel, then accepted": (api_with_posts(NO_CHANNEL, NO_CHANNEL), downloads(), State.SUCCEEDED, None),
    "no channel": (api_with_posts(then=NO_CHANNEL), downloads(), State.FAILED, FailureClass.UNAVAILABLE),
    "bug in POST": (api_with_posts(Bug("post")), downloads(), State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT),
    "failed remotely": (
        api_with_polls(RUNNING, REMOTE_FAILED),
        downloads(),
        State.FAILED,
        FailureClass.REMOTE_FAILED,
    ),
    "never finishes": (api_with_polls(then=RUNNING), downloads(), State.TIMED_OUT, FailureClass.POLL_TIMEOUT),
    "403 for a while": (api_with_polls(POLL_403, POLL_403), downloads(), State.SUCCEEDED, None),
    "502 for a while": (api_with_polls(*[POLL_502] * 9), downloads(), State.SUCCEEDED, None),
    "429 for a while": (api_with_polls(*[POLL_429] * 9), downloads(), State.SUCCEEDED, None),
    "502 for ever": (api_with_polls(then=POLL_502), downloads(), State.TIMED_OUT, FailureClass.POLL_TIMEOUT),
    "unknown at first": (api_with_polls(UNKNOWN, UNKNOWN), downloads(), State.SUCCEEDED, None),
    "unknown for ever": (api_with_polls(then=UNKNOWN), downloads(), State.FAILED, FailureClass.LOST),
    "bug in query": (api_with_polls(Bug("poll")), downloads(), State.TIMED_OUT, FailureClass.INTERNAL),
    "no file": (FakeApi(), downloads(then=MISSING_FILE), State.UNDELIVERED, FailureClass.DOWNLOAD_FAILED),
    "file at last": (FakeApi(), downloads(MISSING_FILE), State.SUCCEEDED, None),
    "bug in download": (FakeApi(), downloads(Bug("fetch")), State.UNDELIVERED, FailureClass.INTERNAL),
}


@pytest.mark.parametrize("name", CASES)
def test_each_trouble_ends_only_its_own_job(name: str, tmp_path: Path) -> None:
    """
    A job ends as the table says, even after a bug in our code; the others succeed, and every slot is released.
    """
    api, downloader, state, cls = CASES[name]
    settings = replace(FAST, timeouts=Timeouts(unknown_task_s=20.0))
    harness = EngineHarness(tmp_path, api, settings=settings, downloader=downloader)
    harness.add_jobs(specs(3))

    run = harness.run()

    error = run.records[ODD].error
    assert (state, cls) == (run.states[ODD], None if error is None else error.cls)
    assert sorted(run.records) == sorted(run.ended_jobs)
    check_the_others(run, api)


def test_throttling_uses_up_no_retries(tmp_path: Path) -> None:
    """
    However often a job was throttled or could not be sent, it keeps all its retries for "no channel".
    """
    api = api_with_posts(*[THROTTLED, NOT_SENT] * 10, NO_CHANNEL, NO_CHANNEL)
    harness = EngineHarness(
        tmp_path, api, settings=replace(FAST, retry=RetryPolicy(attempts=3, base_s=1.0, cap_s=5.0))
    )
    harness.add_jobs(specs(3))

    run = harness.run()

    assert State.SUCCEEDED == run.states[ODD]
    assert 23 == len(api.posts_of(ODD))


def test_no_channel_fails_after_the_attempts_of_the_manifest(tmp_path: Path) -> None:
    """
    `retry.attempts: 3` means three POSTs that no channel took, and then `unavailable`.
    """
    api = api_with_posts(then=NO_CHANNEL)
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs(specs(3))

    harness.run()

    assert 3 == len(api.posts_of(ODD))


def test_file_that_changed_fails_its_job_before_anything_is_sent(tmp_path: Path) -> None:
    """
    A body that can't be made fails its job: nothing is sent, and its slot is released.
    """

    def render(text: str) -> bytes:
        if ODD in text:
            raise FileChanged("cat.png has changed since it was checked")
        return text.encode()

    api = FakeApi()
    harness = EngineHarness(tmp_path, api, render=render)
    picture = {"$file": "cat.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}
    jobs = [job._replace(request={**job.request, "image": picture}) for job in specs(3)]
    harness.add_jobs(jobs)

    run = harness.run()

    assert State.FAILED == run.states[ODD]
    assert [] == api.posts_of(ODD)
    check_the_others(run, api)


def test_backoff_of_polls_starts_again_after_an_answer(tmp_path: Path) -> None:
    """
    Only failed polls in a row lengthen the wait: after an answer that shows the task, it is short again.
    """
    api = api_with_polls(POLL_502, POLL_502, RUNNING, POLL_502, SUCCEEDED)
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs(specs(3))

    harness.run()

    at = [at for at, task_id, _ in api.polls if ODD in task_id]
    waits = [round(later - earlier, 3) for earlier, later in pairwise(at)]
    assert waits[0] == waits[3] < waits[1]


def test_both_ids_of_an_answer_are_polled(tmp_path: Path) -> None:
    """
    If the answer names two ids, the one that is known is found, even if neither is known at first.
    """
    api = FakeApi(on_poll=lambda task, nth: SUCCEEDED if task == "right" and nth >= 2 else UNKNOWN)
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs([spec("job", 0)])
    with Store(tmp_path) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'submitted', attempt = 1, task_id = 'wrong', other_task_id = 'right'"
        )

    run = harness.run()

    assert ("right", State.SUCCEEDED) == (run.records["job"].task_id, run.states["job"])


def test_task_of_a_job_is_polled_and_never_posted(tmp_path: Path) -> None:
    """
    A job that names its task is never submitted, however the task ends.
    """
    api = FakeApi(on_poll=lambda task, nth: REMOTE_FAILED if task == "task-bad" else SUCCEEDED)
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs([spec("good", 0, task_id="task-good"), spec("bad", 1, task_id="task-bad")])

    run = harness.run()

    assert {"good": State.SUCCEEDED, "bad": State.FAILED} == run.states
    assert [] == api.posts


def test_two_jobs_with_one_task(tmp_path: Path) -> None:
    """
    The second job that is given a task of the first is uncertain, at once and in a later run; its own is not known.
    """
    same = Accepted(RemoteTask(("task_same",), RemoteStatus.QUEUED))
    harness = EngineHarness(tmp_path, FakeApi(lambda job, nth: same))
    harness.add_jobs(specs(3))

    first = harness.run(limit=2)
    second = harness.run()

    assert [State.SUCCEEDED, State.UNCERTAIN, State.UNCERTAIN] == list(second.states.values())
    for job_id in ("model-a-001", "model-a-002"):
        error = second.records[job_id].error
        assert error is not None
        assert "task task_same, which belongs to the job 'model-a-000'" in error.message
    assert [State.SUCCEEDED, State.UNCERTAIN, State.PENDING] == list(first.states.values())
    assert {"model-a-000": 1, "model-a-001": 1, "model-a-002": 1} == Counter(p.job for p in harness.api.posts)
