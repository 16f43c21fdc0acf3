"""
The summary of a run, computed from its jobs one by one, in constant memory.

The terminal, `summary.json`, the report, the step summary and the metrics all show this one value, so that
they can't disagree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from runner.core.cost import CostSummary, CostSummaryBuilder
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.units import format_count

EXACT_UP_TO = 4096
_GROWTH = 1.02
_LOG_GROWTH = math.log(_GROWTH)
_MIN_S = 0.001


class ModelSummary(Struct, frozen=True):
    """
    The jobs of one model.

    Attributes:
        by_state: Every state, including those without a job.
        generate: From submission until a poll showed success, of the jobs that came so far.
    """

    jobs: int
    by_state: Mapping[State, int]
    generate: DurationSummary | None


class Summary(Struct, frozen=True):
    """
    All jobs of a run.

    Attributes:
        by_state: Every state, including those without a job.
        by_class: Jobs that have not succeeded, by failure class, most frequent first.
        by_model: The model with most jobs first.
        generate: From submission until a poll showed success.
        download: From that poll until every asset was durable.
        assets: Number of delivered files.
        asset_bytes: Their total size.
        attempts: POSTs that were recorded, and tasks that were attached.
        throttled: POSTs that the API answered with "too many requests".
        cost: What the attempts cost, as far as their prices are known.
        first_submitted_at: When the first attempt was made, or None.
        last_finished_at: When the last job ended, or None.
    """

    jobs: int
    by_state: Mapping[State, int]
    by_class: Mapping[FailureClass, int]
    by_model: Mapping[str, ModelSummary]
    generate: DurationSummary | None
    download: DurationSummary | None
    assets: int
    asset_bytes: int
    attempts: int
    throttled: int
    polls: int
    warnings: int
    first_submitted_at: float | None
    last_finished_at: float | None
    cost: CostSummary = CostSummary()


def headline(summary: Summary) -> str:
    """
    Return a sentence about how many jobs succeeded.

    >>> headline(summarize([]))
    'There was nothing to do.'
    """
    jobs, succeeded = summary.jobs, summary.by_state[State.SUCCEEDED]
    if not jobs:
        return "There was nothing to do."
    if succeeded == jobs:
        return "The job succeeded." if jobs == 1 else f"All {jobs:,} jobs succeeded."
    return f"{succeeded:,} of {format_count(jobs, 'job')} succeeded."


def summarize(records: Iterable[JobRecord]) -> Summary:
    """
    Summarize the jobs of a run; they are read once and not kept in memory.

    >>> summarize([]).jobs
    0
    """
    builder = SummaryBuilder()
    for record in records:
        builder.add(record)
    return builder.summary()


class SummaryBuilder:
    """Builds a summary job by job, for a caller that does something else with the jobs too."""

    def __init__(self) -> None:
        self._by_class: Counter[FailureClass] = Counter()
        self._models: dict[str, _ModelSummaryBuilder] = {}
        self._generate = DurationHistogram()
        self._download = DurationHistogram()
        self._counts: Counter[str] = Counter()
        self._cost = CostSummaryBuilder()
        self._first_at: float | None = None
        self._last_at: float | None = None

    def add(self, record: JobRecord) -> None:
        """Add a job."""
        model = self._models.get(record.model)
        if model is None:
            model = self._models[record.model] = _ModelSummaryBuilder()
        model.by_state[record.state] += 1
        if record.error is not None and record.state is not State.SUCCEEDED:
            self._by_class[record.error.cls] += 1
        if record.generate_s is not None:
            self._generate.add(record.generate_s)
            model.generate.add(record.generate_s)
        if record.download_s is not None:
            self._download.add(record.download_s)
        self._count(record)
        for cost in record.costs:
            self._cost.add(record.model, cost)
        self._extend_period(record)

    def _count(self, record: JobRecord) -> None:
        counts = self._counts
        counts["polls"] += record.polls
        counts["warnings"] += len(record.warnings)
        for asset in record.assets:
            counts["assets"] += 1
            counts["asset_bytes"] += asset.bytes
        for attempt in record.attempts:
            counts["attempts"] += 1
            counts["throttled"] += attempt.outcome == "throttled"

    def _extend_period(self, record: JobRecord) -> None:
        first_at = record.attempts[0].submitted_at if record.attempts else record.submitted_at
        if first_at is not None and (self._first_at is None or first_at < self._first_at):
            self._first_at = first_at
        last_at = record.finished_at
        if last_at is not None and (self._last_at is None or last_at > self._last_at):
            self._last_at = last_at

    def summary(self) -> Summary:
        """Return the summary of the jobs so far."""
        by_state: Counter[State] = Counter()
        for model in self._models.values():
            by_state.update(model.by_state)
        counts = self._counts
        models = sorted(self._models.items(), key=lambda item: (-item[1].by_state.total(), item[0]))
        return Summary(
            jobs=by_state.total(),
            by_state=_every_state(by_state),
            by_class=dict(self._by_class.most_common()),
            by_model={name: model.summary() for name, model in models},
            generate=self._generate.durations(),
            download=self._download.durations(),
            assets=counts["assets"],
            asset_bytes=counts["asset_bytes"],
            attempts=counts["attempts"],
            throttled=counts["throttled"],
            polls=counts["polls"],
            warnings=counts["warnings"],
            first_submitted_at=self._first_at,
            last_finished_at=self._last_at,
            cost=self._cost.summary(),
        )

    def generate_counts(self) -> dict[str, dict[int, int]]:
        """Return the distribution of generation times by model: the number of jobs in each `bucket`."""
        return {name: model.generate.counts() for name, model in self._models.items()}


class _ModelSummaryBuilder:
    def __init__(self) -> None:
        self.by_state: Counter[State] = Counter()
        self.generate = DurationHistogram()

    def summary(self) -> ModelSummary:
        """Return the summary of the model's jobs so far."""
        return ModelSummary(
            jobs=self.by_state.total(),
            by_state=_every_state(self.by_state),
            generate=self.generate.durations(),
        )


def _every_state(counts: Counter[State]) -> dict[State, int]:
    return {state: counts[state] for state in State}


class DurationSummary(Struct, frozen=True):
    """Statistics of a set of durations, in seconds; p50 and p90 by nearest rank."""

    count: int
    mean_s: float
    p50_s: float
    p90_s: float
    max_s: float


class DurationHistogram:
    """
    Collects durations in constant memory.

    Up to `EXACT_UP_TO` of them, the quantiles are exact. With more, they are within 1 % of a duration that
    occurred, because durations are counted in buckets that grow by 2 %. Count, mean and maximum are exact.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sum_s = 0.0
        self._max_s = 0.0
        self._exact: list[float] | None = []
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Add a duration; a negative one (the clock was set back) counts as 0."""
        seconds = max(0.0, seconds)
        self._count += 1
        self._sum_s += seconds
        self._max_s = max(self._max_s, seconds)
        self._buckets[bucket(seconds)] += 1
        if self._exact is not None:
            self._exact.append(seconds)
            if self._count > EXACT_UP_TO:
                self._exact = None

    def durations(self) -> DurationSummary | None:
        """Return the statistics of the durations so far; None if there are none."""
        if not self._count:
            return None
        exact = None if self._exact is None else sorted(self._exact)
        ranks = [math.ceil(share * self._count) for share in (0.5, 0.9)]
        p50_s, p90_s = (self._at_rank(rank) if exact is None else exact[rank - 1] for rank in ranks)
        return DurationSummary(
            count=self._count,
            mean_s=self._sum_s / self._count,
            p50_s=min(p50_s, self._max_s),
            p90_s=min(p90_s, self._max_s),
            max_s=self._max_s,
        )

    def counts(self) -> dict[int, int]:
        """Return the number of durations in each `bucket`, the smallest first."""
        return dict(sorted(self._buckets.items()))

    def _at_rank(self, rank: int) -> float:
        total = 0
        for index, count in sorted(self._buckets.items()):
            total += count
            if total >= rank:
                return bucket_middle_s(index)
        return self._max_s


def bucket(seconds: float) -> int:
    """
    Return the bucket of a duration; bucket 0 has everything up to a millisecond.

    >>> bucket(0.0), bucket(0.001), bucket(10.0) < bucket(10.3)
    (0, 0, True)
    """
    if seconds <= _MIN_S:
        return 0
    return math.ceil(math.log(seconds / _MIN_S) / _LOG_GROWTH)


def bucket_middle_s(index: int) -> float:
    """
    Return the duration that represents a bucket: at most 1 % from any duration in it.

    >>> abs(bucket_middle_s(bucket(93.1)) - 93.1) < 0.94
    True
    """
    return _MIN_S * 2 * _GROWTH**index / (1 + _GROWTH)
