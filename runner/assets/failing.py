"""Foreign errors of a download, turned into replies at one place: no word of the HTTP library gets past here."""

from __future__ import annotations

import aiohttp

from runner.assets.connect import ForbiddenAddress
from runner.assets.reply import Refusal, Reply, Setback
from runner.assets.wish import Reason
from runner.core.model import Failure, FailureClass
from runner.core.settings import Timeouts

NETWORK_ERRORS = (aiohttp.ClientError, OSError)
"""All that a request can raise; a time-out is an OSError too."""


def translate(error: Exception, where: str, timeouts: Timeouts) -> Reply:
    """
    Say what an error of the network means, about an address that is given without its query.

    The error's own text is not repeated, since it may hold a signed address.
    """
    if isinstance(error.__cause__, ForbiddenAddress):
        return refused(f"{where} is refused: {error.__cause__}")
    if isinstance(error, aiohttp.InvalidURL):
        return refused(f"{where} is not an address that can be fetched")
    return Setback(Failure(FailureClass.DOWNLOAD_FAILED, f"{where} {_what_happened(error, timeouts)}"))


def refused(message: str) -> Refusal:
    """Say that an address may not be fetched."""
    return Refusal(
        Reason.REFUSED, Failure(FailureClass.DOWNLOAD_FAILED, message[:500], code="address_refused")
    )


def _what_happened(error: Exception, timeouts: Timeouts) -> str:
    # From the particular to the general: several of these are each other's subclasses.
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"could not be connected to within {timeouts.connect_s:g} s"
    if isinstance(error, TimeoutError):
        return f"sent nothing for {timeouts.stall_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "has a host name that could not be resolved"
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return "could not be connected to safely (TLS)"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"could not be connected to ({error.os_error.strerror or 'no reason given'})"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "broke off before the end of the file"
    if isinstance(error, aiohttp.ClientResponseError):
        return "gave an answer that is not HTTP"
    return "closed the connection"
