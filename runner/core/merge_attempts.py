"""
Unite what two runs know of one job, when a rerun on another machine is merged into the run.

Every attempt of both is kept, since each may have been paid for; the state is that of the run in which the job got
further.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

from runner.core.cost import Cost
from runner.core.lifecycle import State
from runner.core.model import MAY_HAVE_PAID_TASK, Attempt, JobRecord

_PROGRESS = (
    State.PENDING,
    State.FAILED,
    State.SUBMITTING,
    State.UNCERTAIN,
    State.SUBMITTED,
    State.TIMED_OUT,
    State.DOWNLOADING,
    State.UNDELIVERED,
    State.SUCCEEDED,
)


class United(Struct, frozen=True):
    """
    A job that two runs know.

    Attributes:
        record: With the attempts of both.
        attempt: Number of the attempt that the state belongs to; 0 if there is none.
        is_other: Whether the other run got further.
    """

    record: JobRecord
    attempt: int
    is_other: bool


def progress(record: JobRecord) -> int:
    """Rank how far a job got, by what would be lost without it: videos, then tasks, then uncertain submissions."""
    if record.error is not None and record.error.cls in MAY_HAVE_PAID_TASK and record.state is State.FAILED:
        return _PROGRESS.index(State.SUBMITTING)
    return _PROGRESS.index(record.state)


def unite(home: JobRecord, other: JobRecord) -> United:
    """
    Unite two records of one job; of two that got equally far, the one with the later end counts.

    The attempts of `home` keep their numbers, and those that only `other` has get the next ones. An attempt is the
    same in both if it was sent at the same millisecond, which is how results files have it; ends are compared likewise.
    """
    numbers = {_sent_ms(attempt): attempt.number for attempt in home.attempts}
    attempts = list(home.attempts)
    last = max(numbers.values(), default=0)
    for attempt in sorted(other.attempts, key=lambda attempt: attempt.submitted_at):
        if (sent := _sent_ms(attempt)) not in numbers:
            last = numbers[sent] = last + 1
            attempts.append(replace(attempt, number=last))
        elif attempt.outcome != "pending":
            attempts = [_later(old, attempt) if _sent_ms(old) == sent else old for old in attempts]
    is_other = (progress(other), _ms(other.finished_at or 0.0)) > (
        progress(home),
        _ms(home.finished_at or 0.0),
    )
    winner = other if is_other else home
    own = max(winner.attempts, key=lambda attempt: attempt.number, default=None)
    of_other = {numbers[_sent_ms(attempt)] for attempt in other.attempts}
    record = replace(
        winner,
        costs=unite_costs(home.costs, other.costs, of_other, is_other=is_other),
        job_id=home.job_id,
        index=home.index,
        metadata=home.metadata,
        request=home.request,
        attempts=tuple(attempts),
    )
    return United(record, 0 if own is None else numbers[_sent_ms(own)], is_other)


def unite_costs(
    home: tuple[Cost, ...], other: tuple[Cost, ...], of_other: Collection[int], *, is_other: bool
) -> tuple[Cost, ...]:
    """
    Unite the costs of a job's attempts with what a results file says that all of its own cost together.

    Args:
        of_other: Numbers of the file's attempts among all.
        is_other: Whether the file knows more of those that both have.
    """
    newest = max(of_other, default=0)
    if not other or not newest or (not is_other and any(cost.number == newest for cost in home)):
        return home
    kept = [cost for cost in home if cost.number != newest]
    both = [cost for cost in kept if cost.number in of_other and cost.currency == other[-1].currency]
    reserved, settled = other[-1].reserved - sum(cost.reserved for cost in both), other[-1].settled
    if settled is not None:
        settled = max(0, settled - sum(cost.amount for cost in both))
    return (*kept, replace(other[-1], number=newest, reserved=max(0, reserved), settled=settled))


def _later(old: Attempt, new: Attempt) -> Attempt:
    """Return what is known of one attempt: an outcome instead of none."""
    return replace(new, number=old.number, key=old.key) if old.outcome == "pending" else old


def _sent_ms(attempt: Attempt) -> int:
    return _ms(attempt.submitted_at)


def _ms(at: float) -> int:
    return round(at * 1000)
