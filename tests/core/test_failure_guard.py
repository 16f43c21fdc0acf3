"""When jobs that end without a video stop a run."""

from __future__ import annotations

import pytest

from runner.core.governor import RunGovernor
from runner.core.lifecycle import State
from runner.core.settings import Limits
from runner.core.stop import DEFAULT_IN_ROW, MIN_ENDS, FailureGuard, MaxFailures, StopReason

WITHOUT_VIDEO = [State.FAILED, State.UNDELIVERED, State.TIMED_OUT]


def ends_until_stop(most: MaxFailures, states: list[State], *, pending: int = 100) -> int | None:
    """Return how many jobs of these states ended when the guard first stopped; None if it never did."""
    guard = FailureGuard(most)
    for count, state in enumerate(states, start=1):
        if guard.record_end(state, pending=pending) is not None:
            return count
    return None


@pytest.mark.parametrize("state", WITHOUT_VIDEO)
def test_number_counts_every_end_without_a_video(state: State) -> None:
    """
    With 2, the third job that failed, timed out or could not be downloaded stops the run, whatever succeeds between.
    """
    assert 5 == ends_until_stop(2, [state, State.SUCCEEDED] * 10)


def test_uncertain_jobs_are_not_failures() -> None:
    """
    Uncertain jobs count neither as failures nor as videos.
    """
    assert ends_until_stop(0, [State.UNCERTAIN] * 50) is None
    assert 2 * DEFAULT_IN_ROW - 1 == ends_until_stop(None, [State.FAILED, State.UNCERTAIN] * 50)


def test_share_is_of_the_jobs_that_ended_from_twenty_on() -> None:
    """
    10 % of the jobs that ended: a bad start does not count before 20 have ended, and exactly 10 % is allowed.
    """
    good, bad = [State.SUCCEEDED], [State.FAILED]

    assert MIN_ENDS == ends_until_stop(0.1, bad * 3 + good * 50)
    assert ends_until_stop(0.1, bad * 2 + good * 50) is None
    assert 32 == ends_until_stop(0.1, good * 28 + bad * 10)


def test_twenty_in_a_row_stop_by_default() -> None:
    """
    Without a limit 20 in a row stop the run, a video between them starts the count again, and "off" allows any number.
    """
    mixed = WITHOUT_VIDEO * 10

    assert DEFAULT_IN_ROW == ends_until_stop(None, mixed)
    assert 20 + DEFAULT_IN_ROW == ends_until_stop(None, [*mixed[:19], State.SUCCEEDED, *mixed])
    assert ends_until_stop("off", mixed) is None
    assert ends_until_stop(50, mixed) is None


def test_default_needs_jobs_that_it_can_save() -> None:
    """
    A run whose last jobs failed was not stopped; it has ended.
    """
    assert ends_until_stop(None, [State.FAILED] * 50, pending=0) is None


def test_only_what_this_run_submitted_counts() -> None:
    """
    A job that had ended before, and ends again in the same way, is no reason to stop.
    """
    governor = RunGovernor(Limits(), learned={}, stall_s=60.0, max_failures=0)

    assert [] == governor.record_end(State.FAILED, pending=5, is_own=False)
    assert [StopReason.FAILURES] == [
        stop.reason for stop in governor.record_end(State.FAILED, pending=5, is_own=True)
    ]
