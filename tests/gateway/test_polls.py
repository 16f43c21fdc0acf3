"""Polls and probes: free requests, which may be repeated, and must not leak the key."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runner.core.model import FailureClass
from runner.core.outcomes import Denied, Polled, Probed, RemoteStatus, Transient, Unknown
from tests.gateway.raw_server import (
    KEY,
    Connection,
    Handler,
    accepted,
    header,
    response,
    serve,
    server_and_client,
)

RUNNING = response("200 OK", b'{"id": "task_1", "status": "in_progress"}')


def respond_with(data: bytes) -> Handler:
    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(data)

    return handler


async def test_poll_requests_the_task() -> None:
    """The id stays one segment of the path, whatever it holds, and the key is sent."""
    async with server_and_client(respond_with(RUNNING)) as (server, gateway):
        outcome = await gateway.poll("task/../1?x", KEY)

    assert isinstance(outcome, Polled)
    assert RemoteStatus.RUNNING is outcome.task.status
    assert server.requests[0].startswith("GET /v1/videos/task%2F..%2F1%3Fx HTTP/1.1\r\n")
    assert f"Bearer {KEY}" == header(server.requests[0], "Authorization")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (response("401 Unauthorized", b'{"error": {"message": "Invalid token"}}'), Denied),
        (response("400 Bad Request", b'{"code": "task_not_exist", "message": "no", "data": null}'), Unknown),
        (response("429 Too Many Requests"), Transient),
        (response("502 Bad Gateway", b"<html>"), Transient),
        (response("200 OK", b"not json"), Transient),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", Transient),
        (b"garbage\r\n\r\n", Transient),
    ],
)
async def test_poll_outcomes(data: bytes, kind: type) -> None:
    """The response becomes an outcome, and so does every error in reading it."""

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)

    async with server_and_client(handler) as (_, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert kind is type(outcome)


@pytest.mark.slow
async def test_no_response_to_a_poll() -> None:
    """A poll without a response ends in time, and shows nothing."""

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.hang()

    async with server_and_client(handler) as (_, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Transient)
    assert "no response from 127.0.0.1 within 300ms" == outcome.failure.message


async def test_poll_survives_a_closed_connection() -> None:
    """A reused connection that closes during a poll costs a second try, which is free."""

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(RUNNING)
        if connection.number > 1:
            await connection.hang()
        await connection.request()

    async with server_and_client(handler) as (server, gateway):
        await gateway.poll("task_1", KEY)
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Polled)
    assert 3 == len(server.requests)


async def test_redirect_within_the_gateway() -> None:
    """A poll follows a redirect to another path of the gateway, with the key."""

    async def handler(connection: Connection) -> None:
        while True:
            head = await connection.request()
            moved = response("307 Moved", b"", "Location: /v2/videos/task_1")
            await connection.send(RUNNING if "/v2/" in head else moved)

    async with server_and_client(handler) as (server, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Polled)
    assert server.requests[1].startswith("GET /v2/videos/task_1 ")
    assert f"Bearer {KEY}" == header(server.requests[1], "Authorization")


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
async def test_redirect_to_another_origin(status: str) -> None:
    """A poll does not follow a redirect to another origin, with or without the key."""
    async with serve(respond_with(RUNNING)) as elsewhere:
        moved = response(f"{status} Moved", b"", f"Location: {elsewhere.url}/v1/videos/task_1")
        async with server_and_client(respond_with(moved)) as (_, gateway):
            outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Transient)
    assert [] == elsewhere.requests


@pytest.mark.parametrize("location", ["/again", "http://[", "", "//", "mailto:a@b.example", "\x80\xff"])
async def test_redirect_without_end(location: str) -> None:
    """Redirects in a circle, or to an invalid URL, end soon and as an outcome."""
    moved = response("302 Moved", b"", f"Location: {location}")

    async with server_and_client(respond_with(moved)) as (server, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Transient)
    assert len(server.requests) <= 4


async def test_probe_lists_models() -> None:
    """A healthy gateway lists its models, and states the time by its clock."""
    body = b'{"data": [{"id": "wan2.7-i2v"}, {"id": 5}, "x", {"id": "wan2.7-r2v"}]}'
    healthy = response("200 OK", body, "Date: Sat, 21 Nov 2026 02:00:00 GMT")

    async with server_and_client(respond_with(healthy)) as (server, gateway):
        probed = await gateway.probe(KEY)

    assert Probed(True, ("wan2.7-i2v", "wan2.7-r2v"), 1795226400.0) == probed
    assert server.requests[0].startswith("GET /v1/models ")


@pytest.mark.parametrize(
    ("data", "reachable", "cls"),
    [
        (response("401 Unauthorized", b'{"error": {"message": "Invalid token"}}'), True, FailureClass.AUTH),
        (response("403 Forbidden", b'{"error": {"message": "banned"}}'), True, FailureClass.FORBIDDEN),
        (response("429 Too Many", b'{"error": {"message": "slow down"}}'), True, FailureClass.UNAVAILABLE),
        (response("404 Not Found", b'{"error": {"message": "no"}}'), True, FailureClass.UNAVAILABLE),
        (response("503 No", b'{"error": {"code": "get_channel_failed"}}'), False, FailureClass.UNAVAILABLE),
        (response("502 Bad Gateway", b"<html>"), False, FailureClass.UNAVAILABLE),
        (response("200 OK", b"<html>"), False, FailureClass.UNAVAILABLE),
        (response("302 Found", b"{}", "Location: https://x.example/"), False, FailureClass.UNAVAILABLE),
    ],
)
async def test_probe_of_an_unhealthy_gateway(data: bytes, reachable: bool, cls: FailureClass) -> None:
    """A refusal in JSON proves that the gateway responds; pages and server errors do not."""
    async with server_and_client(respond_with(data)) as (_, gateway):
        probed = await gateway.probe(KEY)

    assert probed.is_reachable is reachable
    assert probed.failure is not None
    assert probed.failure.cls is cls


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"data": {"id": "x"}}', b'{"data": [[], null]}'])
async def test_probe_reads_any_json(body: bytes) -> None:
    """Any JSON is a response; without a list there are no models."""
    async with server_and_client(respond_with(response("200 OK", body, "Date: soon"))) as (_, gateway):
        probed = await gateway.probe(KEY)

    assert Probed(True) == replace(probed, models=())


async def test_query_on_a_connection_of_its_own() -> None:
    """
    The late copy of an answer on a kept connection is not the answer to such a query.
    """

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(accepted(f"task_{connection.number}"))

    async with server_and_client(handler) as (server, gateway):
        outcomes = [await gateway.poll("a", KEY), await gateway.poll("a", KEY)]
        outcomes += [await gateway.poll_afresh("a", KEY), await gateway.poll("a", KEY)]

    ids = [outcome.task.ids[0] for outcome in outcomes if isinstance(outcome, Polled)]
    assert ["task_1", "task_1", "task_2", "task_1"] == ids
    assert 2 == server.connections


async def test_answer_that_is_not_valid_http() -> None:
    """
    A finished task is not polled to the end because a proxy doubled a header.
    """
    body = b'{"id": "task_1", "status": "completed", "video_url": "https://cdn.example/a.mp4"}'

    async with server_and_client(respond_with(response("200 OK", body, f"Content-Length: {len(body)}"))) as (
        _,
        gateway,
    ):
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Polled)
    assert RemoteStatus.SUCCEEDED is outcome.task.status
