"""A gateway that repeats the key in its answers: nothing that is handed on contains it."""

from __future__ import annotations

import pytest

from runner.core.model import Failure, FailureClass
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    Polled,
    PollOutcome,
    RemoteStatus,
    RemoteTask,
    SubmitOutcome,
    Transient,
    hide_keys,
)
from tests.gateway.raw_server import BODY, Connection, Handler, response, server_and_client

# They do not look like keys, so that only the comparison with the keys in use finds them.
KEY = "topsecret0123456789"
OTHER = "another0123456789"


def respond_with(body: str, status: str = "200 OK", *headers: str) -> Handler:
    """Answer every request in the same way."""

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(response(status, body.encode(), *headers))

    return handler


async def submit(body: str) -> SubmitOutcome:
    """Return the outcome of a POST that gets this answer."""
    async with server_and_client(respond_with(body)) as (_, gateway):
        return await gateway.submit(BODY, KEY)


async def test_key_in_an_answer_to_a_poll() -> None:
    """It is hidden in the status word, and an id with it is not an id."""
    running = respond_with(f'{{"id": "task_{KEY}", "status": "waiting {KEY}"}}')

    async with server_and_client(running) as (_, gateway):
        polled = await gateway.poll("task_1", KEY)

    assert isinstance(polled, Polled)
    assert ((), "waiting [redacted]") == (polled.task.ids, polled.task.raw_status)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (f'{{"error": {{"message": "no", "code": "c_{KEY}"}}}}', ()),
        (f'{{"error": {{"message": "slow down, {KEY}", "code": "c"}}}}', ()),
        ('{"error": {"message": "no", "code": "c"}}', (f"X-Request-Id: {KEY}",)),
    ],
    ids=["code", "message", "request id"],
)
async def test_key_in_a_refusal(body: str, headers: tuple[str, ...]) -> None:
    """It is hidden in the code, in the message and in the id of the request."""
    async with server_and_client(respond_with(body, "429 Too Many Requests", *headers)) as (_, gateway):
        throttled = await gateway.poll("task_1", KEY)

    assert isinstance(throttled, Transient)
    assert KEY not in repr(throttled)
    assert "[redacted]" in repr(throttled)


async def test_key_with_escapes_and_another_key() -> None:
    """A key that is spelled with escapes is found, and so is another key of the process."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in OTHER)

    async with server_and_client(respond_with(f'{{"id": "task_1", "status": "{escaped}"}}')) as (_, gateway):
        await gateway.poll("task_1", OTHER)
        polled = await gateway.poll("task_1", KEY)

    assert isinstance(polled, Polled)
    assert "[redacted]" == polled.task.raw_status


async def test_another_key_in_ids_and_kept_answers() -> None:
    """A key that another request of the process was sent with is hidden in ids and in answers that are kept."""
    named = f'{{"id": "task_{OTHER}", "task_id": "task_1", "status": "queued"}}'
    async with server_and_client(respond_with(named)) as (_, gateway):
        await gateway.poll("task_1", OTHER)
        accepted = await gateway.submit(BODY, KEY)
    async with server_and_client(respond_with(f'{{"note": "{OTHER}"}}')) as (_, gateway):
        await gateway.poll("task_1", OTHER)
        unclear = [await gateway.submit(BODY, KEY), await gateway.poll("task_1", KEY)]

    assert isinstance(accepted, Accepted)
    assert ("task_1",) == accepted.task.ids
    assert OTHER not in repr([accepted, *unclear])
    assert all("[redacted]" in repr(outcome) for outcome in unclear)


async def test_task_id_with_the_key_makes_the_job_uncertain() -> None:
    """The id can't be stored, and a task exists: the job is not submitted again."""
    outcome = await submit(f'{{"id": "task_{KEY}", "status": "queued"}}')

    assert isinstance(outcome, Ambiguous)
    assert "contains the API key" in outcome.failure.message
    assert KEY not in repr(outcome)


async def test_second_id_without_the_key_is_used() -> None:
    """If the answer names another id too, the task is polled with that one."""
    outcome = await submit(f'{{"id": "{KEY}", "task_id": "task_1", "status": "queued"}}')

    assert isinstance(outcome, Accepted)
    assert ("task_1",) == outcome.task.ids


async def test_key_in_an_answer_that_is_kept() -> None:
    """What is kept of an answer that was not understood, and every id that it names, is without the key."""
    outcome = await submit(f'{{"message": "{KEY}", "x": "{KEY}"}}')
    named = await submit(f'{{"id": "task_1", "data": {{"id": "{KEY}"}}}}')

    assert isinstance(outcome, Ambiguous)
    assert outcome.answer is not None
    assert KEY not in f"{outcome!r} {named!r}"


FAILURE = Failure(FailureClass.REMOTE_FAILED, f"m {KEY}", f"c {KEY}", 400, f"r {KEY}")
TASK = RemoteTask(("task_1",), RemoteStatus.QUEUED, all_ids=("task_1", f"task_{KEY}"))


@pytest.mark.parametrize(
    "outcome",
    [
        Transient(FAILURE),
        Transient(Failure(FailureClass.UNAVAILABLE, KEY)),
        Transient(Failure(FailureClass.UNAVAILABLE, "no", request_id=KEY)),
        Transient(Failure(FailureClass.UNAVAILABLE, "no", KEY)),
        Transient(Failure(FailureClass.UNAVAILABLE, "no"), answer=f"a {KEY}"),
        Polled(RemoteTask(("task_1",), RemoteStatus.FAILED, error=FAILURE)),
        Polled(TASK, answer=f"a {KEY}"),
        Accepted(TASK),
    ],
    ids=[
        "failure",
        "message",
        "request id",
        "code",
        "answer",
        "error of a task",
        "task and answer",
        "other id",
    ],
)
def test_key_anywhere(outcome: SubmitOutcome | PollOutcome) -> None:
    """Wherever an outcome has a key, it is found; a text that is too short to be a key is left alone."""
    assert KEY not in repr(hide_keys(outcome, [OTHER, KEY]))
    assert outcome is hide_keys(outcome, [OTHER, "no", "task_1"])
