"""
Network trouble in a person's words.

The text of the HTTP library's exceptions is never passed on: it may quote the
answer, and a server may answer with the key that it was sent.
"""

from __future__ import annotations

import os
import ssl

import aiohttp

from runner.gateway.connector import ConnectFailed, UnsolicitedData


def explain(error: Exception, host: str, *, connect_s: float, answer_s: float) -> str:
    """
    Say in a clause what went wrong on the way to the host.

    >>> explain(TimeoutError(), "api.powertokens.ai", connect_s=10, answer_s=120)
    'no answer from api.powertokens.ai within 120 s'
    """
    if isinstance(error, ConnectFailed):
        return _before_sending(error.cause, host, connect_s)
    if isinstance(error, TimeoutError):
        return f"no answer from {host} within {answer_s:g} s"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{host} closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"what {host} sent back is not HTTP"
    if isinstance(error, OSError):
        return f"the connection to {host} broke: {_reason(error)}"
    return f"the request to {host} broke off ({type(error).__name__})"


def _before_sending(error: Exception, host: str, connect_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection to {host} within {connect_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {host} could not be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {host} is not trusted: {_reason(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"TLS could not be set up with {host}: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy could not be reached: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused the way to {host} (HTTP {error.status})"
    if isinstance(error, UnsolicitedData):
        return f"{host} does not speak HTTP: it talks before it is asked"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {host}: {_reason(error.os_error)}"
    return f"no connection to {host} ({type(error).__name__})"


def _reason(error: Exception) -> str:
    """Name the operating system's or the TLS library's reason, which holds nothing that a server wrote."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or type(error).__name__).replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return type(error).__name__
