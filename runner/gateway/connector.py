"""
Which failures of a request mean that nothing of it left this machine.

A POST may be sent again by itself only where that is certain, so the line is not
drawn by the type of the exception but by the place where it was raised. aiohttp
takes two steps for each request: it asks its connector for a connection, and
only then writes the first byte on it (`ClientSession._request`:
``conn = await self._connector.connect(...)``, then ``await req.send(conn)``).
`StrictConnector` is that connector. Whatever goes wrong inside `connect`, it
raises as `ConnectFailed`; no other failure is ever taken for it.

What aiohttp 3.10 to 3.14 raises, by the step it happens in:

=========================================  =====================================================  =============
exception                                  when                                                   POST
=========================================  =====================================================  =============
``ClientConnectorDNSError``                the host's name, or the proxy's, does not resolve      not sent
``ClientConnectorError``                   refused, unreachable, reset during the TLS handshake   not sent
``ClientConnectorSSLError``                the TLS handshake failed                               not sent
``ClientConnectorCertificateError``        the certificate is not trusted (the client speaks
                                           after the handshake only; there is no 0-RTT here)      not sent
``ClientProxyConnectionError``             the proxy can't be reached                             not sent
``ClientHttpProxyError``                   the proxy refused CONNECT; only that line left         not sent
``TimeoutError`` in `connect`              DNS, TCP and TLS took longer than ``connect``          not sent
``ServerDisconnectedError`` in `connect`   the proxy hung up on CONNECT                           not sent
-----------------------------------------  -----------------------------------------------------  -------------
``ServerDisconnectedError``                closed without an answer; on a reused connection too:
                                           the server may have read the request before it closed  in doubt
``ClientOSError``, ``ConnectionReset…``    the connection broke while writing or waiting          in doubt
``ClientResponseError`` (status 400!)      the answer is not HTTP, or its headers are too long;
                                           the status is aiohttp's invention                      in doubt
``TimeoutError``, ``SocketTimeoutError``   no answer in time; the total time-out too, which does
                                           not say in which step it fell                          in doubt
anything else                              unknown                                                in doubt
=========================================  =====================================================  =============

Two things besides could make a POST leave twice, or answer one with the answer to another:

- aiohttp sends a request again when a reused connection turns out to be closed,
  but only for ``IDEMPOTENT_METHODS``, and POST is none of these.
- A server may talk on an idle connection, such as a 408 before it hangs up.
  aiohttp would hand those bytes to the next request as its answer, and a stray 429
  would have a job submitted twice. A connection with unread bytes is closed here
  instead of used.

There is no limit on connections: how many requests run at once is decided by the
limits of the run, and a wait for a free connection would count as time to connect.
"""

from __future__ import annotations

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from runner.network_errors import UnsolicitedData

MOST_SPOILED = 16
"""Connections with stray bytes that are closed in a row before the request is given up."""


class ConnectFailed(aiohttp.ClientError):
    """No connection could be had, so that no byte of the request left this machine."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


class StrictConnector(aiohttp.TCPConnector):
    """Open or reuse connections; tell what failed before the first byte from all that fails after it."""

    def __init__(self, *, keepalive_s: float, resolver: aiohttp.abc.AbstractResolver) -> None:
        super().__init__(limit=0, keepalive_timeout=keepalive_s, resolver=resolver)

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """
        Give a connection on which nothing was received that was not asked for.

        Raises:
            ConnectFailed: There is none to be had.
        """
        try:
            for _ in range(MOST_SPOILED):
                connection = await super().connect(req, traces, timeout)
                if connection.protocol is not None and not connection.protocol.should_close:
                    return connection
                connection.close()
        except Exception as error:
            raise ConnectFailed(error) from error
        raise ConnectFailed(UnsolicitedData())
