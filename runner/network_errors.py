"""
Network errors in words.

The text of the HTTP library's exceptions is never passed on: it may quote a signed URL,
or a response that repeats the key that was sent.
"""

from __future__ import annotations

import os
import ssl

import aiohttp

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
