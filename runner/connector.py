"""
Decide which failures of a request mean that nothing of it was sent.

A POST may be repeated automatically only if that is certain, so it is not decided by
the type of the exception but by the place where it was raised. aiohttp
takes two steps for each request: it gets a connection from its connector, and
only then writes the first byte on it (`ClientSession._request`:
``conn = await self._connector.connect(...)``, then ``await req.send(conn)``).
`StrictConnector` is that connector. It raises whatever goes wrong in `connect`
as `ConnectFailed`; no other failure is taken for it. When a POST may reuse a
connection is decided in `gateway.client`.

What aiohttp 3.11 to 3.14 raises, by step:

=========================================  =====================================================  =============
exception                                  when                                                   POST
=========================================  =====================================================  =============
``ClientConnectorDNSError``                the host's name, or the proxy's, does not resolve      not sent
``ClientConnectorError``                   refused, unreachable, reset during the TLS handshake   not sent
``ClientConnectorSSLError``                the TLS handshake failed                               not sent
``ClientConnectorCertificateError``        the certificate is not trusted (the client speaks
                                           after the handshake only; there is no 0-RTT here)      not sent
``ClientProxyConnectionError``             the proxy can't be reached                             not sent
``ClientHttpProxyError``                   the proxy refused CONNECT; only that line was sent     not sent
``TimeoutError`` in `connect`              DNS, TCP and TLS took longer than ``connect``          not sent
``ServerDisconnectedError`` in `connect`   the proxy closed the connection after CONNECT          not sent
-----------------------------------------  -----------------------------------------------------  -------------
``ServerDisconnectedError``                closed without a response; on a reused connection too:
                                           the server may have read the request before it closed  uncertain
``ClientOSError``, ``ConnectionReset…``    the connection broke while writing or waiting          uncertain
``ClientResponseError`` (status 400!)      the response is not HTTP, or its headers are too long;
                                           the status is made up by aiohttp                       uncertain
``TimeoutError``, ``SocketTimeoutError``   no response in time; the total time-out too, which does
                                           not tell in which step it occurred                     uncertain
anything else                              unknown                                                uncertain
=========================================  =====================================================  =============

Two other things could send a POST twice, or give it the response to another request:

- aiohttp repeats a request if a reused connection turns out to be closed,
  but only for ``IDEMPOTENT_METHODS``, and POST is none of these.
- A server may send data on an idle connection, such as a 408 before it closes it.
  aiohttp would take that for the response to the next request, and a 429 among it
  would submit a job twice. A connection with unread bytes is closed, not reused.
- A second response may follow the first one, such as an id behind a 429. So what
  follows a response after which the POST may be sent again is waited for, and makes
  the job uncertain. No other POST ever uses the connection; and until then it is not
  closed, even if the server says that it closes it.

Connections are not limited: the limits of the run decide how many requests are made at
once, and a wait for a free connection would count as time to connect.

Which proxy a request goes through is decided here too: one rule for every request of the program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from msgspec import Struct

from runner.core.addresses import is_loopback_host
from runner.errors import UsageError
from runner.network import UnsolicitedData

_MAX_RECORDED_BYTES = 128 * 1024
"""Of a response as it arrives: enough for long headers and an answer of the API."""

_MAX_CLOSED = 16
"""Connections with unread bytes that are closed in a row before the request fails."""


class ConnectFailed(aiohttp.ClientError):
    """There is no connection, so no byte of the request was sent."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


class _Handler(ResponseHandler):
    """
    Reads the responses of a connection, and resumes nothing before it was first paused.

    aiohttp 3.14 resumes the parser and the transport at each read of a body, paused or not, which took a twentieth of
    the time of a small request. Its parser may stay paused after reading was resumed, until a later read.
    """

    _was_paused = False

    def pause_reading(self) -> None:
        """Read no more, because much has arrived."""
        self._was_paused = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        """Read on."""
        if self._was_paused:
            super().resume_reading(*args, **kwargs)


class _Recorder(_Handler):
    """
    Keeps the start of what is received for a request: what is not valid HTTP may still have a task's id.

    Attributes:
        is_watched: Whether no other request may use the connection, until `UsedConnection.allow_reuse`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.received = b""
        self.is_watched = False

    @property
    def should_close(self) -> bool:
        """Whether to close the connection after the response; not yet while it is open what follows."""
        return not self.is_watched and super().should_close

    def data_received(self, data: bytes) -> None:
        """Keep the data, and pass it on."""
        if len(self.received) < _MAX_RECORDED_BYTES:
            self.received += data
        super().data_received(data)


class UsedConnection:
    """The connection that a request was sent on; None if it got none."""

    def __init__(self, protocol: _Recorder | None) -> None:
        self._protocol = protocol

    @property
    def received(self) -> bytes:
        """The start of what was received since the request."""
        return b"" if self._protocol is None else self._protocol.received

    def allow_reuse(self) -> None:
        """Let another request use the connection."""
        if self._protocol is not None:
            self._protocol.is_watched = False

    def close(self) -> None:
        """Close the connection, so that no other request meets what may still arrive on it."""
        if self._protocol is not None:
            self._protocol.close()

    async def has_surplus(self, wait_s: float) -> bool:
        """Return whether more bytes follow the response within a time."""
        if self._protocol is None:
            return False
        try:
            async with asyncio.timeout(wait_s):
                await self._protocol.read()
        except (TimeoutError, aiohttp.ClientConnectionError, aiohttp.EofStream):
            return False
        except Exception:
            # What follows is not HTTP.
            return True
        return True


_USED: ContextVar[_Recorder | None] = ContextVar("used_connection", default=None)


def used_connection() -> UsedConnection:
    """Return the connection of this task's last request with a connector that records, since `forget_connection`."""
    return UsedConnection(_USED.get())


def forget_connection() -> None:
    """Begin a new request, so that an earlier one's connection is not taken for its own."""
    _USED.set(None)


class StrictConnector(aiohttp.TCPConnector):
    """
    Opens or reuses connections, and tells failures before the first byte from those after it.

    Args:
        keepalive_s: How long an idle connection may be reused.
        records: Whether the start of each response is kept as it arrives.
        reuse_is_allowed: Whether any request may use a connection again; if not, only after
            `UsedConnection.allow_reuse`, of a connector that records.
    """

    def __init__(
        self,
        *,
        keepalive_s: float,
        resolver: aiohttp.abc.AbstractResolver,
        reuse_is_allowed: bool = True,
        records: bool = False,
    ) -> None:
        super().__init__(limit=0, keepalive_timeout=keepalive_s, resolver=resolver)
        make: Callable[[], ResponseHandler] = partial(_Recorder if records else _Handler, loop=self._loop)
        self._factory = make  # type: ignore[assignment]
        self._reuse_is_allowed = reuse_is_allowed

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """
        Return a connection without unread bytes.

        Raises:
            ConnectFailed: There is none.
        """
        skipped: list[Connection] = []
        try:
            closed = 0
            while closed < _MAX_CLOSED:
                connection = await super().connect(req, traces, timeout)
                protocol = connection.protocol
                if protocol is None or protocol.should_close:
                    connection.close()
                    closed += 1
                elif not isinstance(protocol, _Recorder):
                    return connection
                elif protocol.is_watched:
                    skipped.append(connection)
                else:
                    protocol.received = b""
                    protocol.is_watched = not self._reuse_is_allowed
                    _USED.set(protocol)
                    return connection
        except Exception as error:
            raise ConnectFailed(error) from error
        finally:
            for connection in skipped:
                # Somebody still waits for what may follow on it.
                connection.release()
        raise ConnectFailed(UnsolicitedData())


class Proxies(Struct, frozen=True):
    """
    The proxies of an environment.

    This replaces aiohttp's ``trust_env``, which also adds logins from ``.netrc`` and uses a thread twice for
    each request.

    Attributes:
        by_scheme: The URL of the proxy for http and for https.
        excluded: The entries of ``no_proxy``, in lower case.
    """

    by_scheme: Mapping[str, str] = {}
    excluded: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Proxies:
        """
        Read ``https_proxy``, ``http_proxy`` and ``no_proxy``, in lower case or else in upper case.

        Raises:
            UsageError: A proxy is of an unsupported kind, such as SOCKS.
        """
        by_scheme: dict[str, str] = {}
        for scheme in ("http", "https"):
            proxy = _either_case(environ, f"{scheme}_proxy")
            if not proxy:
                continue
            if "://" not in proxy:
                proxy = f"http://{proxy}"
            if not proxy.lower().startswith(("http://", "https://")):
                raise UsageError(
                    f"{scheme}_proxy names a proxy of an unsupported kind",
                    hint="set it to an http:// proxy, or unset it",
                )
            by_scheme[scheme] = proxy
        entries = (entry.strip().lower() for entry in _either_case(environ, "no_proxy").split(","))
        return cls(by_scheme, tuple(entry for entry in entries if entry))

    def for_url(self, url: str) -> str | None:
        """
        Return the proxy for a URL; None for a direct connection. This machine itself is never behind a proxy.

        >>> proxies = Proxies.from_environ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".local,10.0.0.0/8"})
        >>> proxies.for_url("https://api.powertokens.ai/v1/videos")
        'http://proxy:3128'
        >>> proxies.for_url("https://gateway.local"), proxies.for_url("https://10.1.2.3")
        (None, None)
        """
        if not self.by_scheme:
            return None
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        proxy = self.by_scheme.get(parts.scheme)
        if proxy is None or is_loopback_host(host):
            return None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return None if any(_excludes(entry, host, port) for entry in self.excluded) else proxy


NO_PROXIES = Proxies()


def shown_proxy(proxy: str) -> str:
    """
    Return a proxy for messages, without its password.

    >>> shown_proxy("http://user:secret@proxy:3128/")
    'http://proxy:3128'
    """
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _either_case(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _excludes(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of ``no_proxy`` names a host, as curl reads it: a star, a name with its subdomains, a network."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return ip_address(host) in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, _, entry_port = entry.rpartition(":")
    if name and entry_port.isdecimal() and (":" not in name or name.endswith("]")):
        if int(entry_port) != port:
            return False
        entry = name
    entry = entry.strip("[]").lstrip(".").removeprefix("*.").rstrip(".")
    return host == entry or host.endswith(f".{entry}")
