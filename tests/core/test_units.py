"""Durations, rates and sizes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.units import (
    exact_duration,
    exact_rate,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("10s", 10), ("1.5m", 90), ("1h", 3600), (".5d", 43200), (" 2 h ", 7200), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    """Every unit means what its letters say."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "per_s"), [("2/s", 2), ("60/min", 1), ("1800/h", 0.5), ("0.5 / s", 0.5), ("90/min", 1.5)]
)
def test_rates(text: str, per_s: float) -> None:
    """Rates are so many a second, whatever they were written as."""
    assert parse_rate(text) == per_s


@pytest.mark.parametrize(
    ("text", "size"),
    [("5B", 5), ("1kB", 1000), ("1KB", 1000), ("4GB", 4 * 10**9), ("1.5MiB", 1572864), ("1TiB", 2**40)],
)
def test_sizes(text: str, size: int) -> None:
    """Decimal units count by thousands and binary ones by 1,024; capitals don't matter."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["60", "", "s", "5 sec", "1h30m", "-5s", "1e3s", "10/s", "inf", "nan s", "٣s", "5s\n6s"]
)
def test_what_is_not_a_duration(text: str) -> None:
    """A duration that can be misread is refused, and the message says how to write one."""
    with pytest.raises(ValueError, match="write a number and ms, s, m, h or d"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["60", "60 per minute", "60/m", "0/s", "0.0/min", "-1/s", "/s", "10s"])
def test_what_is_not_a_rate(text: str) -> None:
    """A rate that can be misread, or would stop everything, is refused."""
    with pytest.raises(ValueError, match=re.escape("write a number and /s, /min or /h")):
        parse_rate(text)


@pytest.mark.parametrize("text", ["4", "4G", "four GB", "4GB/s", "-1kB"])
def test_what_is_not_a_size(text: str) -> None:
    """A size without a unit is refused."""
    with pytest.raises(ValueError, match="write a number and kB"):
        parse_size(text)


def test_a_plain_number_is_told_what_it_lacks() -> None:
    """The commonest mistake has a message of its own."""
    with pytest.raises(ValueError, match="'60' has no unit"):
        parse_duration("60")


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_keeps_its_two_largest_units(seconds: float) -> None:
    """What people are shown is right to a twentieth, and never such as 60m."""
    shown = format_duration(seconds)

    parts = [parse_duration(part) for part in shown.split()]
    assert sum(parts) == pytest.approx(seconds, rel=0.05, abs=0.001)
    assert all(part not in shown.split() for part in ("60s", "60m", "24h", "1000ms"))


@given(st.floats(min_value=0.001, max_value=1e6))
def test_a_rate_is_shown_as_it_is_written(per_s: float) -> None:
    """A shown rate can be written into a manifest, and is the same to three figures."""
    assert parse_rate(format_rate(per_s)) == pytest.approx(per_s, rel=0.005)


@given(st.integers(min_value=0, max_value=10**15))
def test_a_size_is_shown_as_it_is_written(size: int) -> None:
    """A shown size can be written into a manifest, and is the same to three figures."""
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.005)


@given(st.floats(1e-6, 1e9))
def test_exact_duration_is_read_back(seconds: float) -> None:
    """What is written into a manifest is the duration itself, to the microsecond."""
    assert seconds == pytest.approx(parse_duration(exact_duration(seconds)), abs=1e-6, rel=1e-12)


@given(st.integers(1, 10**6), st.sampled_from(["s", "min", "h"]), st.integers(0, 3))
def test_exact_rate_is_read_back(number: int, unit: str, decimals: int) -> None:
    """A rate that people write, of up to six digits, is written into a manifest unchanged in value."""
    per_s = parse_rate(f"{number / 10**decimals}/{unit}")

    assert per_s == parse_rate(exact_rate(per_s))
