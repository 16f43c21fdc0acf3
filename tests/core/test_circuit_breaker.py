"""An outage leaves a handful of jobs in doubt, and the run goes on by itself afterwards."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.circuit_breaker import FORBIDDEN_TO_STOP, UNCERTAIN_TO_OPEN, CircuitBreaker, CircuitState
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import Accepted, Ambiguous, NotSent, Rejected, RemoteStatus, RemoteTask, Throttled

ACCEPTED = Accepted(RemoteTask(("task_1",), RemoteStatus.QUEUED))
DOUBT = Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, "502"))
UNSENT = NotSent(Failure(FailureClass.UNAVAILABLE, "connection refused"))
FORBIDDEN = Rejected(Failure(FailureClass.FORBIDDEN, "banned"))
INVALID = Rejected(Failure(FailureClass.INVALID_REQUEST, "no prompt"))
THROTTLED = Throttled(Failure(FailureClass.RATE_LIMITED, "slow down"))


def post(breaker, outcome, now):
    """Send a POST that is answered at once."""
    breaker.record_sent(now)
    breaker.record_answer(outcome, now)


def play_outage(*, answer_s: float, probe_is_well: bool, until: float = 600.0) -> tuple[int, CircuitBreaker]:
    """Submit a job a second into a gateway that doubts each after ``answer_s``; return the doubts."""
    breaker, doubts, now, next_at = CircuitBreaker(), 0, 0.0, 0.0
    answers: list[float] = []
    while now < until:
        while answers and answers[0] <= now:
            breaker.record_answer(DOUBT, heapq.heappop(answers))
        if breaker.probe_at is not None and breaker.probe_at <= now:
            breaker.record_probe(now, is_healthy=probe_is_well)
        if next_at <= now and breaker.may_submit(now):
            breaker.record_sent(now)
            doubts += 1
            heapq.heappush(answers, now + answer_s)
            next_at = now + 1.0
        now += 0.25
    return doubts, breaker


@pytest.mark.parametrize("answer_s", [0.1, 2.0, 30.0, 60.0, 120.0])
@pytest.mark.parametrize("probe_is_well", [True, False], ids=["upstream is out", "gateway is out"])
def test_ten_minutes_of_outage(answer_s, probe_is_well):
    """
    Ten minutes of 502 or silence at 60 jobs a minute leave fewer than ten jobs in doubt.
    """
    doubts, _ = play_outage(answer_s=answer_s, probe_is_well=probe_is_well)

    assert doubts < 10


def test_the_run_goes_on_by_itself():
    """
    After a good probe one job goes at a time, and an accepted one opens the way for all.
    """
    breaker = CircuitBreaker()
    for _ in range(UNCERTAIN_TO_OPEN):
        post(breaker, DOUBT, 1.0)
    assert breaker.state is CircuitState.OPEN
    assert not breaker.may_submit(99.0)

    breaker.record_probe(6.0, is_healthy=True)
    assert breaker.may_submit(6.0)
    breaker.record_sent(6.0)
    assert not breaker.may_submit(6.1)
    breaker.record_answer(ACCEPTED, 7.0)

    assert breaker.state is CircuitState.CLOSED
    assert breaker.probe_at is None
    assert breaker.may_submit(7.0)


def test_probes_grow_rarer():
    """
    The pauses between probes double up to a minute.
    """
    breaker, pauses, now = CircuitBreaker(), [], 0.0
    for _ in range(UNCERTAIN_TO_OPEN):
        post(breaker, DOUBT, now)
    for _ in range(6):
        assert breaker.probe_at is not None
        pauses.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker.record_probe(now, is_healthy=False)

    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_refused_connections_are_probed_not_hammered():
    """
    A gateway that can't be reached is tried with a free request, too.
    """
    breaker = CircuitBreaker()
    for _ in range(UNCERTAIN_TO_OPEN):
        assert breaker.may_submit(0.0)
        post(breaker, UNSENT, 0.0)

    assert breaker.state is CircuitState.OPEN


def test_other_answers_do_not_hide_doubt():
    """
    Refusals between the doubts say nothing of whether jobs are accepted.
    """
    breaker = CircuitBreaker()
    for outcome in (DOUBT, INVALID, DOUBT, THROTTLED, DOUBT):
        post(breaker, outcome, 0.0)

    assert breaker.state is CircuitState.OPEN


def test_forbidden_in_a_row_stops():
    """
    Several 403 in a row are the key's fault; with other answers between them they are the jobs'.
    """
    breaker, mixed = CircuitBreaker(), CircuitBreaker()
    for _ in range(FORBIDDEN_TO_STOP):
        post(breaker, FORBIDDEN, 0.0)
        post(mixed, FORBIDDEN, 0.0)
        post(mixed, ACCEPTED, 0.0)

    assert breaker.is_forbidden
    assert not breaker.may_submit(0.0)
    assert mixed.may_submit(0.0)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["sent", "sent", "accepted", "doubt", "doubt", "unsent", "throttled", "well", "ill"]),
        st.floats(0, 30),
    ),
    max_size=120,
)


@given(MOVES)
def test_doubts_between_accepted_answers_are_few(moves):
    """
    In any order of events: after the last accepted answer at most the limit and what was under way is in doubt,
    and one more for each good probe.
    """
    breaker, now = CircuitBreaker(), 0.0
    doubts = bound = 0
    outcomes = {"accepted": ACCEPTED, "doubt": DOUBT, "unsent": UNSENT, "throttled": THROTTLED}
    for move, after_s in moves:
        now += after_s
        if move == "sent":
            if breaker.may_submit(now):
                breaker.record_sent(now)
        elif move in ("well", "ill"):
            was_open = breaker.state is CircuitState.OPEN
            breaker.record_probe(now, is_healthy=move == "well")
            bound += was_open and breaker.state is CircuitState.HALF_OPEN
        elif breaker.unanswered:
            if move == "doubt":
                bound = max(bound, UNCERTAIN_TO_OPEN + breaker.unanswered - 1) if doubts == 0 else bound
                doubts += 1
            breaker.record_answer(outcomes[move], now)
            if move == "accepted":
                # The first doubt from here on sets a new bound; a half-open flow allows one job at once.
                doubts, bound = 0, 0

        assert breaker.unanswered >= 0
        assert doubts <= bound
