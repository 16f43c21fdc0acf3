"""The arithmetic of budgets: what each change of a job does to the cost of its attempt, and what still fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runner.core.budget import Account, Fit, block, next_cost
from runner.core.cost import Cost, CostState, CostSummaryBuilder, Spend, SpentOn, charged, cost_json
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.prices import Unit
from runner.core.settings import CanaryPolicy
from runner.core.stop import CanaryGate

CENT = 10_000_000
COST = Cost(number=1, at=0.0, currency="USD", reserved=60 * CENT, unit=Unit.SECOND, rate="0.05")
UNCERTAIN = replace(COST, state=CostState.UNCERTAIN)


@pytest.mark.parametrize("outcome", ["not_sent", "rejected", "throttled", "no_channel", "refused"])
def test_nothing_was_charged(outcome: str) -> None:
    """An attempt that made no task releases what was reserved, whatever its job's state is."""
    after = next_cost(COST, State.FAILED, outcome=outcome, failure=FailureClass.INVALID_REQUEST)

    assert (CostState.RELEASED, 0) == (after.state, after.amount)


@pytest.mark.parametrize(
    ("cost", "state", "facts", "expected"),
    [
        (COST, State.UNCERTAIN, {}, (CostState.UNCERTAIN, 60, "reserved")),
        (COST, State.SUBMITTED, {}, (CostState.RESERVED, 60, "reserved")),
        (COST, State.TIMED_OUT, {}, (CostState.RESERVED, 60, "reserved")),
        (COST, State.SUCCEEDED, {}, (CostState.SETTLED, 60, "reserved")),
        (COST, State.SUCCEEDED, {"usage": {"seconds": 5}}, (CostState.SETTLED, 25, "usage")),
        (COST, State.SUCCEEDED, {"video_s": 4.04}, (CostState.SETTLED, 20, "video")),
        (COST, State.SUCCEEDED, {"usage": {"seconds": 5}, "video_s": 9.0}, (CostState.SETTLED, 25, "usage")),
        (COST, State.UNDELIVERED, {}, (CostState.SETTLED, 60, "reserved")),
        (COST, State.FAILED, {"failure": FailureClass.REMOTE_FAILED}, (CostState.FAILED, 60, "reserved")),
        (COST, State.FAILED, {"refunds_failed": True}, (CostState.FAILED, 0, "refunded")),
        (COST, State.FAILED, {"failure": FailureClass.LOST}, (CostState.UNCERTAIN, 60, "reserved")),
        (
            COST,
            State.FAILED,
            {"failure": FailureClass.LOST, "refunds_failed": True},
            (CostState.UNCERTAIN, 60, "reserved"),
        ),
        (UNCERTAIN, State.SUBMITTED, {}, (CostState.RESERVED, 60, "reserved")),
    ],
)
def test_next_cost(
    cost: Cost, state: State, facts: dict[str, Any], expected: tuple[CostState, int, str]
) -> None:
    """A cost is kept while that is open, and settled by the usage, else by the video, else as reserved."""
    after = next_cost(cost, state, **facts)

    assert expected == (after.state, after.amount // CENT, after.basis)


@pytest.mark.parametrize(
    ("cost", "usage", "video_s", "expected"),
    [
        (replace(COST, unit=Unit.VIDEO, rate="0.2"), None, 99.0, (20, "price")),
        (
            replace(COST, unit=Unit.MILLION_TOKENS, rate="4"),
            {"completion_tokens": 50_000},
            None,
            (20, "usage"),
        ),
        (replace(COST, unit=Unit.MILLION_TOKENS, rate="4"), {"total_tokens": 25_000}, None, (10, "usage")),
        (replace(COST, unit=Unit.MILLION_TOKENS, rate="4"), {"seconds": 5}, 5.0, (60, "reserved")),
        (replace(COST, has_input=True), {"seconds": 5, "input_seconds": 3}, None, (40, "usage")),
        (replace(COST, has_input=True), {"seconds": 5}, 5.0, (60, "reserved")),
        (replace(COST, basis="assumed"), {"seconds": 5}, 5.0, (60, "assumed")),
        (COST, {"seconds": -1}, None, (60, "reserved")),
        (COST, {"seconds": True}, None, (60, "reserved")),
    ],
)
def test_charged(
    cost: Cost, usage: dict[str, Any] | None, video_s: float | None, expected: tuple[int, str]
) -> None:
    """Each unit is settled by what is known of it; what is not known stays as reserved."""
    amount, basis = charged(cost, usage, video_s)

    assert expected == (amount // CENT, basis)


@given(st.integers(0, 100), st.integers(0, 1000), st.one_of(st.none(), st.integers(0, 1000)))
def test_a_block_fits_into_what_is_left(need: int, ask: int, left: int | None) -> None:
    """A run gets what it needs or nothing, and never more than what is left."""
    amount = block(need, ask, left)

    assert amount == 0 or amount >= need
    assert left is None or amount <= left
    assert amount or (left is not None and need > left) or need == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=30), st.integers(0, 100))
def test_an_account_is_never_overdrawn(jobs: list[tuple[int, bool]], limit: int) -> None:
    """Whatever is granted and released, what counts stays within the limit; `NEVER` means that no release helps."""
    account, opened = Account("budget.run", limit), []
    for amount, is_released in jobs:
        fit = account.fit(amount)
        if fit is Fit.FITS:
            account.change(amount, amount)
            opened.append(amount)
        elif fit is Fit.NEVER:
            assert account.used - sum(opened) + amount > limit
        if is_released and opened:
            released = opened.pop()
            account.change(-released, -released)
        assert account.used <= limit


def test_a_spend_in_words() -> None:
    """What nobody knows, and what failed, is shown apart."""
    spend = Spend(
        currency="USD", settled=3650 * CENT, uncertain=310 * CENT, failed=160 * CENT, reserved=25 * CENT
    )

    assert (
        "spent 41.20 USD, of which 3.10 uncertain and 1.60 for tasks that failed; "
        "0.25 reserved for jobs that have not ended" == str(spend)
    )
    assert "spent 0.00 USD" == str(Spend(currency="USD"))


def test_the_cost_of_a_job_has_all_its_paid_attempts() -> None:
    """A released attempt costs nothing; the others add up, and the newest says how that is known."""
    released = replace(COST, state=CostState.RELEASED, settled=0)
    failed = replace(COST, number=2, state=CostState.FAILED, settled=60 * CENT)
    settled = replace(COST, number=3, state=CostState.SETTLED, settled=25 * CENT, basis="usage")

    assert None is cost_json([released])
    assert {"reserved": "0.60", "settled": None, "currency": "USD", "basis": "reserved"} == cost_json([COST])
    assert {"reserved": "1.20", "settled": "0.85", "currency": "USD", "basis": "usage"} == cost_json(
        [released, failed, settled]
    )


def gate(**values: int) -> CanaryGate:
    """Return a gate of five jobs of which four must succeed."""
    return CanaryGate(CanaryPolicy(jobs=5, succeed=4), **{"succeeded": 0, "in_flight": 0, **values})


def test_canaries_open_the_gate() -> None:
    """After five jobs nothing more is submitted until four of them have a video; one may fail."""
    canary = gate()
    for _ in range(5):
        assert not canary.is_closed
        canary.record_submitted()

    assert canary.is_closed
    for state in (State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.SUCCEEDED):
        assert canary.record_end(state, pending=9) is None
        assert canary.is_closed
    assert canary.record_end(State.SUCCEEDED, pending=9) is None
    assert not canary.is_closed


@pytest.mark.parametrize("state", [State.FAILED, State.UNCERTAIN, State.TIMED_OUT, State.UNDELIVERED])
def test_canaries_stop_the_run(state: State) -> None:
    """As soon as four can't succeed any more, the run stops, unless nothing is left to submit."""
    canary, last = gate(), gate()
    for each in (canary, last):
        for _ in range(5):
            each.record_submitted()
        assert each.record_end(state, pending=1) is None

    stop = canary.record_end(state, pending=1)

    assert stop is not None
    assert 3 == stop.exit_code
    assert "0 of the first 5 jobs have a video" in stop.message
    assert last.record_end(state, pending=0) is None


def test_jobs_yet_to_be_submitted_may_still_succeed() -> None:
    """One of the first jobs may fail before the others are sent."""
    canary = gate()
    canary.record_submitted()

    assert canary.record_end(State.FAILED, pending=9) is None


def test_a_run_with_enough_videos_needs_no_canaries() -> None:
    """Later processes continue at once; jobs in flight of an earlier one count as first ones."""
    assert not gate(succeeded=4, in_flight=9).is_closed
    assert gate(in_flight=5).is_closed


def test_a_submission_that_made_no_task_is_not_a_canary() -> None:
    """A throttled job is submitted again, and counts once."""
    canary = gate(in_flight=4)
    canary.record_submitted()
    canary.record_not_submitted()

    assert not canary.is_closed


def test_sums_of_a_run() -> None:
    """By state, by model and by day: released attempts cost nothing, estimates are what was reserved."""
    builder = CostSummaryBuilder()
    builder.add("a", replace(COST, state=CostState.SETTLED, settled=25 * CENT))
    builder.add("a", replace(UNCERTAIN, at=86_400.0))
    builder.add("b", replace(COST, state=CostState.FAILED, settled=0))
    builder.add("b", replace(COST, state=CostState.RELEASED, settled=0))

    summary = builder.summary()

    assert (Spend(currency="USD", settled=25 * CENT, uncertain=60 * CENT),) == summary.spend
    assert (
        SpentOn("a", "USD", attempts=2, amount=85 * CENT, estimate=120 * CENT),
        SpentOn("b", "USD", attempts=1, amount=0, estimate=60 * CENT),
    ) == summary.by_model
    assert (
        SpentOn("1970-01-01", "USD", attempts=2, amount=25 * CENT, estimate=120 * CENT),
        SpentOn("1970-01-02", "USD", attempts=1, amount=60 * CENT, estimate=60 * CENT),
    ) == summary.by_day
