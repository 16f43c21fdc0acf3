"""Every way in which a POST can end badly: what it comes to, and that the server saw it once at most."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import pytest
from loopback import BODY, KEY, QUICK, Script, Server, Wire, accepted, answer, header, meet, serve, turn

from runner.core.outcomes import Accepted, Ambiguous, BadBaseUrl, KeyRefused, Rejected, SubmitOutcome
from runner.core.settings import Timeouts
from runner.gateway.client import MOST_BYTES, GatewayClient

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TASK = b'{"id": "task_1", "status": "queued"}'


async def submit_to(
    script: Script, body: bytes = BODY, timeouts: Timeouts = QUICK
) -> tuple[SubmitOutcome, Server]:
    async with meet(script, timeouts) as (server, gateway):
        outcome = await gateway.submit(body, KEY)
    return outcome, server


def saying(*parts: bytes, reset: bool = False, then_hang: bool = False) -> Script:
    """Read one request, send the parts, and close, break or keep the connection."""

    async def script(wire: Wire) -> None:
        await wire.request()
        for part in parts:
            await wire.send(part)
        if then_hang:
            await wire.hang()
        if reset:
            wire.reset()

    return script


DOUBTFUL = {
    "closes after the request": saying(),
    "breaks after the request": saying(reset=True),
    "never answers": saying(then_hang=True),
    "half a status line": saying(b"HTTP/1.1 20"),
    "half a header": saying(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "headers without a body": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"),
    "headers, then silence": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", then_hang=True),
    "half a body": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + TASK[:20]),
    "half a body, then a reset": saying(
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + TASK[:20], reset=True
    ),
    "not HTTP": saying(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "binary noise": saying(bytes(range(256)) * 8),
    "a header line of 100 KB": saying(
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\nContent-Length: 36\r\n\r\n" + TASK
    ),
    "a broken chunk": saying(CHUNKED + b"5\r\n{"),
    "a chunk without a size": saying(CHUNKED + b"zz\r\n" + TASK + b"\r\n0\r\n\r\n"),
    "a broken chunk in one piece with a document": saying(CHUNKED + b"24\r\n" + TASK + b"\r\nzz\r\n"),
    "a page instead of JSON": saying(answer("502 Bad Gateway", b"<html>bad gateway</html>")),
    "success without an id": saying(answer("200 OK", b'{"status": "queued"}')),
    "only 100 Continue": saying(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "broken gzip": saying(answer("200 OK", b"\x1f\x8b\x08nonsense", "Content-Encoding: gzip")),
}


@pytest.mark.parametrize("script", DOUBTFUL.values(), ids=DOUBTFUL.keys())
async def test_doubt_is_never_sent_again(script: Script) -> None:
    """
    Once the request has left, anything but a readable answer is doubt, and the
    server saw exactly one request.
    """
    outcome, server = await submit_to(script)

    assert isinstance(outcome, Ambiguous)
    assert server.bodies == [BODY]


async def test_reset_before_reading_is_doubt() -> None:
    """A connection that was made and then broken may have carried the request."""

    async def script(wire: Wire) -> None:
        wire.reset()

    outcome, server = await submit_to(script)

    assert isinstance(outcome, Ambiguous)
    assert server.connections == 1


@pytest.mark.parametrize("cut", [0, 1, 65_536, 1_000_000])
async def test_partly_sent_body_is_doubt(cut: int) -> None:
    """A body of which only a part could be written is doubt: who knows what the server made of it."""
    body = b'{"image":"' + b"A" * 20_000_000 + b'"}'

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.some(cut)
        wire.reset()

    outcome, server = await submit_to(script, body)

    assert isinstance(outcome, Ambiguous)
    assert len(server.requests) == 1
    assert len(server.bodies[0]) < len(body)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int) -> None:
    """A redirect, even one that asks for the body to be sent again, stops at the address it came from."""
    async with serve(saying(accepted("task_elsewhere"))) as elsewhere:
        here = saying(answer(f"{status} Moved", b"", f"Location: {elsewhere.url}/v1/videos"))
        outcome, server = await submit_to(here)

    assert isinstance(outcome, BadBaseUrl)
    assert len(server.requests) == 1
    assert elsewhere.requests == []


ACCEPTING = {
    "100 Continue first": saying(b"HTTP/1.1 100 Continue\r\n\r\n" + accepted("task_1")),
    "byte by byte": saying(*(bytes([byte]) for byte in accepted("task_1"))),
    "cut behind a whole document": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + TASK),
    "broken behind a whole document": saying(
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + TASK, then_hang=True
    ),
    "no length, until the end": saying(b"HTTP/1.0 200 OK\r\n\r\n" + TASK),
    "a cookie of 20 KB": saying(answer("200 OK", TASK, "Set-Cookie: a=" + "x" * 20_000)),
    "gzip that nobody asked for": saying(answer("200 OK", gzip.compress(TASK), "Content-Encoding: gzip")),
}


@pytest.mark.parametrize("script", ACCEPTING.values(), ids=ACCEPTING.keys())
async def test_id_that_arrived_is_kept(script: Script) -> None:
    """A task id that came whole counts, however badly the answer was framed: the task is paid for."""
    outcome, server = await submit_to(script)

    assert isinstance(outcome, Accepted)
    assert outcome.task.ids == ("task_1",)
    assert len(server.requests) == 1


async def test_refusal_with_a_broken_body_is_a_refusal() -> None:
    """The status line of a refusal is enough, where its body breaks off."""
    cut = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 900\r\n\r\n{"error": {"mess'

    outcome, _ = await submit_to(saying(cut))

    assert isinstance(outcome, KeyRefused)


async def test_refusal_while_the_body_is_on_its_way() -> None:
    """A refusal that comes before the body has left is heard, and is not doubt."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(
            answer("413 Too Large", b'{"code": "read_request_body_failed", "message": "too large"}')
        )
        await wire.hang()

    outcome, server = await submit_to(script, b"A" * 20_000_000, Timeouts())

    assert isinstance(outcome, Rejected)
    assert len(server.requests) == 1


async def test_way_through_a_proxy() -> None:
    """A proxy that was asked for is used."""
    async with (
        serve(saying(accepted("task_1"))) as proxy,
        GatewayClient("http://gateway.invalid", QUICK, proxy=proxy.url) as gateway,
    ):
        outcome = await gateway.submit(BODY, KEY)

    assert isinstance(outcome, Accepted)
    assert proxy.requests[0].startswith("POST http://gateway.invalid/v1/videos HTTP/1.1")


async def test_endless_body_is_cut() -> None:
    """An answer of 5 GB is read no further than the bound, and its connection is closed."""
    sent = 0

    async def script(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n")
        while True:
            await wire.send(b"x" * 65_536)
            sent += 65_536

    outcome, server = await submit_to(script, timeouts=Timeouts(submit_s=30))

    assert isinstance(outcome, Ambiguous)
    assert MOST_BYTES < sent < 10 * MOST_BYTES
    assert len(server.requests) == 1


async def test_stray_bytes_are_not_the_next_answer() -> None:
    """
    What a server says on an idle connection is not taken for the answer to the next
    POST: a stray 429 would have that job submitted twice.
    """
    rested, spoke = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(accepted(f"task_{wire.number}"))
        if wire.number == 1:
            await rested.wait()
            await wire.send(answer("429 Too Many Requests", b"{}"))
            spoke.set()
            await wire.request()

    async with meet(script) as (server, gateway):
        first = await gateway.submit(BODY, KEY)
        rested.set()
        await spoke.wait()
        await turn()
        second = await gateway.submit(BODY, KEY)

    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (first.task.ids, second.task.ids) == (("task_1",), ("task_2",))
    assert len(server.requests) == 2


async def test_connection_is_reused() -> None:
    """Jobs in quick succession share a connection."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(accepted("task_1"))

    async with meet(script) as (server, gateway):
        for _ in range(3):
            await gateway.submit(BODY, KEY)

    assert server.connections == 1
    assert len(server.requests) == 3


async def test_connection_closed_between_requests() -> None:
    """A connection that the server has closed while idle is not used again."""
    rested, closed = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(accepted(f"task_{wire.number}"))
        await rested.wait()
        wire.reset()
        closed.set()

    async with meet(script) as (server, gateway):
        await gateway.submit(BODY, KEY)
        rested.set()
        await closed.wait()
        await turn()
        outcome = await gateway.submit(BODY, KEY)

    assert isinstance(outcome, Accepted)
    assert len(server.requests) == 2


async def test_reused_connection_closed_under_a_post() -> None:
    """A reused connection that closes when the POST is on it leaves doubt; nothing sends it again."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(accepted("task_1"))
        await wire.request()

    async with meet(script) as (server, gateway):
        await gateway.submit(BODY, KEY)
        outcome = await gateway.submit(BODY, KEY)

    assert isinstance(outcome, Ambiguous)
    assert server.connections == 1
    assert len(server.requests) == 2


async def test_cancellation_passes_through() -> None:
    """A cancelled call ends as cancelled: whoever cancels holds the job in doubt."""
    arrived = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        arrived.set()
        await wire.hang()

    async with meet(script, Timeouts()) as (server, gateway):
        call = asyncio.create_task(gateway.submit(BODY, KEY))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    assert len(server.requests) == 1


async def test_what_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    The body goes out as it was given, with the headers that the API documents, no
    cookie, and no login from the user's ``.netrc``.
    """
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", os.fspath(netrc))
    body = b'{ "as":  "given" }'
    closing = answer("200 OK", TASK, "Set-Cookie: session=1", "Connection: close")

    async with meet(saying(closing)) as (server, gateway):
        await gateway.submit(body, KEY)
        await gateway.submit(body, KEY)

    assert server.bodies == [body, body]
    assert server.requests[0] == server.requests[1]
    head = server.requests[0]
    assert head.startswith("POST /v1/videos HTTP/1.1\r\n")
    assert header(head, "Authorization") == f"Bearer {KEY}"
    assert header(head, "Content-Type") == "application/json"
    assert header(head, "User-Agent").startswith("runner/")
    assert header(head, "Cookie") is None
    assert header(head, "Expect") is None


ECHOING = {
    "as garbage": saying(f"Authorization: Bearer {KEY}\r\n\r\n".encode()),
    "as a status line": saying(f"HTTP/1.1 {KEY} OK\r\n\r\n".encode()),
    "as a reason": saying(f"HTTP/1.1 500 {KEY}\r\nContent-Length: 0\r\n\r\n".encode()),
    "as a header": saying(f"HTTP/1.1 200 OK\r\n{KEY}\x00: {KEY}\r\n\r\n".encode()),
    "as a message": saying(answer("401 Unauthorized", b'{"error": {"message": "%s"}}' % KEY.encode())),
    "as a place to go": saying(answer("307 Moved", b"", f"Location: https://x.example/{KEY}?key={KEY}")),
    "as a chunk size": saying(CHUNKED + KEY.encode() + b"\r\n"),
}


@pytest.mark.parametrize("script", ECHOING.values(), ids=ECHOING.keys())
async def test_key_never_comes_back(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats the key, wherever it does, does not get it into an outcome or a log."""
    caplog.set_level("DEBUG")

    async with meet(script) as (_, gateway):
        outcome = await gateway.submit(BODY, KEY)
        polled = await gateway.poll("task_1", KEY)
        probed = await gateway.probe(KEY)
        shown = repr(gateway)

    assert KEY not in f"{outcome!r} {polled!r} {probed!r} {shown}"
    assert KEY not in caplog.text


async def test_large_body_arrives_whole() -> None:
    """A body with a picture inside is sent whole, and in pieces, so that others get their turn."""
    body = b'{"image":"' + b"A" * 3_000_000 + b'"}'

    outcome, server = await submit_to(saying(accepted("task_1")), body, Timeouts(submit_s=30))

    assert isinstance(outcome, Accepted)
    assert server.bodies == [body]


async def test_gateway_is_closed_with_calls_under_way() -> None:
    """Leaving the client ends what is under way as doubt, and hangs nowhere."""
    arrived = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        arrived.set()
        await wire.hang()

    async with serve(script) as server:
        async with GatewayClient(server.url, Timeouts()) as gateway:
            call = asyncio.create_task(gateway.submit(BODY, KEY))
            await arrived.wait()
        outcome = await call

    assert isinstance(outcome, Ambiguous)
