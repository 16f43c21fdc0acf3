"""Every way in which there is no connection: a POST is "not sent", and the server receives no request."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from runner.core.model import FailureClass
from runner.core.outcomes import NotSent, Transient
from runner.gateway.client import GatewayClient
from tests.gateway.raw_server import BODY, KEY, QUICK, Connection, serve


async def not_sent(url: str, *, proxy: str | None = None) -> str:
    """Submit and poll; return the message of the outcome, which must be "not sent"."""
    async with GatewayClient(url, QUICK, proxy=proxy) as gateway:
        outcome = await gateway.submit(BODY, KEY)
        polled = await gateway.poll("task_1", KEY)
        probed = await gateway.probe(KEY)

    assert isinstance(outcome, NotSent)
    assert FailureClass.UNAVAILABLE is outcome.failure.cls
    assert isinstance(polled, Transient)
    assert not probed.is_reachable
    assert KEY not in f"{outcome!r} {polled!r} {probed!r}"
    return outcome.failure.message


@pytest.fixture
def free_port() -> int:
    """A port on which no server listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with an untrusted certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder: Path = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_refused(free_port: int) -> None:
    """No server listens."""
    assert "no connection to 127.0.0.1: connection refused" == await not_sent(f"http://127.0.0.1:{free_port}")


async def test_unknown_name() -> None:
    """The host name does not resolve, or not in time."""
    message = await not_sent("http://nowhere.invalid")

    assert message.startswith("no connection to nowhere.invalid")


async def test_untrusted_certificate(self_signed: ssl.SSLContext) -> None:
    """An untrusted certificate ends the handshake before anything is sent."""

    async def handler(connection: Connection) -> None:
        await connection.request()

    async with serve(handler, tls=self_signed) as server:
        message = await not_sent(server.url)

    assert "certificate of 127.0.0.1 is not trusted: self" in message
    assert [] == server.requests


async def test_server_without_tls() -> None:
    """The response to the handshake is not TLS."""

    async def handler(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.hang()

    async with serve(handler) as server:
        message = await not_sent(server.url.replace("http:", "https:"))

    assert message.startswith("TLS could not be set up with 127.0.0.1: ")


@pytest.mark.parametrize("reset", [True, False])
async def test_connection_ends_in_the_handshake(reset: bool) -> None:
    """The server accepts the connection, and closes it instead of a handshake."""

    async def handler(connection: Connection) -> None:
        if reset:
            connection.reset()

    async with serve(handler) as server:
        message = await not_sent(server.url.replace("http:", "https:"))

    assert message.startswith("no connection to 127.0.0.1")


@pytest.mark.slow
async def test_handshake_takes_too_long() -> None:
    """The time-out to connect includes the handshake, and is not that of the response."""

    async def handler(connection: Connection) -> None:
        await connection.hang()

    async with serve(handler) as server:
        message = await not_sent(server.url.replace("http:", "https:"))

    assert "no connection to 127.0.0.1 within 300ms" == message


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog drops connections only on Linux")
async def test_connection_takes_too_long() -> None:
    """A connection that is not accepted ends with the time-out to connect."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # With these in the queue, the kernel drops the next connection.
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())

        message = await not_sent(f"http://127.0.0.1:{listener.getsockname()[1]}")

    assert "no connection to 127.0.0.1 within 300ms" == message


async def test_proxy_is_unreachable(free_port: int) -> None:
    """The proxy can't be reached."""
    proxy = f"http://127.0.0.1:{free_port}"

    message = await not_sent("https://gateway.invalid", proxy=proxy)

    assert "the proxy could not be reached: connection refused" == message


async def test_proxy_refuses() -> None:
    """A proxy that refuses the connection receives the CONNECT line, and neither the body nor the key."""

    async def handler(connection: Connection) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    async with serve(handler) as proxy:
        message = await not_sent("https://gateway.invalid", proxy=proxy.url)

    assert "the proxy refused the connection to gateway.invalid (HTTP 407)" == message
    assert all(head.startswith("CONNECT gateway.invalid:443") for head in proxy.requests)
    assert KEY not in "".join(proxy.requests)


async def test_proxy_closes_the_connection() -> None:
    """The proxy closes the connection after CONNECT: nothing of the request was sent."""

    async def handler(connection: Connection) -> None:
        await connection.head()

    async with serve(handler) as proxy:
        message = await not_sent("https://gateway.invalid", proxy=proxy.url)

    assert "no connection to gateway.invalid (ServerDisconnectedError)" == message
    assert all(head.startswith("CONNECT gateway.invalid:443") for head in proxy.requests)
