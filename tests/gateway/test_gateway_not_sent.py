"""Every way in which no connection comes to be: a POST is "not sent", and the server saw no request."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import BODY, KEY, QUICK, Wire, serve

from runner.core.model import FailureClass
from runner.core.outcomes import NotSent, Transient
from runner.gateway.client import GatewayClient


async def not_sent(url: str, *, proxy: str | None = None) -> str:
    """Submit and poll; return the message of the outcome, which must be "not sent"."""
    async with GatewayClient(url, QUICK, proxy=proxy) as gateway:
        outcome = await gateway.submit(BODY, KEY)
        polled = await gateway.poll("task_1", KEY)
        probed = await gateway.probe(KEY)

    assert isinstance(outcome, NotSent)
    assert outcome.failure.cls is FailureClass.UNAVAILABLE
    assert isinstance(polled, Transient)
    assert not probed.is_reachable
    assert KEY not in f"{outcome!r} {polled!r} {probed!r}"
    return outcome.failure.message


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with a certificate that nobody trusts."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder: Path = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_refused(free_port: int) -> None:
    """Nobody listens."""
    assert await not_sent(f"http://127.0.0.1:{free_port}") == "no connection to 127.0.0.1: connection refused"


async def test_unknown_name() -> None:
    """The host's name does not resolve, or not in time."""
    message = await not_sent("http://nowhere.invalid")

    assert message.startswith("no connection to nowhere.invalid")


async def test_untrusted_certificate(self_signed: ssl.SSLContext) -> None:
    """A certificate that nobody trusts ends the handshake before anything is said."""

    async def script(wire: Wire) -> None:
        await wire.request()

    async with serve(script, tls=self_signed) as server:
        message = await not_sent(server.url)

    assert "certificate of 127.0.0.1 is not trusted: self" in message
    assert server.requests == []


async def test_no_tls_on_the_other_side() -> None:
    """What answers the handshake is not TLS."""

    async def script(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await wire.hang()

    async with serve(script) as server:
        message = await not_sent(server.url.replace("http:", "https:"))

    assert message.startswith("TLS could not be set up with 127.0.0.1: ")


@pytest.mark.parametrize("reset", [True, False])
async def test_connection_ends_in_the_handshake(reset: bool) -> None:
    """The other side accepts, and goes away instead of a handshake."""

    async def script(wire: Wire) -> None:
        if reset:
            wire.reset()

    async with serve(script) as server:
        message = await not_sent(server.url.replace("http:", "https:"))

    assert message.startswith("no connection to 127.0.0.1")


async def test_handshake_takes_too_long() -> None:
    """The time to connect includes the handshake, and is told apart from the time to answer."""

    async def script(wire: Wire) -> None:
        await wire.hang()

    async with serve(script) as server:
        message = await not_sent(server.url.replace("http:", "https:"))

    assert message == "no connection to 127.0.0.1 within 0.3 s"


@pytest.mark.skipif(sys.platform != "linux", reason="what a full backlog does is Linux's own")
async def test_connection_takes_too_long() -> None:
    """A connection that nobody accepts ends with the time to connect."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # With these in the queue, the kernel drops whoever knocks next.
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())

        message = await not_sent(f"http://127.0.0.1:{listener.getsockname()[1]}")

    assert message == "no connection to 127.0.0.1 within 0.3 s"


async def test_proxy_is_not_there(free_port: int) -> None:
    """The proxy can't be reached."""
    proxy = f"http://127.0.0.1:{free_port}"

    message = await not_sent("https://gateway.invalid", proxy=proxy)

    assert message == "the proxy could not be reached: connection refused"


async def test_proxy_refuses() -> None:
    """The proxy lets nobody through; it sees the way that was asked for, and neither the body nor the key."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    async with serve(script) as proxy:
        message = await not_sent("https://gateway.invalid", proxy=proxy.url)

    assert message == "the proxy refused the connection to gateway.invalid (HTTP 407)"
    assert all(head.startswith("CONNECT gateway.invalid:443") for head in proxy.requests)
    assert KEY not in "".join(proxy.requests)


async def test_proxy_hangs_up() -> None:
    """The proxy closes the connection instead of opening the way: still nothing of the request has left."""

    async def script(wire: Wire) -> None:
        await wire.head()

    async with serve(script) as proxy:
        message = await not_sent("https://gateway.invalid", proxy=proxy.url)

    assert message == "no connection to gateway.invalid (ServerDisconnectedError)"
    assert all(head.startswith("CONNECT gateway.invalid:443") for head in proxy.requests)
