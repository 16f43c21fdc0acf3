"""The summary counts every job once, and computes how long things took in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.advice import advice
from runner.core.lifecycle import State
from runner.core.model import Attempt, FailureClass
from runner.core.summary import EXACT_UP_TO, DurationHistogram, bucket, bucket_middle_s, summarize
from tests.results.records import AT, succeeded, unsuccessful


def test_summary_of_a_small_run() -> None:
    """Counts by state, class and model, sizes and times are those of the jobs."""
    throttled = Attempt(1, AT - 60, "throttled", http_status=429)
    jobs = [
        succeeded("a", attempts=(throttled, Attempt(2, AT, "accepted", "task_x", 200))),
        succeeded("b", model="seedance-1-5-pro-251215", generate_s=40.0),
        unsuccessful("c", State.FAILED, FailureClass.MODERATION),
        unsuccessful("d", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, finished_at=AT + 500),
    ]

    summary = summarize(jobs)

    assert 4 == summary.jobs
    assert {
        State.SUCCEEDED: 2,
        State.FAILED: 1,
        State.UNCERTAIN: 1,
    } == {state: count for state, count in summary.by_state.items() if count}
    assert {FailureClass.MODERATION: 1, FailureClass.UNCERTAIN_SUBMIT: 1} == summary.by_class
    assert [
        ("wan2.7-i2v", 3),
        ("seedance-1-5-pro-251215", 1),
    ] == [(name, model.jobs) for name, model in summary.by_model.items()]
    assert (2, 2 * 1_048_576) == (summary.assets, summary.asset_bytes)
    assert (5, 1) == (summary.attempts, summary.throttled)
    assert (AT - 60, AT + 500) == (summary.first_submitted_at, summary.last_finished_at)
    assert summary.generate is not None
    assert (40.0, 93.1) == (summary.generate.p50_s, summary.generate.max_s)


def test_period_of_a_run_is_that_of_all_its_jobs() -> None:
    """In whatever order they ended, and although some have not begun or not ended."""
    jobs = [
        succeeded("a", submitted_at=AT + 50, finished_at=AT + 300, attempts=()),
        succeeded("b", submitted_at=AT + 10, finished_at=AT + 200, attempts=()),
        succeeded("c", submitted_at=AT + 90, finished_at=None, attempts=()),
        succeeded("d", submitted_at=None, finished_at=None, attempts=()),
    ]

    summary = summarize(jobs)

    assert (AT + 10, AT + 300) == (summary.first_submitted_at, summary.last_finished_at)


def test_old_failure_of_a_job_that_succeeded_is_not_counted() -> None:
    """What failed before a job succeeded is history, not a failure of the run."""
    failure = unsuccessful("a", State.FAILED, FailureClass.MODERATION).error

    assert {} == summarize([succeeded("a", error=failure)]).by_class


@given(st.lists(st.tuples(st.sampled_from(State), st.sampled_from("abc"), st.sampled_from(FailureClass))))
def test_counts_add_up(kinds: list[Any]) -> None:
    """Every job counts in one state, in one model, and if it has not succeeded in one failure class."""
    jobs = [
        unsuccessful(str(place), state, cls, model=model) for place, (state, model, cls) in enumerate(kinds)
    ]
    summary = summarize(jobs)

    assert Counter(state for state, _, _ in kinds) == Counter(summary.by_state)
    assert Counter(cls for state, _, cls in kinds if state is not State.SUCCEEDED) == summary.by_class
    for name, model in summary.by_model.items():
        assert Counter(state for state, other, _ in kinds if other == name) == Counter(model.by_state)
    assert len(jobs) == summary.jobs == sum(model.jobs for model in summary.by_model.values())


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_durations_of_few_values_are_exact(values: list[float]) -> None:
    """Up to a certain number, the quantiles are values that occurred, by nearest rank."""
    histogram = DurationHistogram()
    for value in values:
        histogram.add(value)

    durations = histogram.durations()

    assert durations is not None
    assert sorted(values)[math.ceil(len(values) / 2) - 1] == durations.p50_s
    assert sorted(values)[math.ceil(len(values) * 0.9) - 1] == durations.p90_s
    assert max(values) == durations.max_s
    assert pytest.approx(mean(values)) == durations.mean_s


def test_durations_of_many_values_are_within_one_percent() -> None:
    """Beyond that number, the memory remains constant and the quantiles remain good."""
    values = [0.5 * 1.001**place for place in range(EXACT_UP_TO * 2)]
    histogram = DurationHistogram()
    for value in values:
        histogram.add(value)

    durations = histogram.durations()

    assert durations is not None
    assert pytest.approx(values[EXACT_UP_TO - 1], rel=0.0101) == durations.p50_s
    assert pytest.approx(values[math.ceil(len(values) * 0.9) - 1], rel=0.0101) == durations.p90_s
    assert len(histogram.counts()) < 500


@given(st.floats(0.001, 1e7))
def test_bucket_represents_its_values(value: float) -> None:
    """The middle of a bucket is at most 1 % from any duration in it."""
    assert pytest.approx(value, rel=0.0101) == bucket_middle_s(bucket(value))


def test_clock_that_was_set_back() -> None:
    """A negative duration counts as 0."""
    histogram = DurationHistogram()
    histogram.add(-5.0)

    durations = histogram.durations()

    assert durations is not None
    assert (0.0, 0.0) == (durations.max_s, durations.p50_s)


@pytest.mark.parametrize("cls", FailureClass)
def test_every_failure_has_advice(cls: FailureClass) -> None:
    """There is a next step for every failure class."""
    assert advice(cls).endswith(".")
    assert 0 == advice(cls).count("`") % 2
