"""How long jobs will take within the limits, and which limit decides that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from runner.core.settings import Limits
from runner.core.units import format_rate


class Estimate(Struct, frozen=True):
    """
    An estimate of the time left.

    Attributes:
        seconds: Until the last job has ended, if nothing goes wrong.
        limited_by: The limit that decides it, as the manifest names it; empty if there is nothing to do.
    """

    seconds: float
    limited_by: str


def estimate_duration(
    pending: Mapping[str, int], limits: Limits, mean_generate_s: Mapping[str, float]
) -> Estimate:
    """
    Estimate how long it takes to submit and finish so many jobs of each model.

    If no duration is known, only the rates decide. Otherwise the number of tasks that may exist at once counts
    too, and the last job has to finish; a model without known durations is assumed to be like the others.

    Args:
        pending: Jobs to submit, by model.
        mean_generate_s: How long a task takes, by model, as far as known.

    >>> estimate_duration({"wan2.7-i2v": 120}, Limits(submit_per_s=1.0), {})
    Estimate(seconds=120.0, limited_by='limits.submit 1/s')
    >>> estimate_duration({"wan2.7-i2v": 120}, Limits(submit_per_s=1.0, in_flight=8), {"wan2.7-i2v": 90.0})
    Estimate(seconds=1350.0, limited_by='limits.in_flight 8')
    """
    jobs = {model: count for model, count in pending.items() if count}
    if not jobs:
        return Estimate(0.0, "")
    known = [mean_generate_s[model] for model in jobs if model in mean_generate_s] or list(
        mean_generate_s.values()
    )
    default_s = sum(known) / len(known) if known else 0.0
    task_s = {model: mean_generate_s.get(model, default_s) for model in jobs}
    seconds, limited_by = max(_minimum_times(jobs, limits, task_s))
    return Estimate(seconds, limited_by)


def seconds_left(
    pending: Mapping[str, int], in_flight: int, limits: Limits, mean_generate_s: Mapping[str, float]
) -> float | None:
    """
    Estimate how many seconds a run will still take; None if nothing is known about it.

    Args:
        pending: Jobs to submit, by model.
        in_flight: Jobs that were submitted and have not ended.
        mean_generate_s: How long a task takes, by model, as far as known.

    >>> seconds_left({}, 3, Limits(), {"wan2.7-i2v": 90.0})
    90.0
    >>> seconds_left({}, 3, Limits(), {})
    """
    if any(pending.values()):
        return estimate_duration(pending, limits, mean_generate_s).seconds
    if not in_flight:
        return 0.0
    return max(mean_generate_s.values(), default=None)


def _minimum_times(
    jobs: Mapping[str, int], limits: Limits, task_s: Mapping[str, float]
) -> Iterator[tuple[float, str]]:
    """Yield the shortest time that each limit alone allows, with the limit's name."""
    last_s = max(task_s.values())
    total = sum(jobs.values())
    yield total / limits.submit_per_s + last_s, f"limits.submit {format_rate(limits.submit_per_s)}"
    busy_s = sum(count * task_s[model] for model, count in jobs.items())
    # With fewer jobs than slots, the longest task decides.
    yield max(busy_s / limits.in_flight, last_s), f"limits.in_flight {limits.in_flight}"
    for model, count in jobs.items():
        own = limits.models.get(model)
        if own is not None and own.submit_per_s is not None:
            rate = format_rate(own.submit_per_s)
            yield count / own.submit_per_s + task_s[model], f"limits.models.{model}.submit {rate}"
        if own is not None and own.in_flight is not None:
            yield (
                max(count * task_s[model] / own.in_flight, task_s[model]),
                f"limits.models.{model}.in_flight {own.in_flight}",
            )
