"""
Parse durations, rates and sizes as people write them, and format them.

A number without a unit is refused: `timeout: 60` may mean seconds to one reader and minutes to the next,
and a wrong guess costs hours or money.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta

DURATION_FORMS = "a number and ms, s, m, h or d, such as 90s or 1.5h"
RATE_FORMS = "a number and /s, /min or /h, such as 60/min or 0.5/s"
CLOCK_FORMS = "a local time as HH:MM, such as 06:30"
SIZE_FORMS = "a number and kB, MB, GB or TB (or KiB, MiB, GiB, TiB), such as 4GB"

_DURATION_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE_UNITS: Mapping[str, float] = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SIZE_UNITS: Mapping[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

# Twelve digits before the point are 30,000 years in seconds: anything longer is a mistake, and could overflow.
_AMOUNT = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})\s*(/?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_duration(text: str) -> float:
    """
    Parse a duration to seconds.

    >>> parse_duration("1.5h")
    5400.0
    >>> parse_duration("250ms")
    0.25

    Raises:
        ValueError: It has no unit or an unknown one, is negative, or is not a duration.
    """
    number, slash, unit = _split(text, "duration", DURATION_FORMS)
    if slash or unit not in _DURATION_UNITS:
        raise ValueError(_unit_error(text, unit, "duration", DURATION_FORMS, tuple(_DURATION_UNITS)))
    return float(number) * _DURATION_UNITS[unit]


def parse_rate(text: str) -> float:
    """
    Parse a rate to a number per second.

    >>> parse_rate("60/min")
    1.0

    Raises:
        ValueError: It has no unit or an unknown one, is zero or negative, or is not a rate.
    """
    number, slash, unit = _split(text, "rate", RATE_FORMS)
    if not slash or unit not in _RATE_UNITS:
        units = tuple(f"/{known}" for known in _RATE_UNITS)
        raise ValueError(_unit_error(text, f"{slash}{unit}", "rate", RATE_FORMS, units))
    if float(number) == 0:
        raise ValueError(f"the rate {_quoted(text)} would never let anything through; write {RATE_FORMS}")
    return float(number) / _RATE_UNITS[unit]


def parse_size(text: str) -> int:
    """
    Parse a size to bytes. The case of the letters does not matter.

    >>> parse_size("4GB"), parse_size("1.5 MiB")
    (4000000000, 1572864)

    Raises:
        ValueError: It has no unit or an unknown one, is negative, or is not a size.
    """
    number, slash, unit = _split(text, "size", SIZE_FORMS)
    size = next((size for known, size in _SIZE_UNITS.items() if known.lower() == unit.lower()), None)
    if slash or size is None:
        raise ValueError(_unit_error(text, unit, "size", SIZE_FORMS, tuple(_SIZE_UNITS)))
    return int(float(number) * size)


def parse_speed(text: str) -> float:
    """
    Parse a speed, which is a size and ``/s``, to bytes per second.

    >>> parse_speed("10kB/s")
    10000.0

    Raises:
        ValueError: It is not a speed.
    """
    size, slash, unit = text.rpartition("/")
    if not slash or unit.strip() != "s":
        raise ValueError(f"{_quoted(text)} is not a speed; write a size and /s, such as 10kB/s")
    return float(parse_size(size))


def parse_clock(text: str) -> time:
    """
    Parse a time of day.

    >>> parse_clock("06:30")
    datetime.time(6, 30)

    Raises:
        ValueError: The text is not a time of day.
    """
    hour, colon, minute = text.partition(":")
    if not colon or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in (hour, minute)):
        raise ValueError(f"{text!r} is not a time of day; write {CLOCK_FORMS}")
    try:
        return time(int(hour), int(minute))
    except ValueError:
        raise ValueError(f"{text!r} is not a time of day; write {CLOCK_FORMS}") from None


def next_time(clock: time, now: datetime) -> datetime:
    """
    Return the next moment at which the local clock shows a time; now if it shows that very minute.

    Clock changes are taken into account: an hour that comes twice has each of its times twice.

    >>> now = datetime(2026, 11, 21, 22, 0).astimezone()
    >>> next_time(time(6, 30), now) - now
    datetime.timedelta(seconds=30600)
    """
    if (now.hour, now.minute) == (clock.hour, clock.minute):
        return now
    # A naive time is local, with the UTC offset of that day.
    times = [
        datetime.combine(now.date() + timedelta(days=days), clock.replace(fold=fold)).astimezone()
        for days in (0, 1)
        for fold in (0, 1)
    ]
    return min(then for then in times if then > now)


def format_duration(seconds: float) -> str:
    """
    Format a duration for people, with its two largest units.

    >>> [format_duration(seconds) for seconds in (0.25, 42, 100, 5400, 93600)]
    ['250ms', '42s', '1m 40s', '1h 30m', '1d 2h']
    """
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.9995:
        return f"{round(seconds * 1000)}ms" if seconds else "0s"
    if seconds < 9.95 and round(seconds, 1) != round(seconds):
        return f"{seconds:.1f}s"
    # Round to the second unit first, so that 59.9 minutes are shown as 1h, not 60m.
    for size, unit, smaller_size, smaller_unit in _DURATION_STEPS:
        rounded = round(seconds / smaller_size) * smaller_size
        if rounded >= size:
            rest = (rounded % size) // smaller_size
            return f"{rounded // size}{unit}" + (f" {rest}{smaller_unit}" if rest else "")
    return f"{round(seconds)}s"


_DURATION_STEPS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


def exact_duration(seconds: float) -> str:
    """
    Format a duration so that `parse_duration` returns it, to the microsecond.

    >>> exact_duration(3600.0), exact_duration(90.0), exact_duration(0.25), exact_duration(1e9)
    ('1h', '90s', '250ms', '1000000000s')
    """
    text = format_duration(seconds)
    if " " not in text and parse_duration(text) == seconds:
        return text
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def format_rate(per_s: float) -> str:
    """
    Format a rate for people, in the shortest unit in which it is at least 1.

    >>> [format_rate(rate) for rate in (10, 1, 0.5, 0.004)]
    ['10/s', '1/s', '30/min', '14.4/h']
    """
    for unit, seconds in _RATE_UNITS.items():
        if per_s * seconds >= 1 or unit == "h":
            return f"{_three_digits(per_s * seconds)}/{unit}"
    raise AssertionError("the last unit accepts every rate")


def format_per_minute(per_s: float) -> str:
    """
    Format a rate by the minute, for rates that are compared with each other.

    >>> [format_per_minute(rate) for rate in (20, 0.516, 0.004, 0)]
    ['1,200/min', '31/min', '0.24/min', '0/min']
    """
    per_min = per_s * 60
    return f"{round(per_min):,}/min" if per_min >= 100 else f"{_three_digits(per_min)}/min"


def exact_rate(per_s: float) -> str:
    """
    Format a rate so that `parse_rate` returns it, or is off by a millionth per hour at most.

    >>> exact_rate(0.5), exact_rate(1 / 3), exact_rate(7.12345)
    ('30/min', '20/min', '7.12345/s')
    """
    for text in (format_rate(per_s), *(f"{per_s * in_s:.6g}/{unit}" for unit, in_s in _RATE_UNITS.items())):
        number, _, unit = text.partition("/")
        if "e" not in number and float(number) / _RATE_UNITS[unit] == per_s:
            return text
    return f"{per_s * 3600:.6f}/h"


def format_size(size_bytes: int) -> str:
    """
    Format a size for people, in decimal units.

    >>> [format_size(size) for size in (0, 999, 1000, 1_048_576, 4_000_000_000)]
    ['0 B', '999 B', '1 kB', '1.05 MB', '4 GB']
    """
    for unit in ("TB", "GB", "MB", "kB"):
        amount = size_bytes / _SIZE_UNITS[unit]
        if amount >= 0.9995:
            return f"{_three_digits(amount)} {unit}"
    return f"{size_bytes} B"


def format_count(count: int, noun: str) -> str:
    """
    Write a number of things, in the plural unless it is one.

    >>> format_count(1, "job"), format_count(1200, "job"), format_count(0, "job")
    ('1 job', '1,200 jobs', '0 jobs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _split(text: str, kind: str, forms: str) -> tuple[str, str, str]:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a {kind}; write {forms}")
    number, slash, unit = match.groups()
    return number, slash, unit


def _unit_error(text: str, unit: str, kind: str, forms: str, units: tuple[str, ...]) -> str:
    if not unit:
        return f"{_quoted(text)} has no unit; write {forms}"
    return f"{unit!r} in {_quoted(text)} is not a unit of a {kind} ({', '.join(units)}); write {forms}"


def _quoted(text: str) -> str:
    """Return the text in quotes, cut to a length that any amount has."""
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _three_digits(amount: float) -> str:
    """Format with three significant digits, without zeros after the point."""
    if amount >= 100:
        return str(round(amount))
    return f"{amount:.3g}"
