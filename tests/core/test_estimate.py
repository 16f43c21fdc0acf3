"""How long a run will take, and which limit decides that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.estimate import LEARNED_RATE, estimate_duration
from runner.core.settings import Limits, ModelLimits

COUNTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 10_000), max_size=3)
LIMITS = st.builds(
    Limits,
    submit_per_s=st.floats(0.01, 100),
    poll_per_s=st.floats(0.01, 100),
    in_flight=st.integers(1, 500),
)


@pytest.mark.parametrize(
    ("limits", "means", "limited_by"),
    [
        ({"submit_per_s": 1.0, "in_flight": 500}, {}, "limits.submit 1/s"),
        ({"submit_per_s": 10.0, "poll_per_s": 1.0, "in_flight": 500}, {}, "limits.poll 1/s"),
        ({"submit_per_s": 10.0, "in_flight": 2}, {}, "limits.in_flight 2"),
        ({"submit_per_s": 10.0, "in_flight": 90}, {"a": 60.0}, "limits.in_flight 90"),
        ({"models": {"a": ModelLimits(in_flight=1)}}, {}, "limits.models.a.in_flight 1"),
        ({"models": {"a": ModelLimits(submit_per_s=0.1)}}, {"a": 1.0}, "limits.models.a.submit 6/min"),
    ],
)
def test_limit_that_decides_is_named(
    limits: dict[str, Any], means: dict[str, float], limited_by: str
) -> None:
    """
    Each limit is named where it is the one that decides, also before any duration is known.
    """
    assert limited_by == estimate_duration({"a": 200}, Limits(**limits), means, first_poll_s=10.0).limited_by


@given(COUNTS, st.integers(0, 100), LIMITS, st.floats(0, 60))
def test_nothing_is_known_without_durations(
    pending: dict[str, int], in_flight: int, limits: Limits, first_poll_s: float
) -> None:
    """
    As long as no task has ended there is nothing to show, unless nothing is left.
    """
    estimate = estimate_duration(pending, limits, {}, first_poll_s=first_poll_s, in_flight=in_flight)

    assert (not any(pending.values()) and not in_flight) == estimate.is_known
    assert (estimate.seconds if estimate.is_known else None) == estimate.known_s


@given(COUNTS, st.integers(0, 100), LIMITS, st.floats(0.1, 600), st.floats(0, 4000))
def test_estimates_are_never_below_what_must_happen(
    pending: dict[str, int], in_flight: int, limits: Limits, task_s: float, wait_s: float
) -> None:
    """
    With something left it takes a task's time at least; and a wait before the next submission counts in full.
    """
    estimate = estimate_duration(pending, limits, {"a": task_s}, in_flight=in_flight, wait_s=wait_s)
    total = sum(pending.values())

    assert estimate.seconds >= (task_s if total or in_flight else 0.0)
    assert estimate.seconds >= total / limits.submit_per_s + (wait_s if total else 0.0) - 1e-6


def test_rate_that_is_reached_tells_more_than_the_limits() -> None:
    """
    Once jobs end, the rate at which they do decides.
    """
    estimate = estimate_duration({"a": 90}, Limits(), {}, in_flight=10, finished_per_s=0.5)

    assert (200.0, True) == (estimate.seconds, estimate.is_known)


def test_learned_rates_lower_the_limits() -> None:
    """
    What was learned counts for the run and for each model, never raises a rate, and is not called the manifest's.
    """
    limits = Limits(submit_per_s=2.0, models={"a": ModelLimits(submit_per_s=1.0)})

    def limited(**jobs: int) -> tuple[float, str]:
        estimate = estimate_duration(jobs, limits, {}, learned={"": 0.5, "a": 0.1})
        return estimate.seconds, estimate.limited_by

    assert (20.0, f"{LEARNED_RATE} (30/min of limits.submit 2/s)") == limited(b=10)
    assert (100.0, f"{LEARNED_RATE} (6/min of limits.models.a.submit 1/s)") == limited(a=10)
    assert "limits.submit 2/s" == estimate_duration({"b": 10}, limits, {}, learned={"": 9.0}).limited_by
