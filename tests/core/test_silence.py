"""How many POSTs may wait for their answers while the gateway says nothing: each of them may become uncertain."""

from __future__ import annotations

from runner.core.circuit_breaker import CircuitBreaker
from runner.core.outcomes import Accepted, RemoteStatus, RemoteTask

ACCEPTED = Accepted(RemoteTask(("task_1",), RemoteStatus.QUEUED))


def send(breaker: CircuitBreaker, count: int, now: float) -> None:
    """Send POSTs that are not answered yet."""
    for _ in range(count):
        breaker.record_sent(now)


def test_many_posts_may_wait_for_a_short_time() -> None:
    """A slow gateway is not an outage, also long after the program started."""
    breaker = CircuitBreaker()
    send(breaker, 50, 1000.0)

    assert breaker.may_submit(1004.9)
    assert not breaker.may_submit(1005.0)


def test_few_posts_may_wait_however_long() -> None:
    """As many as an outage may make uncertain."""
    breaker = CircuitBreaker()
    send(breaker, 4, 1000.0)
    assert breaker.may_submit(1100.0)

    send(breaker, 1, 1100.0)
    assert not breaker.may_submit(1100.0)


def test_any_answer_ends_the_silence() -> None:
    """It counts from the last answer, while others are waited for."""
    breaker = CircuitBreaker()
    send(breaker, 50, 1000.0)
    breaker.record_answer(ACCEPTED, 1006.0)

    assert breaker.may_submit(1010.9)
    assert not breaker.may_submit(1011.0)


def test_silence_counts_from_the_first_post_that_waits() -> None:
    """What was answered before does not count."""
    breaker = CircuitBreaker()
    send(breaker, 1, 1000.0)
    breaker.record_answer(ACCEPTED, 1001.0)
    send(breaker, 50, 1020.0)

    assert breaker.may_submit(1024.0)
