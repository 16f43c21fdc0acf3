"""Two runs of one job, united."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.cost import Cost, CostState
from runner.core.lifecycle import State
from runner.core.merge_attempts import progress, unite, unite_costs
from runner.core.model import Attempt, JobRecord
from runner.core.prices import Unit


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


def cost(number: int, reserved: int, settled: int | None) -> Cost:
    """Return the cost of an attempt, or of all that a results file has, in billionths."""
    state = CostState.UNCERTAIN if settled is None else CostState.SETTLED
    return Cost(
        number=number,
        at=0.0,
        currency="USD",
        reserved=reserved,
        unit=Unit.VIDEO,
        rate="1",
        state=state,
        settled=settled,
    )


@pytest.mark.parametrize(
    ("home", "other", "of_other", "is_other", "expected"),
    [
        # Nothing was known here, or nothing there.
        ([], [cost(2, 8, 5)], {1, 2}, True, [(2, 5)]),
        ([cost(1, 4, 3)], [], {1}, True, [(1, 3)]),
        # The file's amount is that of both attempts; the first one's day and amount stay.
        ([cost(1, 4, 3)], [cost(2, 8, 5)], {1, 2}, True, [(1, 3), (2, 2)]),
        ([cost(1, 4, 3)], [cost(2, 8, 5)], {1, 2}, False, [(1, 3), (2, 2)]),
        ([cost(1, 4, 3)], [cost(2, 8, None)], {1, 2}, True, [(1, 3), (2, 4)]),
        # What was uncertain here ended there.
        ([cost(1, 4, None)], [cost(1, 4, 2)], {1}, True, [(1, 2)]),
        ([cost(1, 4, 3)], [cost(1, 4, 2)], {1}, False, [(1, 3)]),
        # A second attempt here that the other run does not know of.
        ([cost(1, 4, 3), cost(2, 4, 4)], [cost(3, 8, 5)], {1, 3}, False, [(1, 3), (2, 4), (3, 2)]),
    ],
)  # fmt: skip
def test_costs_of_both_count_once(
    home: list[Cost],
    other: list[Cost],
    of_other: set[int],
    is_other: bool,
    expected: list[tuple[int, int]],
) -> None:
    """Each attempt's cost counts once, wherever it was made."""
    united = unite_costs(tuple(home), tuple(other), of_other, is_other=is_other)

    assert expected == [(each.number, each.amount) for each in united]


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
