"""The table of replies: what a server says, what is asked of it in turn, and what is on disk in the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from runner.assets.request import Fetched, FetchFailure, NotFetched, PartMetadata
from tests.assets.helpers import fetcher, wish
from tests.assets.server import Answer, Follow, file, rest, serving
from tests.media.samples import mp4, noise

SMALL = mp4(1_000)
LARGE = mp4(600_000)
OTHER = mp4(600_000, seconds=10.0)
ETAG = {"ETag": '"v1"'}
CUT = file(LARGE, cut=400_000)
STUMP = file(LARGE, cut=10_000)
REST = rest(LARGE)
LEFT = LARGE[:400_000]
"""What an earlier process left."""


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        answers: What the server says, in turn.
        asked: What each request asks for: "all", or the "rest" after what is there.
        result: The file's bytes, or why there is none.
        says: What the failure's message has in it.
        part: What an earlier process left, and what was known of it.
    """

    name: str
    answers: tuple[Answer | Follow, ...]
    asked: str
    result: bytes | FetchFailure
    says: str = ""
    part: tuple[bytes, PartMetadata | None] = (b"", None)


def typed(media_type: str) -> Answer:
    return Answer(200, b"<p>or {}", {"Content-Type": media_type})


def changed(**also: object) -> Follow:
    return rest(OTHER, headers={"ETag": '"v2"'}, **also)


UNINDEXED, SMALL_UNINDEXED = LARGE.replace(b"moov", b"free"), SMALL.replace(b"moov", b"free")
V1 = file(LARGE, headers=ETAG, cut=400_000)
V2 = file(OTHER, headers={"ETag": '"v2"'})
SPOILT = b"x" * 100 + LARGE[100:400_000]
FRESH = file(LARGE)

CASES = [
    Case("small", (file(SMALL),), "all", SMALL),
    Case("large", (FRESH,), "all", LARGE),
    Case("chunked without a length", (file(LARGE, chunked=True),), "all", LARGE),
    Case("small, chunked", (file(SMALL, chunked=True),), "all", SMALL),
    Case("no length, ended by the connection", (file(LARGE, length=""),), "all", LARGE),
    Case("truncated, resumed by ETag", (V1, rest(LARGE, headers=ETAG)), "all rest", LARGE),
    Case("truncated, resumed by overlap", (CUT, REST), "all rest", LARGE),
    Case("truncated, range ignored", (CUT, FRESH), "all rest", LARGE),
    Case("truncated while small", (file(SMALL, cut=500), file(SMALL)), "all all", SMALL),
    Case("truncated in its chunks", (file(LARGE, chunked=True, cut=400_000), REST), "all rest", LARGE),
    Case("truncated without a length", (file(LARGE, length="", cut=400_000), REST), "all rest", LARGE),
    Case("stalled", (file(LARGE, stall=400_000), REST), "all rest", LARGE),
    Case("stalled before its first byte", (file(SMALL, stall=0), file(SMALL)), "all all", SMALL),
    Case(
        "cut again at the same place",
        (STUMP,) * 3,
        "all all all",
        FetchFailure.EXHAUSTED,
        "before the end of the response",
    ),
    Case("changed, the server says so", (V1, V2), "all rest", OTHER),
    Case("changed, If-Range is ignored", (V1, changed(), V2), "all rest all", OTHER),
    Case("changed, only its bytes tell", (CUT, rest(noise(len(LARGE), 2)), V2), "all rest all", OTHER),
    Case("changed, its length tells", (CUT, rest(LARGE, total=len(LARGE) + 1), V2), "all rest all", OTHER),
    Case("another range than asked for", (CUT, rest(LARGE, shift=1), FRESH), "all rest all", LARGE),
    Case("a range that says no place", (CUT, Answer(206, LARGE), FRESH), "all rest all", LARGE),
    Case("416", (CUT, Answer(416, headers={"Content-Range": "bytes */9"}), FRESH), "all rest all", LARGE),
    Case("206 without a range", (Answer(206, LARGE), FRESH), "all all", LARGE),
    Case("a part of the rest", (CUT, rest(LARGE, last=550_000), REST), "all rest rest", LARGE),
    Case("resumed by another process", (REST,), "rest", LARGE, part=(LEFT, PartMetadata(len(LARGE), '"v1"'))),
    Case("resumed, neither length nor validator known", (REST,), "rest", LARGE, part=(LEFT, PartMetadata())),
    Case("a part that nobody remembers", (FRESH,), "all", LARGE, part=(LARGE + LEFT, None)),
    Case("whole already", (), "", LARGE, part=(LARGE, PartMetadata(len(LARGE)))),
    Case(
        "long enough and damaged", (FRESH,), "all", LARGE, part=(b"x" * len(LARGE), PartMetadata(len(LARGE)))
    ),
    Case("longer than it should be", (FRESH,), "all", LARGE, part=(LARGE + b"x", PartMetadata(len(LARGE)))),
    Case("damaged before the overlap", (REST, FRESH), "rest all", LARGE, part=(SPOILT, PartMetadata())),
    Case("503, 429, then the file", (Answer(503), Answer(429), file(SMALL)), "all all all", SMALL),
    Case("500 for ever", (Answer(500),) * 3, "all all all", FetchFailure.EXHAUSTED, "answered 500"),
    Case("closed without a word", (file(SMALL, cut=0, length=""), file(SMALL)), "all all", SMALL),
    Case(
        "expired", (Answer(403, b"<Error>Request has expired"),), "all", FetchFailure.EXPIRED, "answered 403"
    ),
    Case("expired in the middle", (CUT, Answer(403)), "all rest", FetchFailure.EXPIRED, "answered 403"),
    Case("unknown", (Answer(404),), "all", FetchFailure.EXPIRED, "answered 404"),
    Case("gone", (Answer(410),), "all", FetchFailure.EXPIRED, "answered 410"),
    Case("web page", (typed("text/html; charset=utf-8"),), "all", FetchFailure.INVALID, "gave text/html"),
    Case("JSON", (typed("application/json"),), "all", FetchFailure.INVALID, "gave application/json"),
    Case("empty", (file(b""),), "all", FetchFailure.INVALID, "empty"),
    Case("empty, chunked", (file(b"", chunked=True),), "all", FetchFailure.INVALID, "is empty"),
    Case("small without an index", (file(SMALL_UNINDEXED),), "all", FetchFailure.INVALID, "has no moov box"),
    Case("large without an index", (file(UNINDEXED),), "all", FetchFailure.INVALID, "has no moov box"),
    Case(
        "gzip",
        (file(SMALL, headers={"Content-Encoding": "gzip"}),),
        "all",
        FetchFailure.INVALID,
        "compressed",
    ),
    Case(
        "1 TB declared",
        (file(b"x", length=str(10**12), cut=1),),
        "all",
        FetchFailure.INVALID,
        "declares 10{12} bytes",
    ),
    Case(
        "grown past the limit",
        (file(bytes(10_000_001), chunked=True),),
        "all",
        FetchFailure.INVALID,
        "more than",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_replies(case: Case, tmp_path: Path) -> None:
    """Every way in which a server can answer ends in the whole file, or in a reason to act on."""
    leftover, known = case.part
    part = tmp_path / "assets" / "sky.mp4.part"
    if leftover:
        part.parent.mkdir()
        part.write_bytes(leftover)

    async with serving(*case.answers) as server, fetcher() as fetch:
        result = await fetch.fetch(wish(server.url("/a.mp4?X-Signature=s3cret"), tmp_path, known=known))

    assert case.asked == " ".join("rest" if request.first else "all" for request in server.requests)
    if isinstance(case.result, bytes):
        assert isinstance(result, Fetched), result
        assert case.result == part.read_bytes()
        assert sha256(case.result).hexdigest() == result.sha256
        assert len(case.result) == result.bytes
    else:
        assert isinstance(result, NotFetched)
        assert case.result is result.reason
        assert "s3cret" not in repr(result)
        assert re.search(case.says, result.failure.message)
        assert not (tmp_path / "assets" / "sky.mp4").exists()
