"""The table of responses: what a server sends, what is requested in turn, and what is on disk in the end."""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from runner.assets.request import Fetched, FetchFailure, NotFetched, PartMetadata
from runner.core.settings import AssetRules, Timeouts
from tests.assets.helpers import asset_request, fetcher
from tests.assets.server import RangeHandler, Response, serving, video, video_range
from tests.media.samples import mp4, noise

SMALL = mp4(1_000)
LARGE = mp4(600_000)
OTHER = mp4(600_000, seconds=10.0)
ETAG = {"ETag": '"v1"'}
TRUNCATED = video(LARGE, close_after=400_000)
SHORT = video(LARGE, close_after=10_000)
REST = video_range(LARGE)
LEFT = LARGE[:400_000]
"""The part file of an earlier process."""


@dataclass(frozen=True)
class Case:
    """
    A series of responses.

    Attributes:
        responses: What the server sends, in turn.
        requested: What each request asks for: "all", or the "rest" after what is there.
        result: The file's bytes, or why there is none.
        message: What the failure's message contains, as a regular expression.
        part: The part file of an earlier process, and what was stored about it.
    """

    name: str
    responses: tuple[Response | RangeHandler, ...]
    requested: str
    result: bytes | FetchFailure
    message: str = ""
    part: tuple[bytes, PartMetadata | None] = (b"", None)


def typed(media_type: str) -> Response:
    return Response(200, b"<p>or {}", {"Content-Type": media_type})


def changed_rest() -> RangeHandler:
    return video_range(OTHER, headers={"ETag": '"v2"'})


WITHOUT_MOOV, SMALL_WITHOUT_MOOV = LARGE.replace(b"moov", b"free"), SMALL.replace(b"moov", b"free")
V1 = video(LARGE, headers=ETAG, close_after=400_000)
V2 = video(OTHER, headers={"ETag": '"v2"'})
DAMAGED = b"x" * 100 + LARGE[100:400_000]
FRESH = video(LARGE)


def encoded(word: str) -> dict[str, str]:
    return {"Content-Encoding": word}


GZIP = encoded("gzip")
ZEROS = LARGE[:100_000] + bytes(400_000) + LARGE[500_000:]
"""Where it breaks off, it is the same as many other files."""

CASES = [
    Case("small", (video(SMALL),), "all", SMALL),
    Case("large", (FRESH,), "all", LARGE),
    Case("chunked without a length", (video(LARGE, chunked=True),), "all", LARGE),
    Case("small, chunked", (video(SMALL, chunked=True),), "all", SMALL),
    Case("no length, ended by the connection", (video(LARGE, length=""),), "all", LARGE),
    Case("truncated, resumed by ETag", (V1, video_range(LARGE, headers=ETAG)), "all rest", LARGE),
    Case("truncated, resumed by overlap", (TRUNCATED, REST), "all rest", LARGE),
    Case("truncated, range ignored", (TRUNCATED, FRESH), "all rest", LARGE),
    Case("truncated while small", (video(SMALL, close_after=500), video(SMALL)), "all all", SMALL),
    Case(
        "truncated in its chunks", (video(LARGE, chunked=True, close_after=400_000), REST), "all rest", LARGE
    ),
    Case(
        "truncated without a length", (video(LARGE, length="", close_after=400_000), REST), "all rest", LARGE
    ),
    Case("stalled", (video(LARGE, stall_after=400_000), REST), "all rest", LARGE),
    Case("stalled before its first byte", (video(SMALL, stall_after=0), video(SMALL)), "all all", SMALL),
    Case(
        "truncated at the same place each time",
        (SHORT,) * 3,
        "all all all",
        FetchFailure.EXHAUSTED,
        "before the end of the response",
    ),
    Case("changed, the server says so", (V1, V2), "all rest", OTHER),
    Case("changed, If-Range is ignored", (V1, changed_rest(), V2), "all rest all", OTHER),
    Case(
        "changed, only the bytes show it",
        (TRUNCATED, video_range(noise(len(LARGE), 2)), V2),
        "all rest all",
        OTHER,
    ),
    Case(
        "changed, the length shows it",
        (TRUNCATED, video_range(LARGE, total=len(LARGE) + 1), V2),
        "all rest all",
        OTHER,
    ),
    Case(
        "another range than requested", (TRUNCATED, video_range(LARGE, shift=1), FRESH), "all rest all", LARGE
    ),
    Case("a range without Content-Range", (TRUNCATED, Response(206, LARGE), FRESH), "all rest all", LARGE),
    Case(
        "416",
        (TRUNCATED, Response(416, headers={"Content-Range": "bytes */9"}), FRESH),
        "all rest all",
        LARGE,
    ),
    Case("416 without a range", (Response(416),), "all", FetchFailure.EXPIRED, "returned HTTP 416"),
    Case("206 without a range", (Response(206, LARGE), FRESH), "all all", LARGE),
    Case("a part of the rest", (TRUNCATED, video_range(LARGE, last=550_000), REST), "all rest rest", LARGE),
    Case("resumed by another process", (REST,), "rest", LARGE, part=(LEFT, PartMetadata(len(LARGE), '"v1"'))),
    Case("resumed, neither length nor validator known", (REST,), "rest", LARGE, part=(LEFT, PartMetadata())),
    Case("a part without metadata", (FRESH,), "all", LARGE, part=(LARGE + LEFT, None)),
    Case("complete already", (), "", LARGE, part=(LARGE, PartMetadata(len(LARGE)))),
    Case("complete and damaged", (FRESH,), "all", LARGE, part=(b"x" * len(LARGE), PartMetadata(len(LARGE)))),
    Case("longer than declared", (FRESH,), "all", LARGE, part=(LARGE + b"x", PartMetadata(len(LARGE)))),
    Case("damaged before the overlap", (REST, FRESH), "rest all", LARGE, part=(DAMAGED, PartMetadata())),
    Case("503, 429, then the file", (Response(503), Response(429), video(SMALL)), "all all all", SMALL),
    Case("500 each time", (Response(500),) * 3, "all all all", FetchFailure.EXHAUSTED, "returned HTTP 500"),
    Case("closed without a body", (video(SMALL, close_after=0, length=""), video(SMALL)), "all all", SMALL),
    Case(
        "expired",
        (Response(403, b"<Error>Request has expired"),),
        "all",
        FetchFailure.EXPIRED,
        "returned HTTP 403",
    ),
    Case(
        "expired in the middle",
        (TRUNCATED, Response(403)),
        "all rest",
        FetchFailure.EXPIRED,
        "returned HTTP 403",
    ),
    Case("unknown", (Response(404),), "all", FetchFailure.EXPIRED, "returned HTTP 404"),
    Case("gone", (Response(410),), "all", FetchFailure.EXPIRED, "returned HTTP 410"),
    Case("web page", (typed("text/html; charset=utf-8"),), "all", FetchFailure.INVALID, "sent text/html"),
    Case("JSON", (typed("application/json"),), "all", FetchFailure.INVALID, "sent application/json"),
    Case("empty", (video(b""),), "all", FetchFailure.INVALID, "empty"),
    Case("empty, chunked", (video(b"", chunked=True),), "all", FetchFailure.INVALID, "is empty"),
    Case("small without moov", (video(SMALL_WITHOUT_MOOV),), "all", FetchFailure.INVALID, "has no moov box"),
    Case("large without moov", (video(WITHOUT_MOOV),), "all", FetchFailure.INVALID, "has no moov box"),
    Case("gzip", (video(gzip.compress(SMALL), headers=GZIP),), "all", SMALL),
    Case("gzip, large", (video(gzip.compress(LARGE), headers=GZIP),), "all", LARGE),
    Case("deflate", (video(zlib.compress(SMALL), headers=encoded("deflate")),), "all", SMALL),
    Case("gzip in name only", (video(SMALL, headers=GZIP),), "all", SMALL),
    Case(
        "gzip, truncated",
        (video(gzip.compress(LARGE), headers=GZIP, close_after=400_000), FRESH),
        "all rest",
        LARGE,
    ),
    Case(
        "gzip, ended by the connection too early",
        (video(gzip.compress(LARGE), headers=GZIP, close_after=400_000, length=""), FRESH),
        "all rest",
        LARGE,
    ),
    Case(
        "gzip, damaged",
        (video(gzip.compress(SMALL)[:10] + b"\xff" * 9000, headers=GZIP),),
        "all",
        FetchFailure.INVALID,
        "compressed, and damaged",
    ),
    Case(
        "gzip bomb",
        (video(gzip.compress(bytes(20_000_000)), headers=GZIP),),
        "all",
        FetchFailure.INVALID,
        "more than",
    ),
    Case(
        "the rest, compressed",
        (TRUNCATED, video_range(LARGE, headers=GZIP), FRESH),
        "all rest all",
        LARGE,
    ),
    Case("brotli", (video(SMALL, headers=encoded("br")),), "all", FetchFailure.INVALID, "compressed"),
    *(
        Case(f"encoding {word}", (video(SMALL, headers=encoded(word)),), "all", SMALL)
        for word in ("aws-chunked", "utf-8", "binary", "identity", "")
    ),
    *(
        Case(f"{len(padding)} bytes behind the last box", (video(SMALL + padding),), "all", SMALL + padding)
        for padding in (b"\n", bytes(4), bytes(64), b"\r\n--boundary--\r\n")
    ),
    Case("large, with padding", (video(LARGE + bytes(64)),), "all", LARGE + bytes(64)),
    Case("headers of 60 KB", (video(SMALL, headers={"Set-Cookie": "x" * 60_000}),), "all", SMALL),
    Case(
        "zeros at the seam",
        (video(ZEROS, close_after=400_000), video(ZEROS)),
        "all all",
        ZEROS,
    ),
    Case(
        "1 TB declared",
        (video(b"x", length=str(10**12), close_after=1),),
        "all",
        FetchFailure.INVALID,
        "declares 10{12} bytes",
    ),
    Case(
        "past the limit",
        (video(bytes(10_000_001), chunked=True),),
        "all",
        FetchFailure.INVALID,
        "more than",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_responses(case: Case, tmp_path: Path) -> None:
    """Every series of responses ends in the complete file, or in a reason to act on."""
    leftover, metadata = case.part
    part = tmp_path / "assets" / "sky.mp4.part"
    if leftover:
        part.parent.mkdir()
        part.write_bytes(leftover)

    async with serving(*case.responses) as server, fetcher() as fetch:
        result = await fetch.fetch(
            asset_request(server.url("/a.mp4?X-Signature=s3cret"), tmp_path, metadata=metadata)
        )

    assert case.requested == " ".join("rest" if request.offset else "all" for request in server.requests)
    if isinstance(case.result, bytes):
        assert isinstance(result, Fetched), result
        assert case.result == part.read_bytes()
        assert sha256(case.result).hexdigest() == result.sha256
        assert len(case.result) == result.bytes
    else:
        assert isinstance(result, NotFetched)
        assert case.result is result.reason
        assert "s3cret" not in repr(result)
        assert re.search(case.message, result.failure.message)
        assert not (tmp_path / "assets" / "sky.mp4").exists()


async def test_a_head_may_take_longer_than_a_connection(tmp_path: Path) -> None:
    """The limit of time of a request has room for both, however long each of them may take."""
    timeouts = Timeouts(connect_s=5.0, stall_s=60.0)
    async with serving(video(SMALL)) as server, fetcher(timeouts=timeouts) as fetch:
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, Fetched)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("spare_bytes", "is_allowed"), [(0, True), (-1, False)])
async def test_max_size_is_inclusive(
    chunked: bool, spare_bytes: int, is_allowed: bool, tmp_path: Path
) -> None:
    """A file of exactly assets.max_size is downloaded, and one with a byte more is not."""
    rules = AssetRules(max_bytes=len(LARGE) + spare_bytes)
    async with serving(video(LARGE, chunked=chunked)) as server, fetcher(rules=rules) as fetch:
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert is_allowed == isinstance(result, Fetched)
