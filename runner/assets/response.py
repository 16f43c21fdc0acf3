"""
What the head of an answer to a download means. No network here: headers in, a decision out.

Every resumed download asks for the last 64 KiB again that it already has, so
that the bytes themselves say whether the rest belongs to them (RFC 9110 14.2
lets a server ignore `Range`, and not all of them check `If-Range`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from runner.assets.request import FetchFailure, PartMetadata
from runner.core.http_headers import parse_http_date, parse_retry_after
from runner.core.model import Failure, FailureClass

OVERLAP_BYTES = 64 << 10
SMALL_BYTES = 128 << 10
"""A body of at most this size is held in memory and written in one go: a thread would cost more than it saves."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 425, 429})
_NOT_MEDIA = ("text/html", "application/json", "application/xhtml+xml", "application/problem+json")
_SETTLED_S = 60
"""How much older than the answer a Last-Modified must be, to be sure that no change shares its second (RFC 9110 8.8.2.2)."""


class RangeRequest(Struct, frozen=True):
    """
    What a request asks for.

    Attributes:
        offset: The first byte wanted; 0 for the whole body.
        known: What is known of the body from earlier answers.
    """

    offset: int = 0
    known: PartMetadata = PartMetadata()

    def headers(self) -> dict[str, str]:
        """Write the request's headers; a compressed answer would have another length than the file."""
        headers = {"Accept-Encoding": "identity"}
        if self.offset:
            headers["Range"] = f"bytes={self.offset}-"
            if self.known.validator is not None:
                headers["If-Range"] = self.known.validator
        return headers


class ResponseBody(Struct, frozen=True):
    """
    The body follows.

    Attributes:
        offset: Where in the file its first byte belongs.
        length: How many bytes follow, or None where that was not declared.
        facts: What to remember of the whole file.
        has_sure_end: Whether a cut would be noticed; a body that just ends with its connection may have been cut.
    """

    offset: int
    length: int | None
    facts: PartMetadata
    has_sure_end: bool = True

    @property
    def is_small(self) -> bool:
        """Whether it is the whole file, and small enough to be held in memory."""
        return not self.offset and self.length is not None and self.length <= SMALL_BYTES


class Redirected(Struct, frozen=True):
    """The body is elsewhere."""

    location: str


class Restart(Struct, frozen=True):
    """The part on disk does not belong to what the server has now: forget it, and ask for all."""


class RetryLater(Struct, frozen=True):
    """Nothing came, or not enough: try again after a pause."""

    failure: Failure
    retry_after_s: float | None = None


class Unusable(Struct, frozen=True):
    """This address gives no asset."""

    reason: FetchFailure
    failure: Failure


Reply = ResponseBody | Redirected | Restart | RetryLater | Unusable


def interpret(
    ask: RangeRequest, status: int, headers: Mapping[str, str], *, where: str, max_bytes: int, at: float
) -> Reply:
    """
    Decide what an answer means.

    The names of the headers must compare without regard to case; `where` is the
    address for messages, without its query; `at` is the time of the answer, for a
    Retry-After that is a date.
    """
    if status in _REDIRECTS and "Location" in headers:
        return Redirected(headers["Location"])
    if status == 416 and ask.offset:
        return Restart()
    if status in _TRY_AGAIN or status >= 500:
        return RetryLater(_failed(f"{where} answered {status}", status), parse_retry_after(headers, at))
    if status not in (200, 206):
        failure_class = FailureClass.AUTH if status == 401 else FailureClass.DOWNLOAD_FAILED
        return Unusable(
            FetchFailure.EXPIRED, Failure(failure_class, f"{where} answered {status}", http_status=status)
        )
    body = _range(ask, headers) if status == 206 else _whole(headers)
    if body is None:
        # To ask for all again is the way out where a range was asked for; nothing is left to change where none was.
        odd = _failed(f"{where} answered 206 to a request without a range", status)
        return Restart() if ask.offset else RetryLater(odd)
    return _unacceptable(headers, body, where, max_bytes, status) or body


def _whole(headers: Mapping[str, str]) -> ResponseBody:
    length = _length(headers)
    if length is not None and length <= SMALL_BYTES:
        # It is never resumed, so the rest need not be read.
        return ResponseBody(0, length, PartMetadata(length))
    has_sure_end = length is not None or "chunked" in headers.get("Transfer-Encoding", "").lower()
    return ResponseBody(0, length, PartMetadata(length, _validator(headers)), has_sure_end)


def _range(ask: RangeRequest, headers: Mapping[str, str]) -> ResponseBody | None:
    """Hold a 206 against what was asked; None where it does not fit."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if not ask.offset or match is None:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    length = last - first + 1
    if first != ask.offset or length < 1 or (total is not None and last >= total):
        return None
    if _length(headers) not in (None, length):
        return None
    facts, known = PartMetadata(total, _validator(headers)), ask.known
    if known.total_bytes is not None and total not in (None, known.total_bytes):
        return None
    if known.validator and facts.validator and known.validator != facts.validator:
        return None
    return ResponseBody(
        first,
        length,
        PartMetadata(facts.total_bytes or known.total_bytes, facts.validator or known.validator),
    )


def _unacceptable(
    headers: Mapping[str, str], body: ResponseBody, where: str, max_bytes: int, status: int
) -> Unusable | None:
    """Say what speaks against a body before a byte of it is read."""
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    total = body.facts.total_bytes
    if media_type in _NOT_MEDIA:
        return invalid(f"{where} gave {media_type} instead of the asset", status)
    if encoding not in ("", "identity"):
        return invalid(
            f"{where} gave the asset compressed ({encoding[:20]}), which was not asked for", status
        )
    if total is not None and total > max_bytes:
        return invalid(f"{where} declares {total} bytes, and assets.max_size allows {max_bytes}", status)
    if total == 0:
        return invalid(f"{where} gave an empty file", status)
    return None


def invalid(message: str, status: int | None = None) -> Unusable:
    """Say that what came is not the asset."""
    return Unusable(FetchFailure.INVALID, Failure(FailureClass.ASSET_INVALID, message, http_status=status))


def _failed(message: str, status: int) -> Failure:
    return Failure(FailureClass.DOWNLOAD_FAILED, message, http_status=status)


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _validator(headers: Mapping[str, str]) -> str | None:
    """Find something that changes whenever the file does; a weak ETag may stay the same."""
    etag = headers.get("ETag", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    modified = headers.get("Last-Modified", "").strip()
    modified_at, at = parse_http_date(modified), parse_http_date(headers.get("Date", ""))
    if modified_at is not None and at is not None and at - modified_at >= _SETTLED_S:
        return modified
    return None
