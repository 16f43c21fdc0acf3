"""A page that can't show all jobs shows a fair choice of them, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.report.aggregates import JobSample


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12))
def test_room_is_kept_and_used(ends: list[bool], most: int) -> None:
    """
    No more jobs are kept than are shown, no room stays empty, and neither kind takes the other's half.
    """
    sample: JobSample[bool] = JobSample(most)
    for succeeded in ends:
        sample.offer(lambda succeeded=succeeded: succeeded, succeeded=succeeded)

    chosen = sample.chosen()
    others = ends.count(False)
    assert min(len(ends), most) == len(chosen)
    assert min(others, max(most // 2, most - ends.count(True))) == chosen.count(False)


def test_late_jobs_are_as_likely_as_early_ones() -> None:
    """Jobs of both kinds are shown from all of the run, wherever their kinds stood in it."""
    sample: JobSample[int] = JobSample(100)
    for place in range(10_000):
        sample.offer(lambda place=place: place, succeeded=place < 5000)

    chosen = sample.chosen()
    assert 50 == sum(place < 5000 for place in chosen)
    for start in (0, 2500, 5000, 7500):
        assert 10 < sum(start <= place < start + 2500 for place in chosen) < 40
