"""An outage makes only a few jobs uncertain, and the run continues automatically afterwards."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.circuit_breaker import (
    FORBIDDEN_TO_STOP,
    UNCERTAIN_IN_WINDOW,
    UNCERTAIN_TO_OPEN,
    WINDOW,
    CircuitBreaker,
    CircuitState,
)
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    NotSent,
    Rejected,
    RemoteStatus,
    RemoteTask,
    SubmitOutcome,
    Throttled,
)

ACCEPTED = Accepted(RemoteTask(("task_1",), RemoteStatus.QUEUED))
AMBIGUOUS = Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, "502"))
NOT_SENT = NotSent(Failure(FailureClass.UNAVAILABLE, "connection refused"))
FORBIDDEN = Rejected(Failure(FailureClass.FORBIDDEN, "banned"))
INVALID = Rejected(Failure(FailureClass.INVALID_REQUEST, "no prompt"))
THROTTLED = Throttled(Failure(FailureClass.RATE_LIMITED, "slow down"))


def post(breaker: CircuitBreaker, outcome: SubmitOutcome, now: float) -> None:
    """Send a POST that is answered at once."""
    breaker.record_sent(now)
    breaker.record_answer(outcome, now)


def simulate_outage(*, answer_s: float, is_healthy: bool, until: float = 600.0) -> tuple[int, CircuitBreaker]:
    """Submit a job a second to a gateway whose answers, after ``answer_s``, are all ambiguous; count the jobs."""
    breaker, uncertain, now, next_at = CircuitBreaker(), 0, 0.0, 0.0
    answers: list[float] = []
    while now < until:
        while answers and answers[0] <= now:
            breaker.record_answer(AMBIGUOUS, heapq.heappop(answers))
        if breaker.probe_at is not None and breaker.probe_at <= now:
            breaker.record_probe(now, is_healthy=is_healthy)
        if next_at <= now and breaker.may_submit(now):
            breaker.record_sent(now)
            uncertain += 1
            heapq.heappush(answers, now + answer_s)
            next_at = now + 1.0
        now += 0.25
    return uncertain, breaker


@pytest.mark.parametrize("answer_s", [0.1, 2.0, 30.0, 60.0, 120.0])
@pytest.mark.parametrize("is_healthy", [True, False], ids=["upstream is out", "gateway is out"])
def test_ten_minutes_of_outage(answer_s: float, is_healthy: bool) -> None:
    """
    Ten minutes of 502 or no answers at 60 jobs a minute make fewer than ten jobs uncertain.
    """
    uncertain, _ = simulate_outage(answer_s=answer_s, is_healthy=is_healthy)

    assert uncertain < 10


def test_the_run_continues_automatically() -> None:
    """
    After a successful probe one job is submitted at a time, and when one is accepted all are.
    """
    breaker = CircuitBreaker()
    for _ in range(UNCERTAIN_TO_OPEN):
        post(breaker, AMBIGUOUS, 1.0)
    assert breaker.state is CircuitState.OPEN
    assert not breaker.may_submit(99.0)

    breaker.record_probe(6.0, is_healthy=True)
    assert breaker.probe_at is None
    assert breaker.may_submit(6.0)
    breaker.record_sent(6.0)
    assert not breaker.may_submit(6.1)
    breaker.record_answer(ACCEPTED, 7.0)

    assert breaker.state is CircuitState.CLOSED
    assert breaker.probe_at is None
    assert breaker.may_submit(7.0)


def test_an_answer_from_before_the_outage_ends_the_probes() -> None:
    """
    A POST that was under way and is accepted shows less than a trial: one job at a time, and no further probe.
    """
    breaker = CircuitBreaker()
    breaker.record_sent(0.0)
    for _ in range(UNCERTAIN_TO_OPEN):
        post(breaker, AMBIGUOUS, 1.0)
    breaker.record_answer(ACCEPTED, 2.0)

    assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.probe_at is None


def test_uncertain_answers_among_accepted_ones_open_it() -> None:
    """
    The fifth uncertain answer of the last twenty opens it, though an accepted one came after each; older ones don't count.
    """
    often, rarely = CircuitBreaker(), CircuitBreaker()
    alternating: list[SubmitOutcome] = [ACCEPTED, AMBIGUOUS]
    mostly_accepted: list[SubmitOutcome] = [
        *[ACCEPTED] * (WINDOW // (UNCERTAIN_IN_WINDOW - 1) - 1),
        AMBIGUOUS,
    ]
    for _ in range(UNCERTAIN_IN_WINDOW):
        assert often.state is CircuitState.CLOSED
        for outcome in alternating:
            post(often, outcome, 0.0)
    for _ in range(2 * UNCERTAIN_IN_WINDOW):
        for outcome in mostly_accepted:
            post(rarely, outcome, 0.0)

    assert often.state is CircuitState.OPEN
    assert rarely.state is CircuitState.CLOSED


def test_the_window_starts_again_after_an_outage() -> None:
    """
    Once a trial is accepted, the uncertain answers of the outage count no more.
    """
    breaker = CircuitBreaker()
    answers: list[SubmitOutcome] = [ACCEPTED, AMBIGUOUS]
    for outcome in answers * UNCERTAIN_IN_WINDOW:
        post(breaker, outcome, 0.0)
    breaker.record_probe(5.0, is_healthy=True)
    for outcome in answers:
        post(breaker, outcome, 6.0)

    assert breaker.state is CircuitState.CLOSED


def test_probes_grow_rarer() -> None:
    """
    The pauses between probes double up to a minute.
    """
    breaker, pauses, now = CircuitBreaker(), [], 0.0
    for _ in range(UNCERTAIN_TO_OPEN):
        post(breaker, AMBIGUOUS, now)
    for _ in range(6):
        assert breaker.probe_at is not None
        pauses.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker.record_probe(now, is_healthy=False)

    assert [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] == pauses


def test_refused_connections_are_probed_not_hammered() -> None:
    """
    A gateway that can't be reached is tried with a free request, too.
    """
    breaker = CircuitBreaker()
    for _ in range(UNCERTAIN_TO_OPEN):
        assert breaker.may_submit(0.0)
        post(breaker, NOT_SENT, 0.0)

    assert breaker.state is CircuitState.OPEN


def test_other_answers_do_not_hide_an_outage() -> None:
    """
    Refusals between ambiguous answers do not show whether jobs are accepted.
    """
    breaker = CircuitBreaker()
    for outcome in (AMBIGUOUS, INVALID, AMBIGUOUS, THROTTLED, AMBIGUOUS):
        post(breaker, outcome, 0.0)

    assert breaker.state is CircuitState.OPEN


def test_forbidden_in_a_row_stops() -> None:
    """
    Several 403 in a row are because of the key; with other answers between them, because of the jobs.
    """
    breaker, mixed = CircuitBreaker(), CircuitBreaker()
    for _ in range(FORBIDDEN_TO_STOP):
        post(breaker, FORBIDDEN, 0.0)
        post(mixed, FORBIDDEN, 0.0)
        post(mixed, ACCEPTED, 0.0)

    assert breaker.is_forbidden
    assert not breaker.may_submit(0.0)
    assert mixed.may_submit(0.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "send",
                "send",
                "accepted",
                "ambiguous",
                "ambiguous",
                "not_sent",
                "throttled",
                "healthy",
                "unhealthy",
            ]
        ),
        st.floats(0, 30),
    ),
    max_size=120,
)


@given(STEPS)
def test_few_jobs_become_uncertain_between_accepted_answers(steps: list[tuple[str, float]]) -> None:
    """
    In any order of events: after the last accepted answer at most the limit and what was unanswered become
    uncertain, and one more for each successful probe.
    """
    breaker, now = CircuitBreaker(), 0.0
    uncertain = limit = 0
    outcomes: dict[str, SubmitOutcome] = {
        "accepted": ACCEPTED,
        "ambiguous": AMBIGUOUS,
        "not_sent": NOT_SENT,
        "throttled": THROTTLED,
    }
    for step, after_s in steps:
        now += after_s
        if step == "send":
            if breaker.may_submit(now):
                breaker.record_sent(now)
        elif step in ("healthy", "unhealthy"):
            was_open = breaker.state is CircuitState.OPEN
            breaker.record_probe(now, is_healthy=step == "healthy")
            limit += was_open and breaker.state is CircuitState.HALF_OPEN
        elif breaker.unanswered:
            if step == "ambiguous":
                limit = max(limit, UNCERTAIN_TO_OPEN + breaker.unanswered - 1) if uncertain == 0 else limit
                uncertain += 1
            breaker.record_answer(outcomes[step], now)
            if step == "accepted":
                # The next ambiguous answer sets a new limit; a half-open breaker allows one job at a time.
                uncertain, limit = 0, 0

        assert breaker.unanswered >= 0
        assert uncertain <= limit
