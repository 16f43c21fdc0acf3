"""The outcomes of POSTs and polls: the fake API, and the real client with the simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from runner.core.model import FailureClass
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    BadBaseUrl,
    Denied,
    KeyRefused,
    NoChannel,
    NotSent,
    Polled,
    PollOutcome,
    Rejected,
    RemoteStatus,
    RemoteTask,
    SubmitOutcome,
    Throttled,
    Transient,
    Unknown,
)
from runner.core.settings import Timeouts
from runner.gateway.client import GatewayClient
from runner.worker.ports import Api
from tests.engine import answers
from tests.engine.fakes import FIRST_KEY, FakeApi
from tests.simulator.simulator_client import SEEDANCE, start_simulator


@dataclass(frozen=True)
class Case:
    """
    An answer of the API.

    Attributes:
        answer: What the fake returns.
        rule: What the simulator does, as a rule of a scenario.
        kind: The type of the outcome.
        cls: The class of its failure, if there is one.
    """

    answer: answers.Answer
    rule: str
    kind: type[SubmitOutcome | PollOutcome]
    cls: FailureClass | None = None


POSTS = {
    "accepted": Case(answers.ACCEPTED, "{}", Accepted),
    "throttled": Case(answers.THROTTLED, "{submit: throttled}", Throttled, FailureClass.RATE_LIMITED),
    "no channel": Case(answers.NO_CHANNEL, "{submit: no_channel}", NoChannel, FailureClass.UNAVAILABLE),
    "rejected": Case(answers.REJECTED, "{submit: bad_request}", Rejected, FailureClass.INVALID_REQUEST),
    "forbidden": Case(answers.FORBIDDEN, "{submit: forbidden}", Rejected, FailureClass.FORBIDDEN),
    "uncertain": Case(answers.AMBIGUOUS, "{submit: bad_gateway}", Ambiguous, FailureClass.UNCERTAIN_SUBMIT),
    "no credit": Case(answers.NO_MONEY, "{submit: quota}", KeyRefused, FailureClass.QUOTA),
    "bad key": Case(answers.BAD_KEY, "{submit: unauthorized}", KeyRefused, FailureClass.AUTH),
    "wrong base URL": Case(answers.BAD_BASE_URL, "{submit: redirect}", BadBaseUrl, FailureClass.UNAVAILABLE),
}

POLLS = {
    "unknown": Case(answers.UNKNOWN, "{poll: task_not_exist}", Unknown, FailureClass.LOST),
    "401": Case(answers.POLL_401, "{poll: unauthorized}", Denied, FailureClass.AUTH),
    "403": Case(answers.POLL_403, "{poll: forbidden}", Denied, FailureClass.FORBIDDEN),
    "429": Case(answers.POLL_429, "{poll: throttled}", Transient, FailureClass.RATE_LIMITED),
    "502": Case(answers.POLL_502, "{poll: bad_gateway}", Transient, FailureClass.UNAVAILABLE),
    "running": Case(answers.RUNNING, "{task: {generate_s: 1000}}", Polled),
    "succeeded": Case(answers.SUCCEEDED, "{task: {generate_s: 0}}", Polled),
    "failed": Case(
        answers.REMOTE_FAILED, "{task: {generate_s: 0, end: failed}}", Polled, FailureClass.REMOTE_FAILED
    ),
}


@dataclass(frozen=True)
class Remote:
    """An API, and how many of the POSTs that it received are paid for, or may be."""

    api: Api
    paid: Callable[[], int]


@asynccontextmanager
async def faked(case: Case) -> AsyncIterator[Remote]:
    """Let the fake answer every POST, or every poll, like this."""
    if case in POSTS.values():
        api = FakeApi(lambda job, nth: case.answer, answer_s=0.01)
    else:
        api = FakeApi(on_poll=lambda task, nth: case.answer, answer_s=0.01)
    yield Remote(api, lambda: api.paid().total())


@asynccontextmanager
async def real(case: Case) -> AsyncIterator[Remote]:
    """Let the simulator answer, and the gateway's client return the outcome."""
    async with (
        start_simulator(f"rules: [{case.rule}]") as client,
        GatewayClient(client.simulator.base_url, Timeouts()) as gateway,
    ):
        yield Remote(gateway, lambda: len(client.simulator.ledger.accepted))


async def new_task(api: Api) -> RemoteTask:
    """Submit a job that is accepted."""
    outcome = await api.submit(BODY, FIRST_KEY)
    assert isinstance(outcome, Accepted)
    return outcome.task


BODY = json.dumps(SEEDANCE).encode()
OpenRemote = Callable[[Case], AbstractAsyncContextManager[Remote]]
both = pytest.mark.parametrize("open_remote", [faked, real])


@both
@pytest.mark.parametrize("name", POSTS)
async def test_outcome_of_a_post(name: str, open_remote: OpenRemote) -> None:
    """
    Every answer has its type and its class, and only an ambiguous one leaves open whether the POST is paid for.
    """
    case = POSTS[name]
    async with open_remote(case) as remote:
        outcome = await remote.api.submit(BODY, FIRST_KEY)
        paid = remote.paid()

    assert case.kind is type(outcome)
    assert case.cls is (None if isinstance(outcome, Accepted) else outcome.failure.cls)
    assert isinstance(outcome, Ambiguous) or (1 if isinstance(outcome, Accepted) else 0) == paid


@both
@pytest.mark.parametrize("name", POLLS)
async def test_outcome_of_a_poll(name: str, open_remote: OpenRemote) -> None:
    """
    An error is an outcome with a class; a task has its status, why it failed, and the URL of its video.
    """
    case = POLLS[name]
    async with open_remote(case) as remote:
        task = await new_task(remote.api)
        outcome = await remote.api.poll(task.ids[0], FIRST_KEY)

    assert case.kind is type(outcome)
    failure = outcome.task.error if isinstance(outcome, Polled) else outcome.failure
    assert case.cls is (None if failure is None else failure.cls)
    if isinstance(outcome, Polled):
        status = outcome.task.status
        assert ("running" != name, "succeeded" == name) == (status.is_terminal, bool(outcome.task.video_urls))
        assert RemoteStatus.FAILED is status or name != "failed"
    assert getattr(outcome, "is_throttled", False) == (name == "429")


@both
async def test_every_task_has_its_own_id(open_remote: OpenRemote) -> None:
    """
    An accepted POST gives an id, the same request a second time gives another, and neither task has ended.
    """
    async with open_remote(POSTS["accepted"]) as remote:
        tasks = [await new_task(remote.api) for _ in range(2)]

    assert 2 == len({task.ids[0] for task in tasks})
    assert not any(task.status.is_terminal for task in tasks)


@both
async def test_canceled_post_may_be_paid_for(open_remote: OpenRemote) -> None:
    """
    Canceling a submission does not undo it: then the job is uncertain.
    """
    async with open_remote(Case(answers.ACCEPTED, "{submit: hang}", Accepted)) as remote:
        post = asyncio.create_task(remote.api.submit(BODY, FIRST_KEY))
        # The simulator has a ledger, and nothing to await.
        while not remote.paid():  # noqa: ASYNC110
            await asyncio.sleep(0)
        post.cancel()
        with pytest.raises(asyncio.CancelledError):
            await post

        assert 1 == remote.paid()


@pytest.mark.parametrize("is_real", [False, True])
async def test_post_that_was_not_sent(is_real: bool) -> None:
    """
    Without a server nothing is sent, which is an outcome too.
    """
    async with GatewayClient("http://127.0.0.1:1", Timeouts()) as gateway:
        api: Api = gateway if is_real else FakeApi(lambda job, nth: answers.NOT_SENT, answer_s=0)
        outcome = await api.submit(BODY, FIRST_KEY)

    assert isinstance(outcome, NotSent)
    assert FailureClass.UNAVAILABLE is outcome.failure.cls
