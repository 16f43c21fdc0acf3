"""What people write behind options, read as values; every refusal names the allowed forms."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any

import click

SHARE_FORMS = "a number of jobs such as 20, or a share such as 5%"
CLOCK_FORMS = "a local time as HH:MM, such as 06:30"


Callback = Callable[[click.Context, click.Parameter, Any], Any]


def read_by(read: Callable[[str], Any]) -> Callback:
    """Make the callback of an option whose text a function reads; its ValueError is a usage error."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(read(text) for text in value)
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def parse_share(text: str) -> int | float:
    """
    Read a number of jobs, or a share of all of them as a number from 0 to 1.

    >>> parse_share("20"), parse_share("5%"), parse_share("0")
    (20, 0.05, 0)

    Raises:
        ValueError: It is neither.
    """
    number, is_share = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number) / 100 if is_share else int(number)
    except ValueError:
        value = -1
    if not 0 <= value or (is_share and not value <= 1):
        raise ValueError(f"{text!r} is neither a count nor a share; write {SHARE_FORMS}")
    return value


def parse_clock(text: str) -> time:
    """
    Read a time of day.

    >>> parse_clock("06:30")
    datetime.time(6, 30)

    Raises:
        ValueError: It is none.
    """
    hour, colon, minute = text.partition(":")
    if not colon or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in (hour, minute)):
        raise ValueError(f"{text!r} is not a time of day; write {CLOCK_FORMS}")
    try:
        return time(int(hour), int(minute))
    except ValueError:
        raise ValueError(f"{text!r} is not a time of day; write {CLOCK_FORMS}") from None


def seconds_until(clock: time, now: datetime) -> float:
    """
    Count the seconds until this machine's clock shows a time next; now itself is not next.

    A night on which the clocks change is an hour longer or shorter, and counted so.

    >>> seconds_until(time(6, 30), datetime(2026, 11, 21, 22, 0).astimezone())
    30600.0
    """
    for days in (0, 1):
        # Without a zone of its own, a time is taken as the machine's, by the rules of that day.
        then = datetime.combine(now.date() + timedelta(days=days), clock).astimezone()
        if then > now:
            return (then - now).total_seconds()
    raise AssertionError("tomorrow comes after today")
