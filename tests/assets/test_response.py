"""What the headers of a response decide: whether a range fits, and what identifies the file."""

from __future__ import annotations

import pytest

from runner.assets.request import FetchFailure, PartMetadata
from runner.assets.response import (
    Decision,
    RangeRequest,


"""The meaning of a response's status and headers, at its boundaries."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from multidict import CIMultiDict

from runner.assets.request import FetchFailure, PartMetadata
from runner.assets.response import (
    SMALL_BYTES,
    Decision,
    RangeRequest,
    Redirect,
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


MAX_BYTES = 1_000_000
LARGE = 500_000
WHOLE = RangeRequest()
REST = RangeRequest(100, PartMetadata(LARGE, '"v1"'))
MODIFIED = {"Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}


def decide(requested: RangeRequest, status: int, headers: Mapping[str, str] | None = None) -> Decision:
    """Interpret a response."""
    return interpret(
        requested,
        status,
        CIMultiDict(headers or {}),
        url="https://cdn.example/a.mp4",
        max_bytes=MAX_BYTES,
        at=1_700_000_000.0,
    )


def body(
    length: int | None, headers: Mapping[str, str] | None = None, *, requested: RangeRequest = WHOLE
) -> ResponseBody:
    """Interpret a response that has a body to receive: all of it, or the rest that was requested."""
    declared = {} if length is None else {"Content-Length": str(length)}
    decision = decide(requested, 206 if requested.offset else 200, {**declared, **(headers or {})})
    assert isinstance(decision, ResponseBody)
    return decision


def content_range(text: str) -> dict[str, str]:
    """Return the header of a partial response."""
    return {"Content-Range": f"bytes {text}"}


@pytest.mark.parametrize(
    ("requested", "headers"),
    [
        (WHOLE, {}),
        (RangeRequest(0, PartMetadata(9, '"v1"')), {}),
        (RangeRequest(100), {"Range": "bytes=100-"}),
        (REST, {"Range": "bytes=100-", "If-Range": '"v1"'}),
    ],
)
def test_only_a_resumed_download_names_a_range(requested: RangeRequest, headers: Mapping[str, str]) -> None:
    """If-Range needs a range, and a validator to compare."""
    assert {"Accept-Encoding": "identity", **headers} == requested.headers()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_trouble_of_the_server_is_tried_again(status: int) -> None:
    """As late as the server asks for."""
    decision = decide(WHOLE, status, {"Retry-After": "30"})

    assert isinstance(decision, RetryLater)
    assert (30.0, status) == (decision.retry_after_s, decision.failure.http_status)
    assert FailureClass.DOWNLOAD_FAILED is decision.failure.cls


@pytest.mark.parametrize(
    ("status", "failure_class"),
    [
        (401, FailureClass.AUTH),
        (400, FailureClass.DOWNLOAD_FAILED),
        (404, FailureClass.DOWNLOAD_FAILED),
        (416, FailureClass.DOWNLOAD_FAILED),
        (204, FailureClass.DOWNLOAD_FAILED),
        (302, FailureClass.DOWNLOAD_FAILED),
        (499, FailureClass.DOWNLOAD_FAILED),
    ],
)
def test_other_statuses_need_a_fresh_url(status: int, failure_class: FailureClass) -> None:
    """Among them a redirect to nowhere, and a range that was not requested."""
    decision = decide(WHOLE, status)

    assert isinstance(decision, Unusable)
    assert (FetchFailure.EXPIRED, failure_class, status) == (
        decision.reason,
        decision.failure.cls,
        decision.failure.http_status,
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(status: int) -> None:
    """Every kind of redirect is followed to where it leads."""
    assert Redirect("/b.mp4") == decide(REST, status, {"Location": "/b.mp4"})


def test_range_that_can_not_be_had_restarts() -> None:
    """What is on disk is perhaps longer than the file now is."""
    assert isinstance(decide(REST, 416), Restart)


@pytest.mark.parametrize(
    ("length", "is_small"), [(SMALL_BYTES, True), (SMALL_BYTES + 1, False), (1, True), (None, False)]
)
def test_small_bodies_have_a_declared_length(length: int | None, is_small: bool) -> None:
    """What may be held in memory is known before the first byte."""
    assert is_small == body(length).is_small


def test_rest_of_a_file_is_not_small() -> None:
    """Its bytes belong behind those on disk, however few they are."""
    rest = body(10, content_range("100-109/110"), requested=RangeRequest(100))

    assert (100, 10, PartMetadata(110), False) == (rest.offset, rest.length, rest.metadata, rest.is_small)


@pytest.mark.parametrize(
    ("length", "headers", "shows_truncation"),
    [
        (LARGE, {}, True),
        (SMALL_BYTES, {}, True),
        (None, {"Transfer-Encoding": "Chunked"}, True),
        (None, {"Transfer-Encoding": "gzip, chunked"}, True),
        (None, {}, False),
    ],
)
def test_body_that_ends_with_its_connection_hides_truncation(
    length: int | None, headers: dict[str, str], shows_truncation: bool
) -> None:
    """With a length or in chunks its end is known."""
    assert shows_truncation == body(length, headers).shows_truncation


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        (f"100-{LARGE - 1}/{LARGE}", REST.metadata),
        (f"100-{LARGE - 1}/*", REST.metadata),
        (f"100-100/{LARGE}", REST.metadata),
    ],
)
def test_range_that_fits_is_received(text: str, metadata: PartMetadata) -> None:
    """The server may send less than the rest, and need not know the whole length."""
    rest = body(None, content_range(text), requested=REST)

    assert (100, metadata, True) == (rest.offset, rest.metadata, rest.shows_truncation)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        content_range("100-199"),
        content_range(f"0-{LARGE - 1}/{LARGE}"),
        content_range(f"99-{LARGE - 1}/{LARGE}"),
        content_range(f"101-{LARGE - 1}/{LARGE}"),
        content_range(f"100-99/{LARGE}"),
        content_range(f"100-{LARGE}/{LARGE}"),
        content_range(f"100-{LARGE}/{LARGE + 1}"),
        {**content_range(f"100-199/{LARGE}"), "Content-Length": "101"},
        {**content_range(f"100-199/{LARGE}"), "ETag": '"v2"'},
    ],
)
def test_range_that_does_not_fit_restarts(headers: Mapping[str, str]) -> None:
    """Other bytes than requested, of another length, or of another file."""
    assert isinstance(decide(REST, 206, headers), Restart)


def test_range_of_unknown_files_is_compared_by_its_bytes() -> None:
    """Without a validator on either side the overlap decides; what a side knows is kept."""
    known_to_us = body(None, content_range("100-199/*"), requested=REST)
    known_to_both = body(None, {**content_range("100-199/*"), "ETag": '"v1"'}, requested=REST)
    known_to_server = body(
        None, {**content_range(f"100-199/{LARGE}"), "ETag": '"v1"'}, requested=RangeRequest(100)
    )

    assert REST.metadata == known_to_us.metadata == known_to_both.metadata == known_to_server.metadata


def test_part_of_a_file_that_was_requested_whole_is_tried_again() -> None:
    """There is no other request to make instead."""
    decision = decide(WHOLE, 206, content_range(f"0-99/{LARGE}"))

    assert isinstance(decision, RetryLater)
    assert 206 == decision.failure.http_status


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "Text/HTML; charset=utf-8"},
        {"Content-Type": "application/problem+json"},
        {"Content-Encoding": "gzip"},
        {"Content-Length": str(MAX_BYTES + 1)},
        {"Content-Length": "0"},
    ],
)
def test_bodies_that_are_no_assets(headers: Mapping[str, str]) -> None:
    """Not a byte of them is read."""
    decision = decide(WHOLE, 200, headers)

    assert isinstance(decision, Unusable)
    assert (FetchFailure.INVALID, FailureClass.ASSET_INVALID, 200) == (
        decision.reason,
        decision.failure.cls,
        decision.failure.http_status,
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/octet-stream"},
        {"Content-Encoding": "Identity"},
        {"Content-Encoding": ""},
        {"Content-Length": str(MAX_BYTES)},
        {"Content-Length": "1"},
    ],
)
def test_bodies_that_may_be_assets(headers: Mapping[str, str]) -> None:
    """A wrong type is common; only what is surely something else is refused."""
    assert isinstance(decide(WHOLE, 200, headers), ResponseBody)


@pytest.mark.parametrize(
    ("text", "length"), [("12", 12), (" 12 ", 12), ("-1", None), ("1.5", None), ("x", None), ("٣", None)]
)
def test_length_is_a_plain_number(text: str, length: int | None) -> None:
    """Anything else declares nothing."""
    assert length == body(None, {"Content-Length": text}).length


def test_length_that_no_disk_holds_is_none() -> None:
    """A number of 18 digits is refused as too large, a longer one is not read at all."""
    assert isinstance(decide(WHOLE, 200, {"Content-Length": "9" * 18}), Unusable)
    assert body(None, {"Content-Length": "9" * 19}).length is None


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


@pytest.mark.parametrize(
    ("status", "cls"),
    [(401, FailureClass.AUTH), (403, FailureClass.DOWNLOAD_FAILED), (416, FailureClass.DOWNLOAD_FAILED)],
)
def test_a_refusal_ends_the_use_of_a_url(status: int, cls: FailureClass) -> None:
    """The same request would be refused again; only a 401 is the key's fault."""
    decision = decide(status, {})

    assert isinstance(decision, Unusable)
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


        ({}, None),
        ({**MODIFIED, "Date": "Tue, 14 Nov 2023 22:14:20 GMT"}, MODIFIED["Last-Modified"]),
        ({**MODIFIED, "Date": "Tue, 14 Nov 2023 22:14:19 GMT"}, None),
        (MODIFIED, None),
        ({"Last-Modified": "yesterday", "Date": "Tue, 14 Nov 2023 22:14:20 GMT"}, None),
        ({**MODIFIED, "Date": "Tue, 14 Nov 2023 22:14:20 GMT", "ETag": '"v1"'}, '"v1"'),
    ],
)
def test_validator_changes_whenever_the_file_does(headers: dict[str, str], validator: str | None) -> None:
    """A strong ETag, or else a Last-Modified that was a minute old."""
    decision = decide(WHOLE, 200, {"Content-Length": str(LARGE), **headers})

    assert isinstance(decision, ResponseBody)
    assert PartMetadata(LARGE, validator) == decision.metadata
