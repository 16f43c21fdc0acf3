"""
The summary of a run, computed from its jobs one by one, in constant memory.

The terminal, `summary.json`, the report, the step summary and the metrics all show this one value, so that
they can't disagree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from msgspec import Struct, field

from runner.core.cost import CostSummary, CostSummaryBuilder
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.units import format_count

EXACT_UP_TO = 4096
_GROWTH = 1.02
_LOG_GROWTH = math.log(_GROWTH)
_MIN_S = 0.001

Key = TypeVar("Key", bound=str | int)


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
        awaiting_take: Pending jobs that had a video, which was rejected and is kept until there is a new one.
        rejected: Jobs that succeeded and whose video checks reject.
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
    awaiting_take: int = 0
    rejected: int = 0


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


def takes_text(waiting: int) -> str:
    """
    Return what became of rejected videos whose new takes were not submitted yet.

    >>> takes_text(2)
    '2 of the pending jobs wait for a new take; their rejected videos are kept, and not exported'
    """
    jobs, their = ("1 of the pending jobs waits", "its rejected video is")
    if waiting != 1:
        jobs, their = (f"{waiting:,} of the pending jobs wait", "their rejected videos are")
    return f"{jobs} for a new take; {their} kept, and not exported"


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


class SummaryBuilder(Struct):
    """
    Builds a summary job by job, for a caller that does something else with the jobs too.

    Builders of parts of a run can be merged, and stored by msgspec.
    """

    by_class: dict[FailureClass, int] = field(default_factory=dict)
    models: dict[str, ModelSummaryBuilder] = field(default_factory=dict)
    generate: DurationHistogram = field(default_factory=lambda: DurationHistogram())
    download: DurationHistogram = field(default_factory=lambda: DurationHistogram())
    numbers: dict[str, int] = field(default_factory=dict)
    cost: CostSummaryBuilder = field(default_factory=CostSummaryBuilder)
    first_at: float | None = None
    last_at: float | None = None

    def add(self, record: JobRecord) -> None:
        """Add a job."""
        model = self.models.get(record.model)
        if model is None:
            model = self.models[record.model] = ModelSummaryBuilder()
        model.by_state[record.state] = model.by_state.get(record.state, 0) + 1
        if record.error is not None and record.state is not State.SUCCEEDED:
            self.by_class[record.error.cls] = self.by_class.get(record.error.cls, 0) + 1
        if record.generate_s is not None:
            self.generate.add(record.generate_s)
            model.generate.add(record.generate_s)
        if record.download_s is not None:
            self.download.add(record.download_s)
        add_counts(self.numbers, _numbers(record))
        for cost in record.costs:
            self.cost.add(record.model, cost)
        first_at = record.attempts[0].submitted_at if record.attempts else record.submitted_at
        self._extend_period(first_at, record.finished_at)

    def merge(self, other: SummaryBuilder) -> None:
        """Add the jobs of another builder."""
        add_counts(self.by_class, other.by_class)
        add_counts(self.numbers, other.numbers)
        for name, model in other.models.items():
            own = self.models.setdefault(name, ModelSummaryBuilder())
            add_counts(own.by_state, model.by_state)
            own.generate.merge(model.generate)
        self.generate.merge(other.generate)
        self.download.merge(other.download)
        self.cost.merge(other.cost)
        self._extend_period(other.first_at, other.last_at)

    def _extend_period(self, first_at: float | None, last_at: float | None) -> None:
        if first_at is not None and (self.first_at is None or first_at < self.first_at):
            self.first_at = first_at
        if last_at is not None and (self.last_at is None or last_at > self.last_at):
            self.last_at = last_at

    @property
    def is_exact(self) -> bool:
        """Whether every quantile is exact that should be."""
        return all(histogram.is_exact for _, histogram in self._histograms())

    def forget_durations(self, whole: SummaryBuilder) -> None:
        """Forget the single durations that do not count any more in a builder that this one was merged into."""
        kept = {key for key, histogram in whole._histograms() if histogram.exact is not None}
        for key, histogram in self._histograms():
            if key not in kept:
                histogram.exact = None

    def _histograms(self) -> Iterator[tuple[tuple[str, str], DurationHistogram]]:
        yield ("generate", ""), self.generate
        yield ("download", ""), self.download
        for name, model in self.models.items():
            yield ("model", name), model.generate

    def summary(self) -> Summary:
        """Return the summary of the jobs so far."""
        by_state: Counter[State] = Counter()
        for model in self.models.values():
            by_state.update(model.by_state)
        counts = Counter(self.numbers)
        models = sorted(self.models.items(), key=lambda item: (-item[1].jobs, item[0]))
        return Summary(
            jobs=by_state.total(),
            by_state=_every_state(by_state),
            by_class=dict(Counter(self.by_class).most_common()),
            by_model={name: model.summary() for name, model in models},
            generate=self.generate.durations(),
            download=self.download.durations(),
            assets=counts["assets"],
            asset_bytes=counts["asset_bytes"],
            attempts=counts["attempts"],
            throttled=counts["throttled"],
            polls=counts["polls"],
            warnings=counts["warnings"],
            first_submitted_at=self.first_at,
            last_finished_at=self.last_at,
            cost=self.cost.summary(),
            awaiting_take=counts["awaiting_take"],
            rejected=counts["rejected"],
        )

    def generate_counts(self) -> dict[str, dict[int, int]]:
        """Return the distribution of generation times by model: the number of jobs in each `bucket`."""
        return {name: model.generate.counts() for name, model in self.models.items()}


class ModelSummaryBuilder(Struct):
    """Builds the summary of one model's jobs."""

    by_state: dict[State, int] = field(default_factory=dict)
    generate: DurationHistogram = field(default_factory=lambda: DurationHistogram())

    @property
    def jobs(self) -> int:
        """The number of jobs so far."""
        return sum(self.by_state.values())

    def summary(self) -> ModelSummary:
        """Return the summary of the model's jobs so far."""
        return ModelSummary(
            jobs=self.jobs,
            by_state=_every_state(self.by_state),
            generate=self.generate.durations(),
        )


def _numbers(record: JobRecord) -> dict[str, int]:
    return {
        "polls": record.polls,
        "warnings": len(record.warnings),
        "assets": len(record.assets),
        "asset_bytes": sum(asset.bytes for asset in record.assets),
        "attempts": len(record.attempts),
        "throttled": sum(attempt.outcome == "throttled" for attempt in record.attempts),
        "awaiting_take": record.state is State.PENDING and bool(record.assets),
        "rejected": record.state is State.SUCCEEDED and record.verdict is not None,
    }


def add_counts(to: dict[Key, int], counts: Mapping[Key, int]) -> None:
    """Add counts to those of the same keys."""
    for key, count in counts.items():
        to[key] = to.get(key, 0) + count


def _every_state(counts: Mapping[State, int]) -> dict[State, int]:
    return {state: counts.get(state, 0) for state in State}


class DurationSummary(Struct, frozen=True):
    """Statistics of a set of durations, in seconds; p50 and p90 by nearest rank."""

    count: int
    mean_s: float
    p50_s: float
    p90_s: float
    max_s: float


class DurationHistogram(Struct):
    """
    Collects durations in constant memory.

    Up to `EXACT_UP_TO` of them, the quantiles are exact. With more, they are within 1 % of a duration that
    occurred, because durations are counted in buckets that grow by 2 %. Count, mean and maximum are exact.
    """

    count: int = 0
    sum_s: float = 0.0
    max_s: float = 0.0
    exact: list[float] | None = field(default_factory=list)
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Add a duration; a negative one (the clock was set back) counts as 0."""
        seconds = max(0.0, seconds)
        self.count += 1
        self.sum_s += seconds
        self.max_s = max(self.max_s, seconds)
        index = bucket(seconds)
        self.buckets[index] = self.buckets.get(index, 0) + 1
        if self.exact is not None:
            self.exact.append(seconds)
            if self.count > EXACT_UP_TO:
                self.exact = None

    def merge(self, other: DurationHistogram) -> None:
        """Add the durations of another histogram."""
        self.count += other.count
        self.sum_s += other.sum_s
        self.max_s = max(self.max_s, other.max_s)
        add_counts(self.buckets, other.buckets)
        if self.exact is None or other.exact is None or self.count > EXACT_UP_TO:
            self.exact = None
        else:
            self.exact.extend(other.exact)

    @property
    def is_exact(self) -> bool:
        """Whether the quantiles are exact, or need not be."""
        return self.exact is not None or self.count > EXACT_UP_TO

    def durations(self) -> DurationSummary | None:
        """Return the statistics of the durations so far; None if there are none."""
        if not self.count:
            return None
        exact = None if self.exact is None else sorted(self.exact)
        ranks = [math.ceil(share * self.count) for share in (0.5, 0.9)]
        p50_s, p90_s = (self._at_rank(rank) if exact is None else exact[rank - 1] for rank in ranks)
        return DurationSummary(
            count=self.count,
            mean_s=self.sum_s / self.count,
            p50_s=min(p50_s, self.max_s),
            p90_s=min(p90_s, self.max_s),
            max_s=self.max_s,
        )

    def counts(self) -> dict[int, int]:
        """Return the number of durations in each `bucket`, the smallest first."""
        return dict(sorted(self.buckets.items()))

    def _at_rank(self, rank: int) -> float:
        total = 0
        for index, count in sorted(self.buckets.items()):
            total += count
            if total >= rank:
                return bucket_middle_s(index)
        return self.max_s


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
