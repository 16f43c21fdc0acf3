"""Durations that are learned from looks, and how late and how often a simulated run then looks."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.polling import Durations, next_poll_s
from runner.core.settings import PollPolicy

TASKS, SLOTS, SUBMIT_S = 200, 8, 1.0
POLICY = PollPolicy()


def simulate(
    durations_s: list[float],
    wait: Callable[[float, int], float],
    learn: Callable[[float, float], None] = lambda above_s, up_to_s: None,
) -> tuple[float, float]:
    """
    Run tasks in a few slots, each freed only when a poll shows the task's end.

    Args:
        wait: Returns the wait before the next poll of a task, by its age and its polls so far.
        learn: Gets the ages between which each task ended.

    Returns:
        When the last task was seen to end, and the mean delay between an end and the poll that showed it.
    """
    polls: list[tuple[float, int, float, int, float]] = []
    delays, left, submit_at, now = [], iter(enumerate(durations_s)), 0.0, 0.0

    def start() -> None:
        nonlocal submit_at
        for index, _ in left:
            began_at = max(now, submit_at)
            submit_at = began_at + SUBMIT_S
            heapq.heappush(polls, (began_at + wait(0.0, 0), index, began_at, 1, 0.0))
            return

    for _ in range(SLOTS):
        start()
    while polls:
        now, index, began_at, count, seen_running_s = heapq.heappop(polls)
        age_s = now - began_at
        if age_s >= durations_s[index]:
            delays.append(age_s - durations_s[index])
            learn(seen_running_s, age_s)
            start()
        else:
            heapq.heappush(polls, (now + wait(age_s, count), index, began_at, count + 1, age_s))
    return now, mean(delays)


def best_fixed(durations_s: list[float]) -> float:
    """Return the shortest makespan of any fixed interval that the settings allow, after the same first wait."""
    intervals_s = (15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0)
    return min(simulate(durations_s, partial(_fixed_wait, interval_s))[0] for interval_s in intervals_s)


def _fixed_wait(interval_s: float, _age_s: float, polls: int) -> float:
    return interval_s if polls else POLICY.first_s


SPREADS: dict[str, Callable[[Random], float]] = {
    "narrow": lambda random: random.uniform(0.9, 1.1),
    "wide": lambda random: random.lognormvariate(-0.045, 0.3),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("typical_s", [5.0, 8.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0])
def test_tasks_are_seen_soon_after_they_end(typical_s: float, spread: str) -> None:
    """
    Tasks of 5 to 300 s: at most 15 % of the duration or one interval late, and no more than 10 % slower than the best
    fixed interval.
    """
    random = Random(1)
    durations_s = [typical_s * SPREADS[spread](random) for _ in range(TASKS)]
    learned = Durations()

    def wait(age_s: float, polls: int) -> float:
        return next_poll_s(POLICY, polls=polls, age_s=age_s, draw=random.random(), durations=learned)

    makespan_s, delay_s = simulate(durations_s, wait, learned.add)

    assert delay_s <= max(0.15 * typical_s, POLICY.interval_s)
    assert makespan_s <= 1.1 * best_fixed(durations_s)


def test_late_looks_do_not_make_later_ones_later() -> None:
    """
    Tasks of 8 s that were first seen after a minute are soon polled earlier, and the estimate comes down.
    """
    random, learned, ages = Random(3), Durations(), []
    for _ in range(10):
        learned.add(0.0, 60.0)
    for _ in range(200):
        age_s, above_s, polls = 0.0, 0.0, 0
        while age_s < 8.0:
            above_s = age_s
            age_s += next_poll_s(POLICY, polls=polls, age_s=age_s, draw=random.random(), durations=learned)
            polls += 1
        learned.add(above_s, age_s)
        ages.append(age_s)

    assert mean(ages[-50:]) < 15.0
    assert learned.mean_s < 15.0


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 5000)), min_size=1, max_size=30))
def test_weights_add_up(seen: list[tuple[float, float]]) -> None:
    """
    Whatever is seen, the mean lies between the shortest and the longest that is possible.
    """
    learned = Durations()
    for above_s, more_s in seen:
        learned.add(above_s, above_s + more_s)

    shortest_s, longest_s = min(above for above, _ in seen), max(above + more for above, more in seen)
    assert 0.9 * min(shortest_s, 1.0) - 0.1 <= learned.mean_s <= 1.1 * max(longest_s, 1.0) + 0.1


def test_few_tasks_tell_nothing() -> None:
    """
    A few tasks are not enough to aim at, and nothing is known about tasks that outlive all others.
    """
    learned = Durations()
    for count in range(8):
        found = learned.best_wait_s(0.0, min_s=10.0, max_s=60.0, interval_s=15.0)
        assert (found is None) == (count < 5)
        learned.add(20.0, 35.0)

    assert learned.best_wait_s(200.0, min_s=15.0, max_s=60.0, interval_s=15.0) is None
    assert learned.best_wait_s(200.0, min_s=0.001, max_s=0.002, interval_s=0.001) is None


@pytest.mark.parametrize("between", [17_400, 17_900, 18_200, 20_000])
def test_what_was_long_ago_is_forgotten(between: int) -> None:
    """A slow task after many quick ones counts, however little is left of the weight of the one before it."""
    durations = Durations()
    durations.add(900.0, 1000.0)
    for _ in range(between):
        durations.add(0.0, 1.0)

    for _ in range(5):
        durations.add(900.0, 1000.0)

    wait_s = durations.best_wait_s(800.0, min_s=1.0, max_s=600.0, interval_s=5.0)
    assert wait_s is not None
    assert 100.0 < wait_s < 200.0


def test_tasks_of_days() -> None:
    """
    What takes longer than the longest duration that is told apart counts as that.
    """
    learned = Durations()
    learned.add(100_000.0, 200_000.0)

    assert learned.mean_s > 11 * 3600
