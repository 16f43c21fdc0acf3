"""How each job ends, whatever befalls it, and that no job's end is another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.assets.request import FetchFailure, NotFetched
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.settings import RetryPolicy, Timeouts
from runner.errors import RunnerError
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
from tests.engine.fakes import BRISK, FakeApi, FakeFetcher, Played, Stage, ended, spec, specs

ODD = "model-a-001"
"""The job among three that meets something; the others meet nothing."""

LOST_FILE = NotFetched(FetchFailure.EXHAUSTED, failure(FailureClass.DOWNLOAD_FAILED))


def submits(*first: Any, then: Any = ACCEPTED) -> FakeApi:
    """Make an API whose POSTs answer the odd job so."""
    return FakeApi(lambda job, nth: ([*first, then][min(nth, len(first))]) if job == ODD else ACCEPTED)


def polls(*first: Any, then: Any = SUCCEEDED) -> FakeApi:
    """Make an API whose queries answer the odd job's task so."""
    return FakeApi(
        on_poll=lambda task, nth: ([*first, then][min(nth, len(first))]) if ODD in task else SUCCEEDED
    )


def fetches(*first: Any, then: Any = None) -> FakeFetcher:
    """Make downloads that answer the odd job so."""
    return FakeFetcher(lambda name, nth: ([*first, then][min(nth, len(first))]) if ODD in name else None)


def check_the_others(played: Played, api: FakeApi) -> None:
    """See that all is well beside the odd job, and that all slots were given back."""
    others = {job_id: state for job_id, state in played.states.items() if job_id != ODD}
    assert dict.fromkeys(others, State.SUCCEEDED) == others
    assert 0 == played.engine.admission.in_flight
    assert 0 == played.engine.admission.breaker.unanswered
    assert dict(played.engine.counts) == played.counts
    assert max(api.paid().values()) == 1


CASES: dict[str, tuple[FakeApi, FakeFetcher, State, FailureClass | None]] = {
    "rejected": (submits(REJECTED), fetches(), State.FAILED, FailureClass.INVALID_REQUEST),
    "in doubt": (submits(AMBIGUOUS), fetches(), State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT),
    "not sent, then accepted": (submits(NOT_SENT, NOT_SENT), fetches(), State.SUCCEEDED, None),
    "no channel, then accepted": (submits(NO_CHANNEL, NO_CHANNEL), fetches(), State.SUCCEEDED, None),
    "no channel": (submits(then=NO_CHANNEL), fetches(), State.FAILED, FailureClass.UNAVAILABLE),
    "bug in POST": (submits(Bug("post")), fetches(), State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT),
    "failed remotely": (polls(RUNNING, REMOTE_FAILED), fetches(), State.FAILED, FailureClass.REMOTE_FAILED),
    "never finishes": (polls(then=RUNNING), fetches(), State.TIMED_OUT, FailureClass.POLL_TIMEOUT),
    "403 for a while": (polls(POLL_403, POLL_403), fetches(), State.SUCCEEDED, None),
    "502 for a while": (polls(*[POLL_502] * 9), fetches(), State.SUCCEEDED, None),
    "429 for a while": (polls(*[POLL_429] * 9), fetches(), State.SUCCEEDED, None),
    "502 for ever": (polls(then=POLL_502), fetches(), State.TIMED_OUT, FailureClass.POLL_TIMEOUT),
    "unknown at first": (polls(UNKNOWN, UNKNOWN), fetches(), State.SUCCEEDED, None),
    "unknown for ever": (polls(then=UNKNOWN), fetches(), State.FAILED, FailureClass.LOST),
    "bug in query": (polls(Bug("poll")), fetches(), State.TIMED_OUT, FailureClass.INTERNAL),
    "no file": (FakeApi(), fetches(then=LOST_FILE), State.UNDELIVERED, FailureClass.DOWNLOAD_FAILED),
    "file at last": (FakeApi(), fetches(LOST_FILE), State.SUCCEEDED, None),
    "bug in download": (FakeApi(), fetches(Bug("fetch")), State.UNDELIVERED, FailureClass.INTERNAL),
}


@pytest.mark.parametrize("name", CASES)
def test_every_trouble_has_its_end_and_is_its_jobs_own(name: str, tmp_path: Path) -> None:
    """
    A job ends as the table says, a bug of ours included; the others succeed, and every slot comes back.
    """
    api, fetcher, state, cls = CASES[name]
    settings = replace(BRISK, timeouts=Timeouts(unknown_task_s=20.0))
    stage = Stage(tmp_path, api, settings=settings, fetcher=fetcher)
    stage.take_in(specs(3))

    played = stage.play()

    error = played.records[ODD].error
    assert (state, cls) == (played.states[ODD], None if error is None else error.cls)
    assert sorted(played.records) == sorted(ended(played.events))
    check_the_others(played, api)


def test_throttled_answers_never_use_up_tries(tmp_path: Path) -> None:
    """
    However often a job was throttled or could not be sent, it has all its tries where no channel takes it.
    """
    api = submits(*[THROTTLED, NOT_SENT] * 10, NO_CHANNEL, NO_CHANNEL)
    stage = Stage(
        tmp_path, api, settings=replace(BRISK, retry=RetryPolicy(attempts=3, base_s=1.0, cap_s=5.0))
    )
    stage.take_in(specs(3))

    played = stage.play()

    assert State.SUCCEEDED == played.states[ODD]
    assert 23 == len(api.posts_of(ODD))


def test_no_channel_is_given_up_after_the_tries_that_the_manifest_allows(tmp_path: Path) -> None:
    """
    `retry.attempts: 3` means three POSTs that no channel took, and then `unavailable`.
    """
    api = submits(then=NO_CHANNEL)
    stage = Stage(tmp_path, api)
    stage.take_in(specs(3))

    stage.play()

    assert 3 == len(api.posts_of(ODD))


def test_file_that_changed_fails_its_job_before_anything_is_sent(tmp_path: Path) -> None:
    """
    A body that can't be made fails its job; nothing was sent, and the slot and the limit are as before.
    """

    def render(text: str) -> bytes:
        if ODD in text:
            raise RunnerError("cat.png is not what it was when it was checked")
        return text.encode()

    api = FakeApi()
    stage = Stage(tmp_path, api, render=render)
    picture = {"$file": "cat.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}
    jobs = [job._replace(request={**job.request, "image": picture}) for job in specs(3)]
    stage.take_in(jobs)

    played = stage.play()

    assert State.FAILED == played.states[ODD]
    assert [] == api.posts_of(ODD)
    check_the_others(played, api)


def test_both_ids_of_an_answer_are_asked_for(tmp_path: Path) -> None:
    """
    Where the answer names two ids, the one that is known is found, also when neither is known at first.
    """
    api = FakeApi(on_poll=lambda task, nth: SUCCEEDED if task == "right" and nth >= 2 else UNKNOWN)
    stage = Stage(tmp_path, api)
    stage.take_in([spec("job", 0)])
    with Store(tmp_path) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'submitted', attempt = 1, task_id = 'wrong', other_task_id = 'right'"
        )

    played = stage.play()

    assert ("right", State.SUCCEEDED) == (played.records["job"].task_id, played.states["job"])


def test_task_of_a_job_is_polled_and_never_posted(tmp_path: Path) -> None:
    """
    A job that names its task costs nothing, whatever becomes of the task.
    """
    api = FakeApi(on_poll=lambda task, nth: REMOTE_FAILED if task == "task-bad" else SUCCEEDED)
    stage = Stage(tmp_path, api)
    stage.take_in([spec("good", 0, task_id="task-good"), spec("bad", 1, task_id="task-bad")])

    played = stage.play()

    assert {"good": State.SUCCEEDED, "bad": State.FAILED} == played.states
    assert [] == api.posts
