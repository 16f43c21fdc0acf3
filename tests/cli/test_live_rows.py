"""The live display at 40, 80 and 200 columns: what matters is never cut, and wide terminals show more."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from rich.console import Console, Group

from runner.cli.live_display import LiveView, live_rows
from runner.core.cost import Spend
from runner.core.lifecycle import State
from runner.engine.events import DownloadProgress, Snapshot

SNAPSHOT = Snapshot(
    counts=dict.fromkeys(State, 0)
    | {
        State.SUCCEEDED: 2_000,
        State.FAILED: 71,
        State.UNCERTAIN: 3,
        State.PENDING: 2_890,
        State.SUBMITTED: 64,
        State.DOWNLOADING: 4,
    },
    downloads=(
        DownloadProgress("a-rather-long-job-name-of-a-cat-1", 2_000_000, 8_000_000),
        DownloadProgress("b", 0, None),
    ),
    downloads_waiting=7,
    in_flight=64,
    max_in_flight=64,
    submit_per_s=0.516,
    accepted_per_s=0.47,
    limited_by="lower rate after uncertain answers or an outage",
    is_stopping=False,
    seconds_left=100_000.0,
    pending_by_model={"seedance-1-0-pro-250528": 2_000, "wan2.7-i2v": 890},
    in_flight_by_model={"wan2.7-i2v": 64},
    spend=(Spend(currency="USD", settled=41_200_000_000, uncertain=3_000_000_000),),
)
VIEW = LiveView(
    "kittens",
    SNAPSHOT,
    elapsed_s=4_000,
    now=datetime(2026, 11, 21, 11, 0, tzinfo=UTC),
    ended_per_s=0.5,
    bytes=34_000_000,
    ended_by_model={"seedance-1-0-pro-250528": (12, 2)},
    failures=("job-1: failed (moderation): " + "the prompt was refused " * 6, "job-2: failed (lost): gone"),
)
ALWAYS = (
    "kittens", "1h 7m", "about 1d 4h left", "ends about Sun 14:46", "2,074 of 5,032 (41%)",
    "2,000 succeeded", "71 failed", "3 uncertain", "2,890 pending", "64 submitted (max 64)", "4 downloading",
    "submitting 28.2/min (max 31/min)", "limited by lower rate after uncertain answers or an outage",
    "finishing 30/min", "34 MB downloaded", "spent 44.20 USD, of which 3.00 uncertain",
    "2 MB of 8 MB", "and 7 more to download", "job-2: failed (lost): gone", "Ctrl-C: ",
)  # fmt: skip


def shown(view: LiveView, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height)
    with console.capture() as capture:
        console.print(Group(*live_rows(view, width=width, height=height)))
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_that_matters_is_cut(width: int) -> None:
    """Each count, rate, limit and sum is whole, on as many rows as it takes; no row is wider than the terminal."""
    lines = shown(VIEW, width, 40)
    text = " ".join(" ".join(lines).split())

    assert [] == [part for part in ALWAYS if part not in text]
    assert max(map(len, lines)) <= width
    assert ("12 finished (2 without a video), 0 in flight, 2,000 pending" in text) is (width == 200)
    assert lines[-1].startswith("Ctrl-C: ")


@pytest.mark.parametrize("height", [1, 6, 10, 23])
def test_low_terminals_keep_the_counts_and_the_key(height: int) -> None:
    """Downloads and failures make way first; never are there more rows than the terminal has."""
    lines = shown(VIEW, 80, height)

    assert len(lines) <= height
    assert lines[0].startswith("kittens  1h 7m")
    if height >= 10:
        assert lines[-1].startswith("Ctrl-C: ")


def test_one_unit_in_a_row() -> None:
    """Rates are by the minute, and what was reached over the last minute is not above what is allowed now."""
    fast = replace(SNAPSHOT, submit_per_s=20.0, accepted_per_s=30.0)

    text = " ".join(shown(replace(VIEW, snapshot=fast), 200, 40))

    assert "submitting 1,200/min (max 1,200/min)" in text
    assert "/s" not in text


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(600.0, "ends about 11:10"), (90_000.0, "ends about Sun 12:00"), (9e5, "ends about 2026-12-01")],
)
def test_the_time_of_day_when_it_ends(seconds: float, says: str) -> None:
    """Of another day with its name, of a far one with its date; none as long as nobody knows."""
    known, unknown = (replace(SNAPSHOT, seconds_left=left) for left in (seconds, None))

    assert shown(replace(VIEW, snapshot=known), 80, 40)[0].endswith(says)
    assert "kittens  1h 7m" == shown(replace(VIEW, snapshot=unknown), 80, 40)[0]


def test_the_second_ctrl_c() -> None:
    """Once it is stopping, the last row tells what another Ctrl-C does."""
    stopping = replace(SNAPSHOT, is_stopping=True)

    assert "Ctrl-C: stop now; nothing is lost" == shown(replace(VIEW, snapshot=stopping), 80, 40)[-1]
