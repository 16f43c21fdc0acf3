"""
What the status and headers of a download's response mean, and what a download carries from one try to the next.

No network here: headers in, a decision out. Every resumed download requests the last 64 KiB again that it already has, so
that the bytes themselves show whether the rest belongs to them (RFC 9110 14.2
lets a server ignore `Range`, and not all of them check `If-Range`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from msgspec import Struct

from runner.assets.part_file import PartFile, file_size
from runner.assets.request import AssetRequest, FetchFailure, PartMetadata, part_path
from runner.core.model import Failure, FailureClass
from runner.core.retry import parse_http_date, parse_retry_after

OVERLAP_BYTES = 64 << 10
SMALL_BYTES = 128 << 10
"""A body of at most this size is held in memory and written at once: a thread would cost more than it saves."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRYABLE = frozenset({408, 425, 429})
_NOT_MEDIA = ("text/html", "application/json", "application/xhtml+xml", "application/problem+json")
_MAY_BECOME_READY = frozenset({403, 404})
"""What storage answers for a file that it is about to get; some hosts send a page, or nothing, instead."""
_DECODED = frozenset({"gzip", "x-gzip", "deflate"})
_UNREADABLE = frozenset({"br", "zstd", "compress", "x-compress"})
"""Other words, such as aws-chunked, utf-8 and binary, are left over from an upload, and mean nothing (fact F84)."""
_VALIDATOR_AGE_S = 60
"""How much older than the response a Last-Modified must be, so that no other change shares its second (RFC 9110 8.8.2.2)."""


class RangeRequest(Struct, frozen=True):
    """
    What a request asks for.

    Attributes:
        offset: The first byte; 0 for the whole body.
        metadata: What is known of the body from earlier responses.
    """

    offset: int = 0
    metadata: PartMetadata = PartMetadata()

    def headers(self) -> dict[str, str]:
        """Return the request's headers; a compressed response would not have the length of the file."""
        headers = {"Accept-Encoding": "identity"}
        if self.offset:
            headers["Range"] = f"bytes={self.offset}-"
            if self.metadata.validator is not None:
                headers["If-Range"] = self.metadata.validator
        return headers


class ResponseBody(Struct, frozen=True):
    """
    The body follows.

    Attributes:
        offset: Where in the file its first byte belongs.
        length: How many bytes follow, or None if that was not declared.
        metadata: What to store about the whole file.
        shows_truncation: Whether a truncated body would be noticed; one that ends with its connection would not.
        is_compressed: Whether it is to be decompressed; it is never resumed then.
    """

    offset: int
    length: int | None
    metadata: PartMetadata
    shows_truncation: bool = True
    is_compressed: bool = False

    @property
    def is_small(self) -> bool:
        """Whether it is the whole file, and small enough to be held in memory."""
        return (
            not self.offset
            and not self.is_compressed
            and self.length is not None
            and self.length <= SMALL_BYTES
        )


class Redirect(Struct, frozen=True):
    """The asset is at another URL."""

    location: str


class Restart(Struct, frozen=True):
    """What is on disk does not belong to what the server has now: discard it, and request the whole body."""


class RetryLater(Struct, frozen=True):
    """
    Nothing was received, or not enough: try again after a pause.

    Attributes:
        is_too_slow: Whether the body came too slowly; what it brought is then no progress.
    """

    failure: Failure
    retry_after_s: float | None = None
    is_too_slow: bool = False


class Unusable(Struct, frozen=True):
    """
    This URL gives no asset.

    Attributes:
        may_become_ready: Whether it may give one a little later, if the task ended only now.
    """

    reason: FetchFailure
    failure: Failure
    may_become_ready: bool = False


Decision = ResponseBody | Redirect | Restart | RetryLater | Unusable
"""What to do next, after a response or a failed request."""


def interpret(
    requested: RangeRequest,
    status: int,
    headers: Mapping[str, str],
    *,
    url: str,
    max_bytes: int,
    at: float,
    has_key: bool = False,
) -> Decision:
    """
    Decide what a response means.

    Args:
        headers: With names that compare without regard to case.
        url: For messages, without its query.
        at: The time of the response in seconds since 1970, for a Retry-After that is a date.
        has_key: Whether the request carried the key, so that a 401 refuses it.
    """
    if status in _REDIRECTS and "Location" in headers:
        return Redirect(headers["Location"])
    if status == 416 and requested.offset:
        return Restart()
    if status in _RETRYABLE or status >= 500:
        return RetryLater(_failure(f"{url} returned HTTP {status}", status), parse_retry_after(headers, at))
    if status not in (200, 206):
        is_key_refused = status == 401 and has_key
        return Unusable(
            FetchFailure.EXPIRED,
            Failure(
                FailureClass.AUTH if is_key_refused else FailureClass.DOWNLOAD_FAILED,
                f"{url} returned HTTP {status}" + (": it may have expired" if status == 403 else ""),
                http_status=status,
            ),
            may_become_ready=status in _MAY_BECOME_READY,
        )
    body = _partial_body(requested, headers) if status == 206 else _whole_body(headers)
    if body is not None:
        return _reject(headers, body, url, max_bytes, status) or body
    if requested.offset:
        return Restart()
    # The whole body was requested already, so there is nothing to change.
    return RetryLater(_failure(f"{url} returned HTTP 206 to a request without a range", status))


def _whole_body(headers: Mapping[str, str]) -> ResponseBody:
    length = _content_length(headers)
    if _encoding(headers) in _DECODED:
        return ResponseBody(0, length, PartMetadata(), is_compressed=True)
    if length is not None and length <= SMALL_BYTES:
        # It is never resumed, so no validator is needed.
        return ResponseBody(0, length, PartMetadata(length))
    shows_truncation = length is not None or "chunked" in headers.get("Transfer-Encoding", "").lower()
    return ResponseBody(0, length, PartMetadata(length, _validator(headers)), shows_truncation)


def _partial_body(requested: RangeRequest, headers: Mapping[str, str]) -> ResponseBody | None:
    """Compare a 206 with what was requested; None if it does not fit."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if not requested.offset or match is None or _encoding(headers) in _DECODED | _UNREADABLE:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    length = last - first + 1
    if first != requested.offset or length < 1 or (total is not None and last >= total):
        return None
    if _content_length(headers) not in (None, length):
        return None
    known, validator = requested.metadata, _validator(headers)
    if known.total_bytes is not None and total not in (None, known.total_bytes):
        return None
    if known.validator and validator and known.validator != validator:
        return None
    return ResponseBody(first, length, PartMetadata(total or known.total_bytes, validator or known.validator))


def _reject(
    headers: Mapping[str, str], body: ResponseBody, url: str, max_bytes: int, status: int
) -> Unusable | None:
    """Return why a body can't be the asset, before a byte of it is read; None if nothing shows that."""
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    encoding = _encoding(headers)
    total = body.metadata.total_bytes
    if media_type in _NOT_MEDIA:
        return invalid(f"{url} sent {media_type} instead of the asset", status, may_become_ready=True)
    if encoding in _UNREADABLE:
        return invalid(f"{url} sent the asset compressed ({encoding[:20]}), which was not requested", status)
    if total is not None and total > max_bytes:
        return invalid(f"{url} declares {total} bytes; assets.max_size allows {max_bytes}", status)
    if total == 0:
        return invalid(f"{url} sent an empty file", status, may_become_ready=True)
    return None


def invalid(message: str, status: int | None = None, *, may_become_ready: bool = False) -> Unusable:
    """Decide that what a URL gives is not the asset."""
    failure = Failure(FailureClass.ASSET_INVALID, message, http_status=status)
    return Unusable(FetchFailure.INVALID, failure, may_become_ready)


def _encoding(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Encoding", "").strip().lower()


def _failure(message: str, status: int) -> Failure:
    return Failure(FailureClass.DOWNLOAD_FAILED, message, http_status=status)


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return a value that changes whenever the file does, if there is one; a weak ETag may stay the same."""
    etag = headers.get("ETag", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    modified = headers.get("Last-Modified", "").strip()
    modified_at, at = parse_http_date(modified), parse_http_date(headers.get("Date", ""))
    if modified_at is not None and at is not None and at - modified_at >= _VALIDATOR_AGE_S:
        return modified
    return None


SaveMetadata = Callable[[PartMetadata], None]


class Download:
    """
    What `Fetcher` carries from one try to the next.

    Attributes:
        must_restart: Whether the part on disk turned out to belong to another file.
        shown_url: The URL requested last, for messages, without its query.
    """

    __slots__ = ("metadata", "must_restart", "part", "request", "save_metadata", "shown_url")

    def __init__(self, request: AssetRequest, save_metadata: SaveMetadata) -> None:
        self.request = request
        self.save_metadata = save_metadata
        path = part_path(request.path)
        self.part = PartFile(path, file_size(path)) if request.metadata is not None else PartFile(path)
        self.metadata = request.metadata or PartMetadata()
        self.must_restart = False
        self.shown_url = "the part file"

    @property
    def may_be_complete(self) -> bool:
        """Whether an earlier process died between the last byte and the final name."""
        return 0 < self.part.size == self.metadata.total_bytes

    def next_range(self) -> RangeRequest:
        """Return what to request: the rest and an overlap, or all if there is too little to resume."""
        size, total = self.part.size, self.metadata.total_bytes
        is_too_long = total is not None and size > total
        if self.must_restart or is_too_long or size <= OVERLAP_BYTES:
            return RangeRequest()
        return RangeRequest(size - OVERLAP_BYTES, self.metadata)

    def update_metadata(self, metadata: PartMetadata) -> None:
        """Take what a response says of the whole file, and save it if it is new."""
        if metadata != self.metadata or not self.part.size:
            self.metadata = metadata
            self.save_metadata(metadata)

    def check_length(self) -> RetryLater | Restart | None:
        """Return what to do if the file does not have its declared length after a body; None if it has."""
        size, total = self.part.size, self.metadata.total_bytes
        if not self.part.is_overlap_complete or (total is not None and size > total):
            return Restart()
        if total is not None and size < total:
            message = f"{self.shown_url} sent {size} of {total} bytes"
            return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message))
        return None
