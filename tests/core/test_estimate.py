"""How long jobs take within the limits: each limit alone, and whichever is the slowest."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runner.core.estimate import Estimate, estimate_duration, seconds_left
from runner.core.settings import Limits, ModelLimits

GENEROUS = Limits(submit_per_s=1000.0, in_flight=1000)


@pytest.mark.parametrize(
    ("limits", "estimate"),
    [
        (Limits(submit_per_s=0.5, in_flight=1000), Estimate(24 + 90.0, "limits.submit 30/min")),
        (Limits(submit_per_s=1000.0, in_flight=4), Estimate((8 * 30 + 4 * 90) / 4, "limits.in_flight 4")),
        (
            Limits(submit_per_s=1000.0, in_flight=1000, models={"slow": ModelLimits(submit_per_s=0.1)}),
            Estimate(40 + 90.0, "limits.models.slow.submit 6/min"),
        ),
        (
            Limits(submit_per_s=1000.0, in_flight=1000, models={"quick": ModelLimits(in_flight=2)}),
            Estimate(8 * 30 / 2, "limits.models.quick.in_flight 2"),
        ),
        (
            Limits(
                submit_per_s=1000.0,
                in_flight=1000,
                models={"quick": ModelLimits(in_flight=2), "slow": ModelLimits(submit_per_s=0.1)},
            ),
            Estimate(130.0, "limits.models.slow.submit 6/min"),
        ),
    ],
)
def test_slowest_limit_decides(limits: Limits, estimate: Estimate) -> None:
    """Rates count all jobs and then the last task; slots count the time of all tasks."""
    pending = {"quick": 8, "slow": 4, "none": 0}

    assert estimate == estimate_duration(pending, limits, {"quick": 30.0, "slow": 90.0, "none": 900.0})


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        ({"a": 60.0, "b": 20.0}, 60.0),
        ({"a": 60.0}, 60.0),
        ({"b": 20.0, "c": 200.0}, 20.0),
        ({"c": 20.0, "d": 40.0}, 30.0),
        ({}, 0.0),
    ],
)
def test_model_without_known_durations_is_like_the_others(known: Mapping[str, float], seconds: float) -> None:
    """Like the other models of this run, or else like whatever is known."""
    assert pytest.approx(seconds, abs=0.01) == estimate_duration({"a": 1, "b": 1}, GENEROUS, known).seconds


def test_longest_task_decides_where_there_are_more_slots_than_jobs() -> None:
    """No number of slots makes one task shorter."""
    limits = Limits(submit_per_s=1000.0, in_flight=50, models={"a": ModelLimits(in_flight=20)})

    assert pytest.approx(90.0, abs=0.01) == estimate_duration({"a": 2}, limits, {"a": 90.0}).seconds


@pytest.mark.parametrize(
    ("pending", "in_flight", "known", "seconds"),
    [
        ({}, 0, {}, 0.0),
        ({"a": 0}, 0, {"a": 9.0}, 0.0),
        ({"a": 0}, 1, {"a": 9.0, "b": 30.0}, 30.0),
        ({}, 1, {}, None),
        ({"a": 3000}, 0, {"a": 9.0}, 27.0),
    ],
)
def test_time_that_is_left(
    pending: Mapping[str, int], in_flight: int, known: Mapping[str, float], seconds: float | None
) -> None:
    """What is to be submitted decides, then what is in flight, at most as long as a task takes."""
    assert seconds == seconds_left(pending, in_flight, GENEROUS, known)


def test_nothing_to_do_takes_no_time() -> None:
    """And no limit decides it."""
    assert Estimate(0.0, "") == estimate_duration({"a": 0}, Limits(), {"a": 90.0})
