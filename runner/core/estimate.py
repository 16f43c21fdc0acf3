"""How long a run has still to go: a guess from the limits and from what was seen so far."""

from __future__ import annotations


def seconds_left(
    *, pending: int, under_way: int, in_flight: int, submit_per_s: float, usual_s: float | None
) -> float | None:
    """
    Estimate how long the jobs take that are not at rest; None where there is nothing to go by.

    Jobs leave either as fast as they may be submitted, or as fast as the tasks that may exist at once are
    finished, whichever is slower; the last of them then takes its usual time.

    Args:
        pending: Jobs still to be submitted.
        under_way: Jobs that were submitted, and are not at rest.
        in_flight: Remote tasks that may exist at once.
        usual_s: How long a job usually takes from its submission; None where none has finished yet.

    >>> seconds_left(pending=60, under_way=0, in_flight=8, submit_per_s=1.0, usual_s=None)
    60.0
    >>> seconds_left(pending=80, under_way=8, in_flight=8, submit_per_s=1.0, usual_s=90.0)
    990.0
    >>> seconds_left(pending=0, under_way=3, in_flight=8, submit_per_s=1.0, usual_s=None)
    """
    if not pending and not under_way:
        return 0.0
    if usual_s is None:
        return pending / submit_per_s if pending else None
    per_s = min(submit_per_s, in_flight / usual_s) if usual_s > 0 else submit_per_s
    return pending / per_s + usual_s
