"""The rate after answers that leave jobs uncertain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.congestion import UncertainBackoff
from runner.core.pacing import Pacer

EVENTS = st.lists(
    st.tuples(st.floats(0, 30), st.sampled_from(["accepted", "doubtful", "outage"])), max_size=100
)


@given(st.floats(0.01, 50), EVENTS)
def test_rate_stays_within_bounds(configured_per_s: float, events: list[tuple[float, str]]) -> None:
    """
    The rate is never above the configured one and never 0; doubt and an outage never raise it, accepted jobs never lower it.
    """
    brake, now = UncertainBackoff(configured_per_s), 0.0
    for after_s, event in events:
        now += after_s
        before = brake.per_s
        match event:
            case "accepted":
                brake.record_accepted()
                assert brake.per_s >= before
            case "doubtful":
                brake.record_uncertain(now, sent_at=now, per_s=brake.per_s)
                assert brake.per_s <= before
            case "outage":
                brake.record_outage()
                assert brake.per_s <= before
        assert 0 < brake.per_s <= configured_per_s


def test_one_burst_is_one_cut() -> None:
    """
    Jobs that were sent before the rate was cut say nothing about the rate after it.
    """
    brake = UncertainBackoff(8.0)
    for answered_at in (1.0, 1.1, 1.2):
        brake.record_uncertain(answered_at, sent_at=0.9, per_s=8.0)

    assert 4.0 == brake.per_s


def test_accepted_answers_end_the_caution_of_a_pacer() -> None:
    """
    An uncertain answer halves its rate, and it becomes the configured one again.
    """
    pacer = Pacer(2.0)
    pacer.record_uncertain(5.0, sent_at=4.0)
    assert 1.0 == pacer.per_s

    for _ in range(400):
        pacer.record_accepted(6.0, 0.1)

    assert 2.0 == pacer.per_s


def answers_until(brake: UncertainBackoff, per_s: float) -> int:
    """Count the accepted answers until the rate is reached."""
    answers = 0
    while brake.per_s < per_s:
        brake.record_accepted()
        answers += 1
    return answers


def test_a_rate_that_failed_is_tried_again_more_and_more_rarely() -> None:
    """
    Each time that the same rate fails, about twice as many jobs are accepted before it is tried again.
    """
    brake, answers = UncertainBackoff(1.0), []
    for now in range(1, 5):
        brake.record_uncertain(float(now), sent_at=float(now), per_s=1.0)
        answers.append(answers_until(brake, 1.0))

    assert [pytest.approx(2 * before, rel=0.2) for before in answers[:-1]] == answers[1:]
    assert answers[0] > 60


def test_rate_is_low_after_an_outage_and_grows() -> None:
    """
    A twentieth, or one in ten seconds, and back within 150 jobs; it is not a rate that was found to be too fast.
    """
    fast, slow = UncertainBackoff(10.0), UncertainBackoff(1.0)
    for brake, low in ((fast, 0.5), (slow, 0.1)):
        brake.record_outage()
        assert low == brake.per_s

    assert (10.0, 1.0) == (fast.learned_per_s, slow.learned_per_s)
    assert answers_until(fast, 10.0) < 150


def test_next_run_starts_below_a_rate_that_failed_again_and_again() -> None:
    """One uncertain answer teaches the next run nothing, however short the run; the same rate failing twice does."""
    brake = UncertainBackoff(10.0)
    brake.record_uncertain(1.0, sent_at=0.5, per_s=4.0)
    once = brake.learned_per_s
    brake.record_uncertain(2.0, sent_at=1.5, per_s=4.0)

    assert (10.0, 2.8) == (once, pytest.approx(brake.learned_per_s))
