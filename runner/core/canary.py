"""Submit a few jobs first, and the others only once enough of these have a video."""

from __future__ import annotations

from runner.core.lifecycle import State
from runner.core.settings import CanaryPolicy
from runner.core.stop import Stop, StopReason
from runner.core.units import format_count


class CanaryGate:
    """
    Holds jobs back until enough of the first ones have a video.

    Args:
        policy: None lets all jobs through.
        succeeded: Jobs of the run that have a video already; if they are enough, all jobs go through.
        in_flight: Jobs of earlier processes that have not ended; they count as first ones.

    >>> gate = CanaryGate(CanaryPolicy(jobs=2, succeed=1), succeeded=0, in_flight=0)
    >>> gate.record_submitted(), gate.is_closed, gate.record_submitted(), gate.is_closed
    (None, False, None, True)
    >>> gate.record_end(State.SUCCEEDED, pending=5), gate.is_closed
    (None, False)
    """

    def __init__(self, policy: CanaryPolicy | None, *, succeeded: int, in_flight: int) -> None:
        self._policy = policy if policy is not None and succeeded < policy.succeed else None
        self._submitted = in_flight
        self._ended = 0
        self._succeeded = succeeded

    @property
    def is_closed(self) -> bool:
        """Whether no job may be submitted until others have ended."""
        return self._policy is not None and self._submitted >= self._policy.jobs

    @property
    def why(self) -> str:
        """What holds the next job back, in words."""
        assert self._policy is not None
        return f"canary: {self._succeeded} of the first {self._policy.jobs} have a video, {self._policy.succeed} needed"

    def record_earlier(self, *, succeeded: int, in_flight: int) -> None:
        """Count more jobs of earlier processes."""
        self._submitted += in_flight
        self._succeeded += succeeded
        if self._policy is not None and self._succeeded >= self._policy.succeed:
            self._policy = None

    def record_submitted(self) -> None:
        """Count a job that is submitted."""
        self._submitted += 1

    def record_not_submitted(self) -> None:
        """Take back a job whose submission made no task, and which is submitted again."""
        self._submitted -= 1

    def record_end(self, state: State, *, pending: int) -> Stop | None:
        """
        Count a job that ended; return why the run must stop, or None.

        Args:
            pending: Jobs that are still to be submitted.
        """
        policy = self._policy
        if policy is None:
            return None
        self._ended += 1
        self._succeeded += state is State.SUCCEEDED
        if self._succeeded >= policy.succeed:
            self._policy = None
            return None
        left = max(0, self._submitted - self._ended) + max(0, policy.jobs - self._submitted)
        if self._succeeded + left >= policy.succeed or not pending:
            return None
        videos = f"{self._succeeded:,} of the first {format_count(policy.jobs, 'job')} have a video"
        return Stop(
            StopReason.CANARY,
            f"{videos}, fewer than canary.succeed {policy.succeed}; the others were not submitted",
            "find out why with runner status, then run the same command again",
        )
