"""The pace of requests: exact limits, and how well it uses gateways that say only "less"."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.pacing import Pacer, RateSource
from tests.core.simulated_gateways import (
    ChangingLimit,
    FixedWindow,
    Gateway,
    RandomRefusals,
    SporadicRefusals,
    TokenBucket,
    simulate,
)

EVENTS = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from(["send", "send", "send", "accepted", "throttled", "freeze"])),
    max_size=80,
)


@given(st.floats(0.01, 20), st.none() | st.floats(0.001, 40), EVENTS)
def test_any_window_holds_the_rate(
    rate: float, learned: float | None, events: list[tuple[float, str]]
) -> None:
    """
    Over any time never more requests than rate times time plus one, whatever the answers are; a 429 never speeds up.
    """
    pacer, now, sent = Pacer(rate, learned_per_s=learned), 0.0, []
    for after_s, event in events:
        now += after_s
        match event:
            case "send":
                if pacer.opens_at <= now:
                    pacer.record_sent(now)
                    sent.append(now)
            case "accepted":
                pacer.record_accepted(now, 0.1)
            case "throttled":
                before = pacer.per_s
                pacer.record_throttled(now, sent_at=now, retry_after_s=0.5)
                assert pacer.per_s <= before
                assert pacer.opens_at >= now + 0.5
            case "freeze":
                pacer.freeze_growth(now)

    assert 0 < pacer.per_s <= rate
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            assert last - first + 1 <= rate * (sent[last] - sent[first]) + 1 + 1e-6


def test_late_timers_cost_no_rate() -> None:
    """
    At high rates a timer that fires 2 ms late every time costs almost nothing.
    """
    pacer, now = Pacer(500.0), 0.0
    for _ in range(1000):
        now = max(pacer.opens_at, now) + 0.002
        pacer.record_sent(now)

    assert pytest.approx(500, rel=0.01) == 1000 / now


def test_one_cut_for_a_burst() -> None:
    """
    Ten unanswered requests that are all refused cut the rate once.
    """
    pacer = Pacer(10.0)
    for n in range(30):
        pacer.record_accepted(n / 10, 0.1)
    pacer.record_throttled(3.0, sent_at=2.9)
    after_one = pacer.per_s
    for _ in range(9):
        pacer.record_throttled(3.05, sent_at=2.95)

    assert pytest.approx(9.5) == after_one
    assert after_one == pacer.per_s


def test_retry_after_is_a_minimum() -> None:
    """
    Nothing is sent before the wait that the server asks for is over.
    """
    pacer = Pacer(10.0)
    pacer.record_throttled(5.0, sent_at=4.0, retry_after_s=7.0)

    assert 12.0 == pacer.opens_at
    assert pacer.limited_by(6.0) is RateSource.PAUSED
    assert pacer.limited_by(12.0) is RateSource.LEARNED


def test_refusals_in_a_row_pause_instead_of_cutting() -> None:
    """
    While a window is closed the rate remains, and the pauses grow up to a maximum.
    """
    pacer, now, pauses, rates = Pacer(1.0), 0.0, [], set()
    for _ in range(12):
        now = max(pacer.opens_at, now)
        pacer.record_sent(now)
        pacer.record_throttled(now, sent_at=now)
        pauses.append(pacer.opens_at - now)
        rates.add(pacer.per_s)

    assert {0.5} == rates
    assert sorted(pauses) == pauses
    assert 15.0 == pauses[-1]


def test_overload_stops_growth() -> None:
    """
    A 503, or answers that become slower, stop the growth of the rate.
    """
    frozen, slowed, growing = (Pacer(10.0, learned_per_s=5.0) for _ in range(3))
    frozen.freeze_growth(0.0)
    for n in range(50):
        frozen.record_accepted(n / 10, 0.1)
        growing.record_accepted(n / 10, 0.1)
        slowed.record_accepted(n / 10, 0.1 if n < 10 else 1.0)

    assert 5.0 == frozen.per_s
    assert 5.0 < slowed.per_s < growing.per_s


def test_next_run_starts_with_the_learned_rate() -> None:
    """
    The rate that was refused last is passed on; a pacer without refusals has learned nothing.
    """
    pacer, refused_per_s = Pacer(10.0), 10.0
    assert pacer.learned_per_s is None

    for n in range(6):
        refused_per_s = pacer.per_s
        pacer.record_throttled(3.0 * n, sent_at=3.0 * n - 0.5)
        pacer.record_throttled(3.0 * n, sent_at=3.0 * n - 0.4)
        pacer.record_accepted(3.0 * n + 1, 0.1)
    learned = pacer.learned_per_s

    assert refused_per_s == learned
    assert 10.0 > refused_per_s > pacer.per_s
    assert learned == Pacer(10.0, learned_per_s=learned).per_s
    assert learned / 2 == Pacer(learned / 2, learned_per_s=learned).per_s


def test_runs_that_end_early_do_not_become_slower_each_time() -> None:
    """
    A hundred runs of two jobs, each with a refusal and an uncertain job at its start, begin at the configured rate.
    """
    learned = None
    for _ in range(100):
        pacer = Pacer(10.0, learned_per_s=learned)
        pacer.record_throttled(1.0, sent_at=0.5)
        pacer.record_uncertain(2.0, sent_at=1.5)
        pacer.record_accepted(3.0, 0.1)
        learned = pacer.learned_per_s

    assert learned is None


@pytest.mark.parametrize(("accepted", "cut"), [(0, 0.5), (1, 0.5), (9, 0.1), (19, 0.05), (1000, 0.05)])
def test_a_refusal_is_weighted_by_what_was_accepted(accepted: int, cut: float) -> None:
    """
    A 429 cuts the rate by its share of the answers since the last one, within limits.
    """
    pacer = Pacer(10.0)
    for n in range(accepted):
        pacer.record_accepted(n / 10, 0.1)
    pacer.record_throttled(accepted / 10, sent_at=accepted / 10 - 0.1)

    assert pytest.approx(10 * (1 - cut)) == pacer.per_s


def test_isolated_refusals_cost_little() -> None:
    """
    After eight 429s with some answers between them most of a learned rate remains, and it soon recovers.
    """
    pacer, now = Pacer(100.0, learned_per_s=40.0), 0.0
    for _ in range(8):
        now = accept(pacer, now, 19)
        pacer.record_throttled(now, sent_at=now - 0.01)
    after_the_last = pacer.per_s
    accept(pacer, now, 100)

    assert after_the_last > 30
    assert pacer.per_s > 36


def test_recovery_is_fast_then_slow_then_fast() -> None:
    """
    Half of a cut is recovered after a fifth of the answers; above the refused rate growth is fast again.
    """
    pacer = Pacer(100.0, learned_per_s=40.0)
    pacer.record_throttled(0.0, sent_at=-0.1)
    rates = [pacer.per_s]
    for _ in range(8):
        accept(pacer, 0.0, 15)
        rates.append(pacer.per_s)

    assert pytest.approx([20.0, 31.6, 37.5, 39.7, 40.0, 40.3, 42.5, 48.4, 60.0], abs=0.1) == rates


def accept(pacer: Pacer, now: float, count: int) -> float:
    """Accept so many requests, one after the other at the pacer's rate; return the time after them."""
    for _ in range(count):
        now += 1 / pacer.per_s
        pacer.record_accepted(now, 0.1)
    return now


GATEWAYS: dict[str, Callable[[float], Gateway]] = {
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
def test_most_of_what_is_allowed_is_used(gateway: str, rate: float, times: float) -> None:
    """
    After half a minute, whatever rate is configured: nearly all that the gateway allows is used, with few refusals.
    """
    # The fewer requests a second, the longer it takes to learn from them.
    until = 30.0 + max(240.0, 300.0 / rate)
    result = simulate(Pacer(rate * times), GATEWAYS[gateway](rate), until=until)

    assert result.accepted / (until - 30.0) >= 0.88 * rate
    assert result.throttled_share < 0.05


def test_a_window_of_a_minute() -> None:
    """
    A limit per minute that is used up in seconds is found too, within some minutes.
    """
    result = simulate(Pacer(10.0), FixedWindow(1.0, 60.0), until=1830.0, skip_s=600.0)

    assert result.accepted / 1230.0 >= 0.9
    assert result.throttled_share < 0.05


def test_a_limit_that_rises_is_followed() -> None:
    """
    A lower limit of the past does not limit the rate forever.
    """
    pacer = Pacer(10.0, learned_per_s=1.0)
    result = simulate(pacer, TokenBucket(10.0, 10.0), until=600.0)

    assert 10.0 == pacer.per_s
    assert 0 == result.throttled


@pytest.mark.parametrize("every_s", [3.0, 10.0])
@pytest.mark.parametrize(
    ("allowed_per_s", "configured_per_s", "burst"), [(40.0, 40.0, 1e6), (20.0, 100.0, 20.0)]
)
def test_sporadic_refusals_cost_little(
    allowed_per_s: float, configured_per_s: float, burst: float, every_s: float
) -> None:
    """
    A gateway that refuses one request every few seconds, because others share its limit, is used nearly in full.
    """
    gateway = SporadicRefusals(TokenBucket(allowed_per_s, burst), every_s)
    result = simulate(Pacer(configured_per_s), gateway, until=330.0)

    assert result.accepted / 300.0 >= 0.92 * allowed_per_s
    assert result.throttled_share < 0.03


def test_sporadic_refusals_of_an_idle_run_leave_the_rate() -> None:
    """
    A run that sends little, because its tasks are slow, keeps its rate for the time when it may send more.
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
def test_a_limit_that_changes_is_found_again(before_per_s: float, after_per_s: float, used: float) -> None:
    """
    A limit that falls or rises during a run is followed, without many refusals.
    """
    gateway = ChangingLimit(
        TokenBucket(before_per_s, before_per_s), TokenBucket(after_per_s, after_per_s), 120.0
    )
    result = simulate(Pacer(100.0), gateway, until=420.0, skip_s=120.0)

    assert result.accepted / 300.0 >= used * after_per_s
    assert result.throttled_share < 0.05


def random_refusals(seed: int, *, share: float = 0.1, bucket: TokenBucket | None = None) -> RandomRefusals:
    """Return a gateway that refuses at random, and allows any rate unless it has a bucket."""
    return RandomRefusals(bucket or TokenBucket(1e6, 1e6), share, Random(seed))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [1.0, 7.4, 50.0])
def test_refusals_at_any_rate_do_not_slow_down(rate: float, seed: int) -> None:
    """
    Of 5,000 requests a tenth is refused at random: the rate remains near the configured one.
    """
    result = simulate(Pacer(rate), random_refusals(seed), until=5000 / rate, skip_s=200 / rate)

    assert result.accepted + result.throttled > 0.8 * 4800


@pytest.mark.parametrize("seed", range(2))
def test_refusals_at_any_rate_and_a_limit(seed: int) -> None:
    """
    Where a limit refuses as well, the rate is that of the limit.
    """
    gateway = random_refusals(seed, bucket=TokenBucket(20.0, 20.0))
    result = simulate(Pacer(60.0), gateway, until=430.0)

    assert result.accepted / 400.0 > 0.6 * 20.0
    assert result.throttled_share < 0.35


@pytest.mark.parametrize("jobs", [30, 60])
@pytest.mark.parametrize("seed", range(3))
def test_short_runs_do_not_pass_on_a_rate_that_was_cut_for_nothing(jobs: int, seed: int) -> None:
    """
    Each run is too short to find that refusals come at any rate, but fifteen of them do not become slower and slower.
    """
    gateway, learned = random_refusals(seed), None
    for _ in range(15):
        pacer = Pacer(1.0, learned_per_s=learned)
        simulate(pacer, gateway, until=float(jobs))
        learned = pacer.learned_per_s

    assert (learned or 1.0) > 0.7


def test_limit_that_takes_the_place_of_refusals_at_any_rate_is_found() -> None:
    """
    After many requests of which a tenth was refused at random, a limit of a fifth of the rate is found as usual.
    """
    gateway = ChangingLimit(random_refusals(1), TokenBucket(10.0, 10.0), 60.0)
    result = simulate(Pacer(50.0), gateway, until=360.0, skip_s=60.0)

    assert result.accepted / 300.0 > 0.9 * 10.0
    assert result.throttled_share < 0.1
