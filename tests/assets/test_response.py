"""What the headers of a response decide: whether a range fits, and what identifies the file."""

from __future__ import annotations

import pytest

from runner.assets.request import FetchFailure, PartMetadata
from runner.assets.response import (
    Decision,
    RangeRequest,
    ResponseBody,
    Restart,
    RetryLater,
    Unusable,
    interpret,
)
from runner.core.model import FailureClass

URL = "https://cdn.example.com/a.mp4"
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
KNOWN = PartMetadata(1_000_000, '"v1"')
WHOLE = RangeRequest()
RANGE = {"Content-Range": "bytes 500000-999999/1000000", "Content-Length": "500000"}


def decide(status: int, headers: dict[str, str], requested: RangeRequest = WHOLE) -> Decision:
    return interpret(requested, status, headers, url=URL, max_bytes=10_000_000, at=0.0)


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": '"v1"'}, '"v1"'),
        ({"ETag": 'W/"v1"'}, None),
        ({"ETag": "v1"}, None),
        ({"Last-Modified": "Tue, 14 Nov 2023 22:12:20 GMT", "Date": DATE}, "Tue, 14 Nov 2023 22:12:20 GMT"),
        ({"Last-Modified": "Tue, 14 Nov 2023 22:12:20", "Date": DATE}, "Tue, 14 Nov 2023 22:12:20"),
        ({"Last-Modified": "Tue, 14 Nov 2023 22:12:21 GMT", "Date": DATE}, None),
        ({"Last-Modified": "Tue, 14 Nov 2023 22:12:20 GMT"}, None),
        ({"Last-Modified": "yesterday", "Date": DATE}, None),
    ],
)
def test_validator(headers: dict[str, str], validator: str | None) -> None:
    """Only what changes whenever the file does identifies it: a strong ETag, or a date that is a minute old."""
    body = decide(200, {"Content-Length": "1000000", **headers})

    assert ResponseBody(0, 1_000_000, PartMetadata(1_000_000, validator)) == body


@pytest.mark.parametrize(
    "changes",
    [
        {"Content-Range": "bytes 499999-999999/1000000", "Content-Length": "500001"},
        {"Content-Range": "bytes 500000-999999/1000001"},
        {"Content-Range": "bytes 500000-1000000/1000000", "Content-Length": "500001"},
        {"Content-Range": "bytes 500000-499999/1000000", "Content-Length": "0"},
        {"Content-Range": "bytes 500000-999999"},
        {"Content-Length": "499999"},
        {"ETag": '"v2"'},
    ],
)
def test_a_range_that_does_not_fit_is_not_used(changes: dict[str, str]) -> None:
    """A range of another place, length or file is not appended to what is on disk."""
    requested = RangeRequest(500_000, KNOWN)

    assert ResponseBody(500_000, 500_000, KNOWN) == decide(206, RANGE, requested)
    assert Restart() == decide(206, {**RANGE, **changes}, requested)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress"])
def test_a_body_that_can_not_be_decompressed_is_refused(encoding: str) -> None:
    """What was compressed though that was not requested is not an asset, and a range of it fits nowhere."""
    decision = decide(200, {"Content-Encoding": encoding.upper()})

    assert isinstance(decision, Unusable)
    assert f"compressed ({encoding})" in decision.failure.message
    assert ResponseBody(0, None, PartMetadata(), is_compressed=True) == decide(
        200, {"Content-Encoding": "gzip"}
    )
    for name in (encoding, "gzip"):
        assert Restart() == decide(206, {**RANGE, "Content-Encoding": name}, RangeRequest(500_000, KNOWN))


@pytest.mark.parametrize(
    ("status", "cls"),
    [(401, FailureClass.AUTH), (403, FailureClass.DOWNLOAD_FAILED), (416, FailureClass.DOWNLOAD_FAILED)],
)
def test_a_refusal_ends_the_use_of_a_url(status: int, cls: FailureClass) -> None:
    """The same request would be refused again; only a 401 to a request with the key is the key's fault."""
    decision = interpret(WHOLE, status, {}, url=URL, max_bytes=1, at=0.0, has_key=True)
    without_key = decide(401, {})

    assert isinstance(decision, Unusable)
    assert isinstance(without_key, Unusable)
    assert FailureClass.DOWNLOAD_FAILED is without_key.failure.cls
    assert (FetchFailure.EXPIRED, cls, status) == (
        decision.reason,
        decision.failure.cls,
        decision.failure.http_status,
    )


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_a_temporary_error_is_tried_again(status: int) -> None:
    """The server's wait is honored; the message has the URL without its query."""
    decision = decide(status, {"Retry-After": "7"})

    assert isinstance(decision, RetryLater)
    assert (7.0, f"{URL} returned HTTP {status}") == (decision.retry_after_s, decision.failure.message)
