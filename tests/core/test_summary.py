"""The summary counts every job once, and says how long things took in constant memory."""

from __future__ import annotations

import math
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.advice import advice
from runner.core.lifecycle import State
from runner.core.model import Attempt, FailureClass
from runner.core.summary import EXACT_UP_TO, DurationHistogram, bucket, bucket_middle_s, summarize
from tests.results.records import AT, records, succeeded, unsuccessful


def test_summary_of_a_small_run():
    """Counts by state, class and model, sizes and times are those of the jobs."""
    throttled = Attempt(1, AT - 60, "throttled", http_status=429)
    jobs = [
        succeeded("a", attempts=(throttled, Attempt(2, AT, "accepted", "task_x", 200))),
        succeeded("b", model="seedance-1-5-pro-251215", generate_s=40.0),
        unsuccessful("c", State.FAILED, FailureClass.MODERATION),
        unsuccessful("d", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, finished_at=AT + 500),
    ]

    summary = summarize(jobs)

    assert summary.jobs == 4
    assert {state: count for state, count in summary.by_state.items() if count} == {
        State.SUCCEEDED: 2,
        State.FAILED: 1,
        State.UNCERTAIN: 1,
    }
    assert summary.by_class == {FailureClass.MODERATION: 1, FailureClass.UNCERTAIN_SUBMIT: 1}
    assert [(name, model.jobs) for name, model in summary.by_model.items()] == [
        ("wan2.7-i2v", 3),
        ("seedance-1-5-pro-251215", 1),
    ]
    assert (summary.assets, summary.asset_bytes) == (2, 2 * 1_048_576)
    assert (summary.attempts, summary.throttled) == (5, 1)
    assert (summary.first_submitted_at, summary.last_finished_at) == (AT - 60, AT + 500)
    assert summary.generate is not None
    assert (summary.generate.p50_s, summary.generate.max_s) == (40.0, 93.1)


def test_old_failure_of_a_job_that_succeeded_is_not_counted():
    """What went wrong before a job succeeded is history, not a failure of the run."""
    failure = unsuccessful("a", State.FAILED, FailureClass.MODERATION).error

    assert summarize([succeeded("a", error=failure)]).by_class == {}


@given(st.lists(records, max_size=10))
def test_counts_add_up(jobs):
    """Every job is in one state and of one model."""
    summary = summarize(jobs)

    assert sum(summary.by_state.values()) == len(jobs)
    assert sum(model.jobs for model in summary.by_model.values()) == len(jobs)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_durations_of_few_values_are_exact(values):
    """Up to a bound, the quantiles are values that occurred, by nearest rank."""
    tally = DurationHistogram()
    for value in values:
        tally.add(value)

    durations = tally.durations()

    assert durations is not None
    assert durations.p50_s == sorted(values)[math.ceil(len(values) / 2) - 1]
    assert durations.p90_s == sorted(values)[math.ceil(len(values) * 0.9) - 1]
    assert durations.max_s == max(values)
    assert durations.mean_s == pytest.approx(mean(values))


def test_durations_of_many_values_are_within_one_percent():
    """Past the bound the memory stays constant and the quantiles stay good."""
    values = [0.5 * 1.001**place for place in range(EXACT_UP_TO * 2)]
    tally = DurationHistogram()
    for value in values:
        tally.add(value)

    durations = tally.durations()

    assert durations is not None
    assert durations.p50_s == pytest.approx(values[EXACT_UP_TO - 1], rel=0.0101)
    assert durations.p90_s == pytest.approx(values[math.ceil(len(values) * 0.9) - 1], rel=0.0101)
    assert len(tally.counts()) < 500


@given(st.floats(0.001, 1e7))
def test_bucket_stands_for_its_values(value):
    """The middle of a bucket is at most 1 % from any duration in it."""
    assert bucket_middle_s(bucket(value)) == pytest.approx(value, rel=0.0101)


def test_clock_that_was_set_back():
    """A negative duration counts as none."""
    tally = DurationHistogram()
    tally.add(-5.0)

    durations = tally.durations()

    assert durations is not None
    assert (durations.max_s, durations.p50_s) == (0.0, 0.0)


@pytest.mark.parametrize("cls", FailureClass)
def test_every_failure_has_advice(cls):
    """No class of failure leaves a person without a next step."""
    assert advice(cls).endswith(".")
    assert advice(cls).count("`") % 2 == 0
