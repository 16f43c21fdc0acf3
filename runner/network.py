"""
What comes over the network: errors in words, and responses of the API.

The text of the HTTP library's exceptions is never passed on: it may quote a signed URL, or a response that repeats the key
that was sent. Responses are bounded, decompressed, and read even if they are not valid HTTP.
"""

from __future__ import annotations

import os
import re
import ssl
import zlib
from collections.abc import Mapping

import aiohttp
from msgspec import Struct

from runner.core.units import format_duration


class UnsolicitedData(aiohttp.ClientError):
    """The server sent bytes before it was sent a request."""


def describe_network_error(
    error: Exception, target: str, *, connect_s: float, timeout_s: float, is_connecting: bool = False
) -> str:
    """
    Return a clause that tells what went wrong between here and a server.

    Args:
        target: The server, as a host or as a URL that may be shown.
        connect_s: How long the connection could take.
        timeout_s: How long the server could send nothing.
        is_connecting: Whether there was no connection yet, where the error itself does not tell.

    >>> describe_network_error(TimeoutError(), "api.powertokens.ai", connect_s=10, timeout_s=120)
    'no response from api.powertokens.ai within 2m'
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) or is_connecting:
        return _describe_connect_error(error, target, connect_s)
    if isinstance(error, aiohttp.SocketTimeoutError):
        return f"no data from {target} for {format_duration(timeout_s)}"
    if isinstance(error, TimeoutError):
        return f"no response from {target} within {format_duration(timeout_s)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{target} closed the connection without a response"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the connection to {target} was closed before the end of the response"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the response from {target} is not valid HTTP"
    if isinstance(error, OSError):
        return f"the connection to {target} failed: {_reason(error)}"
    return f"the request to {target} failed ({type(error).__name__})"


def _describe_connect_error(error: Exception, target: str, connect_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection to {target} within {format_duration(connect_s)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no connection to {target}: its host name could not be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {target} is not trusted: {_reason(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"TLS could not be set up with {target}: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy could not be reached: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused the connection to {target} (HTTP {error.status})"
    if isinstance(error, UnsolicitedData):
        return f"{target} is not an HTTP server: it sent data before any request"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {target}: {_reason(error.os_error)}"
    return f"no connection to {target} ({type(error).__name__})"


def _reason(error: Exception) -> str:
    """Return the operating system's or the TLS library's reason, which holds nothing that a server wrote."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or type(error).__name__).replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return type(error).__name__


MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of a response that is read, and of what is decompressed from it; the API's own responses have about one kilobyte."""


class HttpResponse(Struct, frozen=True):
    """
    A response as it was received.

    Attributes:
        headers: Without regard to the case of their names.
        body: Decompressed, and possibly truncated.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


_HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\n]*)?\r?\n(?:[^\r\n][^\n]*\n)*\r?\n")

_CHUNK_SIZE = re.compile(rb"\A[^\r\n{\[]{1,40}\r\n(?=[{\[])")
"""In front of a body whose chunks could not be read."""


def salvage(received: bytes) -> HttpResponse | None:
    r"""
    Read a response that is not valid HTTP, such as one with two lengths, or with more bytes than its length.

    Its body is whatever follows its head. None if there is no head of a final response.

    >>> salvage(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}").body
    b'{}'
    """
    while head := _HEAD.match(received):
        received = received[head.end() :]
        if not head[1].startswith(b"1"):
            return HttpResponse(int(head[1]), {}, _CHUNK_SIZE.sub(b"", received))
    return None


async def read_bounded(content: aiohttp.StreamReader, chunks: list[bytes]) -> None:
    """Read a body, piece by piece, up to `MAX_BODY_BYTES`."""
    left = MAX_BODY_BYTES
    while left > 0 and not content.at_eof() and (chunk := await content.readany()):
        chunks.append(chunk[:left])
        left -= len(chunk)


def decompress(body: bytes, encoding: str) -> bytes:
    """
    Decompress a body that was compressed though that was not requested, up to `MAX_BODY_BYTES`.

    A body that can't be decompressed is returned as it is.

    >>> decompress(zlib.compress(b'{"id": "task_1"}'), "deflate")
    b'{"id": "task_1"}'
    """
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        # 32 + 15: the header tells whether it is gzip or zlib.
        return zlib.decompressobj(wbits=47).decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        return body
