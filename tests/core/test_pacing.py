"""The pace of requests: exact bounds, and what it makes of gateways that say only "less"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.pacing import Pacer, RateSource
from tests.core.simulated_gateways import Changing, FixedWindow, Straying, TokenBucket, play

EVENTS = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from(["ask", "ask", "ask", "accepted", "throttled", "hold"])),
    max_size=80,
)


@given(st.floats(0.01, 20), st.none() | st.floats(0.001, 40), EVENTS)
def test_any_window_holds_the_rate(rate, learned, events):
    """
    Over any window never more than rate times time plus one, whatever the answers were; a 429 never speeds up.
    """
    pacer, now, grants = Pacer(rate, learned_per_s=learned), 0.0, []
    for after_s, event in events:
        now += after_s
        match event:
            case "ask":
                if pacer.opens_at <= now:
                    pacer.record_sent(now)
                    grants.append(now)
            case "accepted":
                pacer.record_accepted(now, 0.1)
            case "throttled":
                before = pacer.per_s
                pacer.record_throttled(now, sent_at=now, retry_after_s=0.5)
                assert pacer.per_s <= before
                assert pacer.opens_at >= now + 0.5
            case "hold":
                pacer.freeze_growth(now)

    assert 0 < pacer.per_s <= rate
    for first in range(len(grants)):
        for last in range(first, len(grants)):
            assert last - first + 1 <= rate * (grants[last] - grants[first]) + 1 + 1e-6


def test_late_timers_cost_no_rate():
    """
    At high rates a timer that rings 2 ms late every time costs next to nothing.
    """
    pacer, now = Pacer(500.0), 0.0
    for _ in range(1000):
        now = max(pacer.opens_at, now) + 0.002
        pacer.record_sent(now)

    assert 1000 / now == pytest.approx(500, rel=0.01)


def test_one_cut_for_a_burst():
    """
    Ten requests under way that are all refused say "too fast" once.
    """
    pacer = Pacer(10.0)
    for n in range(30):
        pacer.record_accepted(n / 10, 0.1)
    pacer.record_throttled(3.0, sent_at=2.9)
    after_one = pacer.per_s
    for _ in range(9):
        pacer.record_throttled(3.05, sent_at=2.95)

    assert after_one == pytest.approx(9.5)
    assert after_one == pacer.per_s


def test_retry_after_is_a_floor():
    """
    Nothing is granted before the server's wish has passed.
    """
    pacer = Pacer(10.0)
    pacer.record_throttled(5.0, sent_at=4.0, retry_after_s=7.0)

    assert pacer.opens_at == 12.0
    assert pacer.limited_by(6.0) is RateSource.PAUSED
    assert pacer.limited_by(12.0) is RateSource.LEARNED


def test_refusals_in_a_row_pause_instead_of_cutting():
    """
    While a window is closed the rate stays, and the pauses grow up to a bound.
    """
    pacer, now, pauses, rates = Pacer(1.0), 0.0, [], set()
    for _ in range(12):
        now = max(pacer.opens_at, now)
        pacer.record_sent(now)
        pacer.record_throttled(now, sent_at=now)
        pauses.append(pacer.opens_at - now)
        rates.add(pacer.per_s)

    assert rates == {0.5}
    assert pauses == sorted(pauses)
    assert pauses[-1] == 15.0


def test_trouble_holds_growth():
    """
    A 503, or answers that become slower, keep the rate from growing.
    """
    held, slowed, free = (Pacer(10.0, learned_per_s=5.0) for _ in range(3))
    held.freeze_growth(0.0)
    for n in range(50):
        held.record_accepted(n / 10, 0.1)
        free.record_accepted(n / 10, 0.1)
        slowed.record_accepted(n / 10, 0.1 if n < 10 else 1.0)

    assert held.per_s == 5.0
    assert 5.0 < slowed.per_s < free.per_s


def test_what_was_learned_starts_the_next_run():
    """
    The rate found to be allowed is handed on; an unhindered pacer has learned nothing.
    """
    pacer = Pacer(10.0)
    assert pacer.learned_per_s is None

    pacer.record_throttled(1.0, sent_at=0.5)
    learned = pacer.learned_per_s

    assert learned == 5.0
    assert Pacer(10.0, learned_per_s=learned).per_s == 5.0
    assert Pacer(2.0, learned_per_s=learned).per_s == 2.0


@pytest.mark.parametrize(("accepted", "cut"), [(0, 0.5), (1, 0.5), (9, 0.1), (19, 0.05), (1000, 0.05)])
def test_a_refusal_is_weighed_by_what_was_accepted(accepted, cut):
    """
    A 429 costs the share that it is of the answers since the last one, within bounds.
    """
    pacer = Pacer(10.0)
    for n in range(accepted):
        pacer.record_accepted(n / 10, 0.1)
    pacer.record_throttled(accepted / 10, sent_at=accepted / 10 - 0.1)

    assert pacer.per_s == pytest.approx(10 * (1 - cut))


def test_isolated_refusals_add_up_to_little():
    """
    Eight 429s with some answers between them leave most of a learned rate, and it is soon back.
    """
    pacer, now = Pacer(100.0, learned_per_s=40.0), 0.0
    for _ in range(8):
        now = answer(pacer, now, 19)
        pacer.record_throttled(now, sent_at=now - 0.01)
    after_the_last = pacer.per_s
    answer(pacer, now, 100)

    assert after_the_last > 30
    assert pacer.per_s > 36


def test_the_way_back_is_quick_then_careful_then_quick():
    """
    Half of what a cut took is back after a fifth of the way; past the refused rate growth begins anew.
    """
    pacer = Pacer(100.0, learned_per_s=40.0)
    pacer.record_throttled(0.0, sent_at=-0.1)
    rates = [pacer.per_s]
    for _ in range(8):
        answer(pacer, 0.0, 15)
        rates.append(pacer.per_s)

    assert rates == pytest.approx([20.0, 31.6, 37.5, 39.7, 40.0, 40.3, 42.5, 48.4, 60.0], abs=0.1)


def answer(pacer: Pacer, now: float, count: int) -> float:
    """Accept so many requests, one after the other at the pacer's rate; give the time after them."""
    for _ in range(count):
        now += 1 / pacer.per_s
        pacer.record_accepted(now, 0.1)
    return now


GATEWAYS = {
    "a second's bucket": lambda rate: TokenBucket(rate, max(1.0, rate)),
    "a strict bucket": lambda rate: TokenBucket(rate, max(1.0, rate / 10)),
    "no burst at all": lambda rate: TokenBucket(rate, 1.0),
    "ten seconds' bucket": lambda rate: TokenBucket(rate, 10 * rate),
    "a window of 2 s": lambda rate: FixedWindow(rate, 2.0),
    "a window of 10 s": lambda rate: FixedWindow(rate, 10.0),
}


@pytest.mark.parametrize("times", [1.2, 2.0, 10.0])
@pytest.mark.parametrize("rate", [0.5, 2.0, 10.0, 50.0])
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_most_of_what_is_allowed_is_used(gateway, rate, times):
    """
    After half a minute, however much is configured: nearly all that the gateway allows, and few refusals.
    """
    # The fewer requests a second, the longer it takes to learn something from them.
    until = 30.0 + max(240.0, 300.0 / rate)
    played = play(Pacer(rate * times), GATEWAYS[gateway](rate), until=until)

    assert played.accepted / (until - 30.0) >= 0.88 * rate
    assert played.throttled_share < 0.05


def test_a_window_of_a_minute():
    """
    So many a minute, spent in seconds, is found out too, given some minutes.
    """
    played = play(Pacer(10.0), FixedWindow(1.0, 60.0), until=1830.0, skip_s=600.0)

    assert played.accepted / 1230.0 >= 0.9
    assert played.throttled_share < 0.05


def test_a_limit_that_rises_is_followed():
    """
    A lower limit of the past does not bind for ever.
    """
    pacer = Pacer(10.0, learned_per_s=1.0)
    played = play(pacer, TokenBucket(10.0, 10.0), until=600.0)

    assert pacer.per_s == 10.0
    assert played.throttled == 0


@pytest.mark.parametrize("every_s", [3.0, 10.0])
@pytest.mark.parametrize(
    ("allowed_per_s", "configured_per_s", "burst"), [(40.0, 40.0, 1e6), (20.0, 100.0, 20.0)]
)
def test_strays_cost_little(allowed_per_s, configured_per_s, burst, every_s):
    """
    A gateway that refuses one request every few seconds, as strangers share its limit, is used nearly in full.
    """
    gateway = Straying(TokenBucket(allowed_per_s, burst), every_s)
    played = play(Pacer(configured_per_s), gateway, until=330.0)

    assert played.accepted / 300.0 >= 0.92 * allowed_per_s
    assert played.throttled_share < 0.03


def test_strays_at_rest_leave_the_rate():
    """
    A run that sends little, since its tasks are slow, keeps its pace for the time when it may send more.
    """
    pacer, now = Pacer(40.0), 0.0
    for n in range(1, 1200):
        now += 0.5
        if n % 60:
            pacer.record_accepted(now, 0.1)
        else:
            pacer.record_throttled(now, sent_at=now - 0.1)

    assert pacer.per_s > 36


@pytest.mark.parametrize(
    ("before_per_s", "after_per_s", "used"), [(40.0, 20.0, 0.98), (40.0, 5.0, 0.98), (20.0, 40.0, 0.97)]
)
def test_a_limit_that_changes_is_found_again(before_per_s, after_per_s, used):
    """
    An allowance that falls or rises in the middle of a run is followed, without many refusals.
    """
    gateway = Changing(TokenBucket(before_per_s, before_per_s), TokenBucket(after_per_s, after_per_s), 120.0)
    played = play(Pacer(100.0), gateway, until=420.0, skip_s=120.0)

    assert played.accepted / 300.0 >= used * after_per_s
    assert played.throttled_share < 0.05
