"""The state of a run with many shards, as its governor told it to one of them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from runner.core.circuit_breaker import CircuitState
from runner.core.leases import News

NO_NEWS = News(
    session="",
    is_known=False,
    per_s=0.0,
    accepted_per_s=0.0,
    wait_s=0.0,
    circuit=CircuitState.CLOSED,
    why="waiting for the governor of the run",
)


class SharedPace:
    """The rate of the whole run, as the governor told it."""

    def __init__(self) -> None:
        self.news, self.opens_at = NO_NEWS, 0.0

    @property
    def per_s(self) -> float:
        """The rate that is allowed to all shards together; a rate that is not known yet is shown as a very low one."""
        return self.news.per_s or 1e-3

    def accepted_per_s(self, now: float) -> float:
        """Return the rate of answers of all shards other than refusals."""
        return self.news.accepted_per_s


class SharedCircuit:
    """The state of the gateway, as the governor told it."""

    def __init__(self) -> None:
        self.state, self.unanswered = CircuitState.CLOSED, 0
        self.probe_at: float | None = None


class SharedStall:
    """Tells the governor about progress; it decides, and stops the run."""

    def __init__(self, on_progress: Callable[[], None]) -> None:
        self.limit_s, self.last_message, self.expires_at = 0.0, "", inf
        self.record_progress = on_progress
