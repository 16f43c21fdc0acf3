"""Samples and time bins are fair, lose no count, and stay bounded."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from runner.report.page_data import JobSample, TimeBins
from tests.results.records import AT


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12))
def test_sample_uses_its_capacity(outcomes: list[bool], capacity: int) -> None:
    """
    No more jobs are kept than there are slots, no slot stays empty, and neither kind takes the other's half.
    """
    sample: JobSample[bool] = JobSample(capacity)
    for succeeded in outcomes:
        sample.add(partial(bool, succeeded), succeeded=succeeded)

    items = sample.items()
    others = outcomes.count(False)
    assert min(len(outcomes), capacity) == len(items)
    assert min(others, max(capacity // 2, capacity - outcomes.count(True))) == items.count(False)


def test_late_jobs_are_as_likely_as_early_ones() -> None:
    """Jobs of both kinds are sampled from all of the run, wherever they occurred."""
    sample: JobSample[int] = JobSample(100)
    for index in range(10_000):
        sample.add(partial(int, index), succeeded=index < 5000)

    items = sample.items()
    assert 50 == sum(index < 5000 for index in items)
    for start in (0, 2500, 5000, 7500):
        assert 10 < sum(start <= index < start + 2500 for index in items) < 40


def test_time_bins_stay_few() -> None:
    """However long a run was, its chart has at most 200 bins, and loses no count."""
    bins = TimeBins(("done", "throttled"))
    for n in range(5000):
        bins.add("done", AT + 37 * n)
    bins.add("throttled", AT + 3)

    binned = bins.binned()

    assert binned is not None
    assert len(binned.counts["done"]) <= 200
    assert 5000 == sum(binned.counts["done"])
    assert 1 == sum(binned.counts["throttled"])


def test_time_bins_survive_an_impossible_time() -> None:
    """One job with an impossible time does not use up the memory of the process."""
    bins = TimeBins(("done",))
    bins.add("done", 0.0)
    bins.add("done", 4e12)

    binned = bins.binned()

    assert binned is not None
    assert len(binned.counts["done"]) <= 200
