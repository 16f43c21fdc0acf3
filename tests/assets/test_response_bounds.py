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

MAX_BYTES = 1_000_000
LARGE = 500_000
WHOLE = RangeRequest()
REST = RangeRequest(100, PartMetadata(LARGE, '"v1"'))


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


@pytest.mark.parametrize(
    ("status", "failure_class"),
    [
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
        {"Content-Length": str(MAX_BYTES + 1)},
        {"Content-Length": "0"},
    ],
)
def test_bodies_that_are_not_assets(headers: Mapping[str, str]) -> None:
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
