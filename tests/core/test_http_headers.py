"""Headers that carry a time, as servers write them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.retry import MAX_RETRY_AFTER_S, parse_http_date, parse_retry_after


@pytest.fixture(params=["UTC0", "EST5EDT", "IST-5:30", "LINT-14"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """
    Set the time zone of this process.
    """
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("wait_s", "headers"),
    [
        (7.0, {"retry-after": "7"}),
        (1.5, {"Retry-After": "1.5"}),
        (0.0, {"Retry-After": "-5"}),
        (MAX_RETRY_AFTER_S, {"Retry-After": "1e400"}),
        (30.0, {"Retry-After": "Thu, 01 Jan 1970 00:02:00 GMT"}),
        (0.0, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        (MAX_RETRY_AFTER_S, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}),
        (0.25, {"Retry-After-MS": "250"}),
        (2.0, {"openai-poll-after-ms": "2000", "retry-after": "1"}),
        (None, {"Retry-After": ""}),
        (None, {"Retry-After": "soon"}),
        (None, {"Retry-After": "nan"}),
        (None, {}),
    ],
)
def test_retry_after_in_every_form(wait_s: float | None, headers: dict[str, str]) -> None:
    """
    Seconds, milliseconds and dates are read, the longest counts, and the wait is bounded.
    """
    assert wait_s == parse_retry_after(headers, now_at=90.0)


@pytest.mark.parametrize("zone", ["", " GMT", " UTC", " -0000", " +0000"])
@pytest.mark.usefixtures("time_zone")
def test_date_is_never_local_time(zone: str) -> None:
    """
    A date without a zone is GMT wherever the program runs: a wait of 30 s must not become one of hours.
    """
    headers = {"Retry-After": f"Wed, 15 Jul 2026 12:00:30{zone}"}
    noon_at = 1_784_116_800.0

    assert 30.0 == parse_retry_after(headers, now_at=noon_at)
    assert noon_at + 30 == parse_http_date(headers["Retry-After"])


@given(st.text(max_size=40), st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e11))
def test_no_wait_is_absurd(value: str, now_at: float) -> None:
    """
    Any header text gives a wait between nothing and an hour, or none.
    """
    wait_s = parse_retry_after({"retry-after": value}, now_at)

    assert wait_s is None or 0 <= wait_s <= MAX_RETRY_AFTER_S
