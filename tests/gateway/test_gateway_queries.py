"""Polling and probing: free calls, which may be repeated, and must not leak the key."""

from __future__ import annotations

import pytest
from loopback import KEY, Script, Wire, answer, header, meet, serve
from msgspec.structs import replace

from runner.core.model import FailureClass
from runner.core.outcomes import Denied, Polled, Probed, RemoteStatus, Transient, Unknown

RUNNING = answer("200 OK", b'{"id": "task_1", "status": "in_progress"}')


def always(data: bytes) -> Script:
    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(data)

    return script


async def test_poll_asks_for_the_task() -> None:
    """The id stays one segment of the path, whatever it holds, and the key goes along."""
    async with meet(always(RUNNING)) as (server, gateway):
        outcome = await gateway.poll("task/../1?x", KEY)

    assert isinstance(outcome, Polled)
    assert outcome.task.status is RemoteStatus.RUNNING
    assert server.requests[0].startswith("GET /v1/videos/task%2F..%2F1%3Fx HTTP/1.1\r\n")
    assert header(server.requests[0], "Authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (answer("401 Unauthorized", b'{"error": {"message": "Invalid token"}}'), Denied),
        (answer("400 Bad Request", b'{"code": "task_not_exist", "message": "no", "data": null}'), Unknown),
        (answer("429 Too Many Requests"), Transient),
        (answer("502 Bad Gateway", b"<html>"), Transient),
        (answer("200 OK", b"not json"), Transient),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", Transient),
        (b"garbage\r\n\r\n", Transient),
    ],
)
async def test_poll_outcomes(data: bytes, kind: type) -> None:
    """What the gateway answers becomes an outcome, and so does every trouble with reading it."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(data)

    async with meet(script) as (_, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert type(outcome) is kind


async def test_no_answer_to_a_query() -> None:
    """A query without an answer teaches nothing, and ends in time."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.hang()

    async with meet(script) as (_, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Transient)
    assert outcome.failure.message == "no response from 127.0.0.1 within 0.3 s"


async def test_query_survives_a_closed_connection() -> None:
    """A reused connection that closes under a query costs a second try, which is free."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(RUNNING)
        if wire.number > 1:
            await wire.hang()
        await wire.request()

    async with meet(script) as (server, gateway):
        await gateway.poll("task_1", KEY)
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Polled)
    assert len(server.requests) == 3


async def test_redirect_within_the_gateway() -> None:
    """A query follows a redirect to another path of the gateway, with the key."""

    async def script(wire: Wire) -> None:
        while True:
            head = await wire.request()
            moved = answer("307 Moved", b"", "Location: /v2/videos/task_1")
            await wire.send(RUNNING if "/v2/" in head else moved)

    async with meet(script) as (server, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Polled)
    assert server.requests[1].startswith("GET /v2/videos/task_1 ")
    assert header(server.requests[1], "Authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
async def test_redirect_to_another_origin(status: str) -> None:
    """A query that is sent to another origin does not go there, with or without the key."""
    async with serve(always(RUNNING)) as elsewhere:
        moved = answer(f"{status} Moved", b"", f"Location: {elsewhere.url}/v1/videos/task_1")
        async with meet(always(moved)) as (_, gateway):
            outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Transient)
    assert elsewhere.requests == []


@pytest.mark.parametrize("location", ["/again", "http://[", "", "//", "mailto:a@b.example", "\x80\xff"])
async def test_redirect_without_end(location: str) -> None:
    """Redirects in a circle, or to nowhere, end soon and as an outcome."""
    moved = answer("302 Moved", b"", f"Location: {location}")

    async with meet(always(moved)) as (server, gateway):
        outcome = await gateway.poll("task_1", KEY)

    assert isinstance(outcome, Transient)
    assert len(server.requests) <= 4


async def test_probe_lists_models() -> None:
    """A healthy gateway names its models, and the time by its clock."""
    body = b'{"data": [{"id": "wan2.7-i2v"}, {"id": 5}, "x", {"id": "wan2.7-r2v"}]}'
    healthy = answer("200 OK", body, "Date: Sat, 21 Nov 2026 02:00:00 GMT")

    async with meet(always(healthy)) as (server, gateway):
        probed = await gateway.probe(KEY)

    assert probed == Probed(True, ("wan2.7-i2v", "wan2.7-r2v"), 1795226400.0)
    assert server.requests[0].startswith("GET /v1/models ")


@pytest.mark.parametrize(
    ("data", "answers", "cls"),
    [
        (answer("401 Unauthorized", b'{"error": {"message": "Invalid token"}}'), True, FailureClass.AUTH),
        (answer("403 Forbidden", b'{"error": {"message": "banned"}}'), True, FailureClass.FORBIDDEN),
        (answer("429 Too Many", b'{"error": {"message": "slow down"}}'), True, FailureClass.UNAVAILABLE),
        (answer("404 Not Found", b'{"error": {"message": "no"}}'), True, FailureClass.UNAVAILABLE),
        (answer("503 No", b'{"error": {"code": "get_channel_failed"}}'), False, FailureClass.UNAVAILABLE),
        (answer("502 Bad Gateway", b"<html>"), False, FailureClass.UNAVAILABLE),
        (answer("200 OK", b"<html>"), False, FailureClass.UNAVAILABLE),
        (answer("302 Found", b"{}", "Location: https://x.example/"), False, FailureClass.UNAVAILABLE),
    ],
)
async def test_probe_of_an_ill_gateway(data: bytes, answers: bool, cls: FailureClass) -> None:
    """A refusal in JSON proves that the gateway is there; pages and server errors do not."""
    async with meet(always(data)) as (_, gateway):
        probed = await gateway.probe(KEY)

    assert probed.is_reachable is answers
    assert probed.failure is not None
    assert probed.failure.cls is cls


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"data": {"id": "x"}}', b'{"data": [[], null]}'])
async def test_probe_reads_any_json(body: bytes) -> None:
    """Any JSON is an answer; without a list there are no models."""
    async with meet(always(answer("200 OK", body, "Date: soon"))) as (_, gateway):
        probed = await gateway.probe(KEY)

    assert replace(probed, models=()) == Probed(True)
