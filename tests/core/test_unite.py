"""Two runs of one job, united."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.lifecycle import State
from runner.core.model import Attempt, JobRecord
from runner.core.unite import progress, unite


def record(state: State, *sent_at: float, finished_at: float = 0.0, **fields: object) -> JobRecord:
    """Return a job with an accepted attempt for each time."""
    attempts = tuple(
        Attempt(number, at, "accepted", task_id=f"task_{at}") for number, at in enumerate(sent_at, 1)
    )
    return JobRecord(
        "a", 0, "m", "s", {}, "d", {}, state, attempts=attempts, finished_at=finished_at,
        task_id=f"task_{sent_at[-1]}" if sent_at else None,
    )  # fmt: skip


def test_a_success_elsewhere_comes_home_with_its_attempt() -> None:
    """The attempts of both stay, and the state belongs to the one that succeeded."""
    united = unite(record(State.FAILED, 1.0), record(State.SUCCEEDED, 1.0, 2.0))

    assert (State.SUCCEEDED, 2, True) == (united.record.state, united.attempt, united.is_other)
    assert [(1, 1.0), (2, 2.0)] == [(each.number, each.submitted_at) for each in united.record.attempts]


def test_attempts_of_the_same_number_are_both_kept() -> None:
    """A second attempt here and another second attempt there were both paid for."""
    united = unite(record(State.SUCCEEDED, 1.0, 3.0), record(State.FAILED, 1.0, 2.0))

    assert (State.SUCCEEDED, 2, False) == (united.record.state, united.attempt, united.is_other)
    assert ["task_1.0", "task_3.0", "task_2.0"] == [each.task_id for each in united.record.attempts]
    assert [1, 2, 3] == [each.number for each in united.record.attempts]


def test_a_line_of_the_run_itself_is_no_news() -> None:
    """Times in results files are rounded to milliseconds, which makes half of them later."""
    home = record(State.FAILED, 1.0, finished_at=2.0006)

    assert not unite(home, record(State.FAILED, 1.0, finished_at=2.001)).is_other
    assert unite(home, record(State.FAILED, 1.0, finished_at=2.002)).is_other


TIMES = st.lists(st.integers(1, 6).map(float), unique=True, max_size=4).map(sorted)
STATES = st.sampled_from(list(State))


@given(STATES, TIMES, STATES, TIMES)
def test_nothing_paid_is_lost(state: State, times: list[float], other: State, others: list[float]) -> None:
    """Every attempt of either is there once, numbers are unique, and the state is never behind either."""
    home, away = record(state, *times), record(other, *others)

    united = unite(home, away)

    attempts = united.record.attempts
    assert {*times, *others} == {each.submitted_at for each in attempts}
    assert len(attempts) == len({each.number for each in attempts}) == len({*times, *others})
    assert progress(united.record) == max(progress(home), progress(away))
    assert list(home.attempts) == list(attempts[: len(times)])
    assert unite(united.record, away).record.attempts == attempts
