"""Every way in which a POST can fail: its outcome, and that the server received it at most once."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import pytest

from runner.core.outcomes import Accepted, Ambiguous, BadBaseUrl, KeyRefused, Rejected, SubmitOutcome
from runner.core.settings import Timeouts
from runner.gateway.client import GatewayClient
from runner.network import MAX_BODY_BYTES
from tests.gateway.raw_server import (
    BODY,
    KEY,
    QUICK,
    Connection,
    Handler,
    RawServer,
    accepted,
    header,
    response,
    serve,
    server_and_client,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TASK = b'{"id": "task_1", "status": "queued"}'


async def submit_to(
    handler: Handler, body: bytes = BODY, timeouts: Timeouts = QUICK
) -> tuple[SubmitOutcome, RawServer]:
    async with server_and_client(handler, timeouts) as (server, gateway):
        outcome = await gateway.submit(body, KEY)
    return outcome, server


def sending(*parts: bytes, reset: bool = False, then_hang: bool = False) -> Handler:
    """Read one request, send the parts, and close, reset or keep the connection."""

    async def handler(connection: Connection) -> None:
        await connection.request()
        for part in parts:
            await connection.send(part)
        if then_hang:
            await connection.hang()
        if reset:
            connection.reset()

    return handler


UNCERTAIN = {
    "closes after the request": sending(),
    "resets after the request": sending(reset=True),
    "never responds": sending(then_hang=True),
    "half a status line": sending(b"HTTP/1.1 20"),
    "half a header": sending(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "headers without a body": sending(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"),
    "headers, then silence": sending(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", then_hang=True),
    "half a body": sending(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + TASK[:20]),
    "half a body, then a reset": sending(
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + TASK[:20], reset=True
    ),
    "not HTTP": sending(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "binary noise": sending(bytes(range(256)) * 8),
    "a broken chunk": sending(CHUNKED + b"5\r\n{"),
    "a page instead of JSON": sending(response("502 Bad Gateway", b"<html>bad gateway</html>")),
    "success without an id": sending(response("200 OK", b'{"status": "queued"}')),
    "only 100 Continue": sending(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "broken gzip": sending(response("200 OK", b"\x1f\x8b\x08nonsense", "Content-Encoding: gzip")),
}


@pytest.mark.slow
@pytest.mark.parametrize("handler", UNCERTAIN.values(), ids=UNCERTAIN.keys())
async def test_uncertain_post_is_never_repeated(handler: Handler) -> None:
    """
    Once the request was sent, anything but a readable response is uncertain, and the
    server received exactly one request.
    """
    outcome, server = await submit_to(handler)

    assert isinstance(outcome, Ambiguous)
    assert [BODY] == server.bodies


async def test_reset_before_reading_is_uncertain() -> None:
    """A connection that was made and then reset may have carried the request."""

    async def handler(connection: Connection) -> None:
        connection.reset()

    outcome, server = await submit_to(handler)

    assert isinstance(outcome, Ambiguous)
    assert 1 == server.connections


@pytest.mark.parametrize("received_bytes", [0, 1, 65_536, 1_000_000])
async def test_partly_sent_body_is_uncertain(received_bytes: int) -> None:
    """A body of which only a part was sent is uncertain: the server may have accepted it."""
    body = b'{"image":"' + b"A" * 20_000_000 + b'"}'

    async def handler(connection: Connection) -> None:
        await connection.head()
        await connection.read_body(received_bytes)
        connection.reset()

    outcome, server = await submit_to(handler, body)

    assert isinstance(outcome, Ambiguous)
    assert 1 == len(server.requests)
    assert len(server.bodies[0]) < len(body)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int) -> None:
    """A redirect is not followed, even one that asks for the body to be sent again."""
    async with serve(sending(accepted("task_elsewhere"))) as elsewhere:
        here = sending(response(f"{status} Moved", b"", f"Location: {elsewhere.url}/v1/videos"))
        outcome, server = await submit_to(here)

    assert isinstance(outcome, BadBaseUrl)
    assert 1 == len(server.requests)
    assert [] == elsewhere.requests


ACCEPTING = {
    "a header line of 100 KB": sending(
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\nContent-Length: 36\r\n\r\n" + TASK
    ),
    "a chunk without a size": sending(CHUNKED + b"zz\r\n" + TASK + b"\r\n0\r\n\r\n"),
    "a broken chunk in one piece with a document": sending(CHUNKED + b"24\r\n" + TASK + b"\r\nzz\r\n"),
    "bytes behind the last response": sending(response("200 OK", TASK, "Connection: close") + b"GARBAGE\n"),
    "bytes behind a response": sending(response("200 OK", TASK) + b"GARBAGE\n"),
    "two lengths": sending(response("200 OK", TASK, f"Content-Length: {len(TASK)}")),
    "a length and chunks": sending(
        response("200 OK", b"24\r\n" + TASK + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    ),
    "a length that is too small": sending(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + TASK),
    "a header that is none": sending(b"HTTP/1.1 100 Continue\r\n\r\n" + response("200 OK", TASK, "X Y: 1")),
    "100 Continue first": sending(b"HTTP/1.1 100 Continue\r\n\r\n" + accepted("task_1")),
    "byte by byte": sending(*(bytes([byte]) for byte in accepted("task_1"))),
    "closed after a whole document": sending(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + TASK),
    "stalled after a whole document": sending(
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + TASK, then_hang=True
    ),
    "no length, ended by the connection": sending(b"HTTP/1.0 200 OK\r\n\r\n" + TASK),
    "a cookie of 20 KB": sending(response("200 OK", TASK, "Set-Cookie: a=" + "x" * 20_000)),
    "gzip that was not requested": sending(response("200 OK", gzip.compress(TASK), "Content-Encoding: gzip")),
}


@pytest.mark.slow
@pytest.mark.parametrize("handler", ACCEPTING.values(), ids=ACCEPTING.keys())
async def test_received_id_is_kept(handler: Handler) -> None:
    """A task id that was received counts, however badly the response was framed: the task is paid for."""
    outcome, server = await submit_to(handler)

    assert isinstance(outcome, Accepted)
    assert ("task_1",) == outcome.task.ids
    assert 1 == len(server.requests)


async def test_refusal_with_a_truncated_body_is_a_refusal() -> None:
    """The status line of a refusal is enough if its body is truncated."""
    truncated = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 900\r\n\r\n{"error": {"mess'

    outcome, _ = await submit_to(sending(truncated))

    assert isinstance(outcome, KeyRefused)


async def test_refusal_while_the_body_is_sent() -> None:
    """A refusal that arrives before the whole body was sent is read, and is not uncertain."""

    async def handler(connection: Connection) -> None:
        await connection.head()
        await connection.send(
            response("413 Too Large", b'{"code": "read_request_body_failed", "message": "too large"}')
        )
        await connection.hang()

    outcome, server = await submit_to(handler, b"A" * 20_000_000, Timeouts())

    assert isinstance(outcome, Rejected)
    assert 1 == len(server.requests)


async def test_proxy_is_used() -> None:
    """A POST goes through the proxy that was given."""
    async with (
        serve(sending(accepted("task_1"))) as proxy,
        GatewayClient("http://gateway.invalid", QUICK, proxy=proxy.url) as gateway,
    ):
        outcome = await gateway.submit(BODY, KEY)

    assert isinstance(outcome, Accepted)
    assert proxy.requests[0].startswith("POST http://gateway.invalid/v1/videos HTTP/1.1")


async def test_endless_body_is_truncated() -> None:
    """A response of 5 GB is read no further than the limit, and its connection is closed."""
    sent = 0

    async def handler(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n")
        while True:
            await connection.send(b"x" * 65_536)
            sent += 65_536

    outcome, server = await submit_to(handler, timeouts=Timeouts(submit_s=30))

    assert isinstance(outcome, Ambiguous)
    assert MAX_BODY_BYTES < sent < 10 * MAX_BODY_BYTES
    assert 1 == len(server.requests)


async def test_cancellation_passes_through() -> None:
    """A canceled call ends as canceled; then the job is uncertain."""
    arrived = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        arrived.set()
        await connection.hang()

    async with server_and_client(handler, Timeouts()) as (server, gateway):
        call = asyncio.create_task(gateway.submit(BODY, KEY))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    assert 1 == len(server.requests)


async def test_request_as_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    The body is sent as it was given, with the headers that the API documents, no
    cookie, and no login from the user's ``.netrc``.
    """
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", os.fspath(netrc))
    body = b'{ "as":  "given" }'
    closing = response("200 OK", TASK, "Set-Cookie: session=1", "Connection: close")

    async with server_and_client(sending(closing)) as (server, gateway):
        await gateway.submit(body, KEY)
        await gateway.submit(body, KEY)

    assert server.bodies == [body, body]
    assert server.requests[0] == server.requests[1]
    head = server.requests[0]
    assert head.startswith("POST /v1/videos HTTP/1.1\r\n")
    assert f"Bearer {KEY}" == header(head, "Authorization")
    assert "application/json" == header(head, "Content-Type")
    assert (header(head, "User-Agent") or "").startswith("runner/")
    assert header(head, "Cookie") is None
    assert header(head, "Expect") is None


KEY_IN_RESPONSE = {
    "as garbage": sending(f"Authorization: Bearer {KEY}\r\n\r\n".encode()),
    "as a status line": sending(f"HTTP/1.1 {KEY} OK\r\n\r\n".encode()),
    "as a reason": sending(f"HTTP/1.1 500 {KEY}\r\nContent-Length: 0\r\n\r\n".encode()),
    "as a header": sending(f"HTTP/1.1 200 OK\r\n{KEY}\x00: {KEY}\r\n\r\n".encode()),
    "as a message": sending(response("401 Unauthorized", b'{"error": {"message": "%s"}}' % KEY.encode())),
    "as a redirect": sending(response("307 Moved", b"", f"Location: https://x.example/{KEY}?key={KEY}")),
    "as a chunk size": sending(CHUNKED + KEY.encode() + b"\r\n"),
}


@pytest.mark.parametrize("handler", KEY_IN_RESPONSE.values(), ids=KEY_IN_RESPONSE.keys())
async def test_key_in_a_response_is_not_shown(handler: Handler, caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats the key, wherever it does, does not bring it into an outcome or a log."""
    caplog.set_level("DEBUG")

    async with server_and_client(handler) as (_, gateway):
        outcome = await gateway.submit(BODY, KEY)
        polled = await gateway.poll("task_1", KEY)
        probed = await gateway.probe(KEY)
        shown = repr(gateway)

    assert KEY not in f"{outcome!r} {polled!r} {probed!r} {shown}"
    assert KEY not in caplog.text


async def test_large_body_is_sent_completely() -> None:
    """A body with an image inside is sent completely."""
    body = b'{"image":"' + b"A" * 3_000_000 + b'"}'

    outcome, server = await submit_to(sending(accepted("task_1")), body, Timeouts(submit_s=30))

    assert isinstance(outcome, Accepted)
    assert server.bodies == [body]


async def test_client_is_closed_during_calls() -> None:
    """Closing the client ends calls in progress as uncertain, and does not hang."""
    arrived = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        arrived.set()
        await connection.hang()

    async with serve(handler) as server:
        async with GatewayClient(server.url, Timeouts()) as gateway:
            call = asyncio.create_task(gateway.submit(BODY, KEY))
            await arrived.wait()
        outcome = await call

    assert isinstance(outcome, Ambiguous)
