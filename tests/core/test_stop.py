"""Exit codes, from why a run stopped and the states of its jobs."""

from __future__ import annotations

import pytest

from runner.core.lifecycle import State
from runner.core.stop import Stop, StopReason, exit_code


@pytest.mark.parametrize(
    ("reasons", "counts", "code"),
    [
        ((), {State.SUCCEEDED: 3}, 0),
        ((StopReason.DEADLINE,), {State.SUCCEEDED: 3}, 0),
        ((StopReason.DEADLINE,), {State.SUCCEEDED: 2, State.FAILED: 1}, 1),
        ((StopReason.DEADLINE,), {State.PENDING: 1, State.FAILED: 1}, 6),
        ((StopReason.DEADLINE, StopReason.DRAIN_ENDED), {State.SUBMITTED: 1}, 6),
        ((StopReason.DEADLINE,), {State.PENDING: 1, State.UNCERTAIN: 1}, 4),
        ((StopReason.QUOTA,), {State.PENDING: 1, State.UNCERTAIN: 1}, 3),
        ((StopReason.QUOTA, StopReason.TERMINATED), {State.PENDING: 1}, 143),
        ((StopReason.TERMINATED, StopReason.INTERRUPTED), {State.PENDING: 1}, 130),
    ],
)
def test_exit_code(reasons: tuple[StopReason, ...], counts: dict[State, int], code: int) -> None:
    """
    130 and 143 take precedence over 3, 4, 6, 1 and 0; a deadline does not count if everything was done.
    """
    assert code == exit_code([Stop(reason, "why") for reason in reasons], counts)
