"""Generation times by model, on one axis, for the page to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping

from runner.core.durations import bucket_middle_s
from runner.core.value import frozen

_BARS = 40
_LOGARITHMIC_FROM = 12


@frozen
class Histogram:
    """
    Counts of durations in bars between shared edges.

    Attributes:
        edges_s: One more than there are bars. Evenly spaced, or evenly by their logarithm where
            the longest is more than 12 times the shortest.
    """

    edges_s: list[float]
    is_logarithmic: bool
    counts: dict[str, list[int]]


def histogram(counts_by_model: Mapping[str, Mapping[int, int]]) -> Histogram | None:
    """Regroup the fine buckets of `core.durations` into bars; None where there is nothing to draw."""
    used = [index for counts in counts_by_model.values() for index in counts]
    if not used:
        return None
    low, high = bucket_middle_s(min(used)) * 0.99, bucket_middle_s(max(used)) * 1.01
    is_logarithmic = high > low * _LOGARITHMIC_FROM
    scale, back = (math.log, math.exp) if is_logarithmic else (float, float)
    step = (scale(high) - scale(low)) / _BARS
    rows: dict[str, list[int]] = {}
    for model, counts in counts_by_model.items():
        row = rows[model] = [0] * _BARS
        for index, count in counts.items():
            place = int((scale(bucket_middle_s(index)) - scale(low)) / step)
            row[min(max(place, 0), _BARS - 1)] += count
    edges_s = [round(back(scale(low) + step * place), 3) for place in range(_BARS + 1)]
    return Histogram(edges_s, is_logarithmic, rows)
