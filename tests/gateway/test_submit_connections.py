"""Which connection a POST uses: none on which bytes wait that are not its own answer, and none that may be closed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from runner.core.outcomes import Accepted, Ambiguous
from runner.gateway.client import POST_KEEPALIVE_S
from tests.gateway.raw_server import (
    BODY,
    KEY,
    Connection,
    accepted,
    response,
    run_event_loop,
    server_and_client,
)


async def test_unsolicited_bytes_are_not_the_next_response() -> None:
    """
    What a server sends on an idle connection is not taken for the response to the next
    POST: a 429 among it would submit that job twice.
    """
    is_idle, has_sent = asyncio.Event(), asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(accepted(f"task_{connection.number}"))
        if connection.number == 1:
            await is_idle.wait()
            await connection.send(response("429 Too Many Requests", b"{}"))
            has_sent.set()
            await connection.request()

    async with server_and_client(handler) as (server, gateway):
        first = await gateway.submit(BODY, KEY)
        is_idle.set()
        await has_sent.wait()
        await run_event_loop()
        second = await gateway.submit(BODY, KEY)

    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (("task_1",), ("task_2",)) == (first.task.ids, second.task.ids)
    assert 2 == len(server.requests)


FOLLOWED = {
    "at once": (b"", accepted("task_1")),
    "a moment later": (None, accepted("task_1")),
    "not HTTP": (None, b"\x00\x01 noise\r\n\r\n"),
}


@pytest.mark.parametrize(("pause", "surplus"), FOLLOWED.values(), ids=FOLLOWED.keys())
@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["kept", "closed"])
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "401 Unauthorized"])
async def test_bytes_behind_a_refusal_are_doubt(
    pause: bytes | None, surplus: bytes, status: str, headers: tuple[str, ...]
) -> None:
    """
    If anything follows an answer after which the job could be submitted again, a task may exist; also if the server
    says that it closes the connection.
    """
    refusal = response(status, b'{"error": {"code": "get_channel_failed", "message": "busy"}}', *headers)

    async def handler(connection: Connection) -> None:
        await connection.request()
        if pause is None:
            await connection.send(refusal)
            await run_event_loop(100)
            await connection.send(surplus)
        else:
            await connection.send(refusal + surplus)
        await connection.hang()

    async with server_and_client(handler) as (server, gateway):
        outcome = await gateway.submit(BODY, KEY)

    assert isinstance(outcome, Ambiguous)
    assert "more bytes followed" in outcome.failure.message or "is not valid HTTP" in outcome.failure.message
    assert 1 == len(server.requests)


async def test_no_other_post_uses_a_connection_that_is_watched() -> None:
    """
    While it is open whether more follows a 429, another POST takes a connection of its own and not the late answer.
    """
    is_refused, may_follow = asyncio.Event(), asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        if connection.number == 1:
            await connection.send(response("429 Too Many Requests", b"{}"))
            is_refused.set()
            await may_follow.wait()
            await connection.send(accepted("task_of_the_first"))
        else:
            may_follow.set()
            await connection.send(accepted("task_of_the_second"))
        await connection.hang()

    async with server_and_client(handler) as (_, gateway):
        first = asyncio.create_task(gateway.submit(BODY, KEY))
        await is_refused.wait()
        await run_event_loop(50)
        second = await gateway.submit(BODY, KEY)

        assert isinstance(await first, Ambiguous)

    assert isinstance(second, Accepted)
    assert ("task_of_the_second",) == second.task.ids


async def test_connection_is_not_reused_after_an_answer_to_another_job() -> None:
    """
    Where an answer arrives twice, all later ones on the connection would be those to the jobs before.
    """

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(accepted(f"task_{connection.number}"))
        with contextlib.suppress(asyncio.IncompleteReadError):
            await connection.request()
            await connection.send(accepted(f"task_{connection.number}"))
            await connection.request()
            await connection.send(accepted("task_of_the_second"))
        await connection.hang()

    async with server_and_client(handler) as (server, gateway):
        outcomes = [await gateway.submit(BODY, KEY) for _ in range(3)]

    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert [("task_1",), ("task_1",), ("task_2",)] == [outcome.task.ids for outcome in outcomes]  # type: ignore[union-attr]
    assert 2 == server.connections


@pytest.mark.slow
async def test_connection_that_was_idle_is_not_reused_for_a_post() -> None:
    """
    A POST never meets a connection that a server with a keep-alive of one second may be closing.
    """

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(accepted(f"task_{connection.number}"))

    async with server_and_client(handler) as (server, gateway):
        await gateway.submit(BODY, KEY)
        await asyncio.sleep(0.55)
        await gateway.submit(BODY, KEY)

    assert 2 == server.connections
    assert POST_KEEPALIVE_S <= 0.5


async def test_connection_is_not_reused_after_a_refusal() -> None:
    """
    An id that arrives long after a refusal is not taken for that of the next job.
    """

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(response("429 Too Many Requests", b"{}"))

    async with server_and_client(handler) as (server, gateway):
        for _ in range(2):
            await gateway.submit(BODY, KEY)

    assert (2, 2) == (server.connections, len(server.requests))


async def test_connection_is_reused() -> None:
    """Jobs in quick succession share a connection."""

    async def handler(connection: Connection) -> None:
        for number in itertools.count():
            await connection.request()
            await connection.send(accepted(f"task_{number}"))

    async with server_and_client(handler) as (server, gateway):
        for _ in range(3):
            await gateway.submit(BODY, KEY)

    assert 1 == server.connections
    assert 3 == len(server.requests)


async def test_connection_closed_between_requests() -> None:
    """A connection that the server has closed while idle is not used again."""
    is_idle, is_closed = asyncio.Event(), asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(accepted(f"task_{connection.number}"))
        await is_idle.wait()
        connection.reset()
        is_closed.set()

    async with server_and_client(handler) as (server, gateway):
        await gateway.submit(BODY, KEY)
        is_idle.set()
        await is_closed.wait()
        await run_event_loop()
        outcome = await gateway.submit(BODY, KEY)

    assert isinstance(outcome, Accepted)
    assert 2 == len(server.requests)


async def test_reused_connection_closed_during_a_post() -> None:
    """A reused connection that closes during a POST makes it uncertain; it is not repeated."""

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(accepted("task_1"))
        await connection.request()

    async with server_and_client(handler) as (server, gateway):
        await gateway.submit(BODY, KEY)
        outcome = await gateway.submit(BODY, KEY)

    assert isinstance(outcome, Ambiguous)
    assert 1 == server.connections
    assert 2 == len(server.requests)
