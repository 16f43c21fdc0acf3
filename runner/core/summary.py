"""
What a run came to, folded from its jobs one by one, in constant memory.

The terminal, `summary.json`, the report, the step summary and the metrics all
show this one value, so that they can't disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from runner.core.durations import Durations, DurationTally
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.value import frozen


@frozen
class ModelSummary:
    """
    The jobs of one model.

    Attributes:
        by_state: Every state, those without a job included.
        generate: From submission until success was seen, of the jobs that got so far.
    """

    jobs: int
    by_state: Mapping[State, int]
    generate: Durations | None


@frozen
class Summary:
    """
    All jobs of a run.

    Attributes:
        by_state: Every state, those without a job included.
        by_class: Jobs that are not succeeded by the class of their failure, most frequent first.
        by_model: Most jobs first.
        download: From success seen until every asset was durable.
        assets: Files that were delivered.
        asset_bytes: Their size together.
        attempts: POSTs that were recorded, and tasks that were adopted.
        throttled: Those of them that the API answered with "too many requests".
        first_submitted_at: When the first attempt was made, or None.
        last_finished_at: When the last job came to rest, or None.
    """

    jobs: int
    by_state: Mapping[State, int]
    by_class: Mapping[FailureClass, int]
    by_model: Mapping[str, ModelSummary]
    generate: Durations | None
    download: Durations | None
    assets: int
    asset_bytes: int
    attempts: int
    throttled: int
    polls: int
    warnings: int
    first_submitted_at: float | None
    last_finished_at: float | None


def summarise(records: Iterable[JobRecord]) -> Summary:
    """
    Fold the jobs of a run into its summary; they are read once and not kept.

    >>> summarise([]).jobs
    0
    """
    tally = SummaryTally()
    for record in records:
        tally.add(record)
    return tally.summary()


class SummaryTally:
    """Takes jobs in one by one, for a reader that does something else with them as well."""

    def __init__(self) -> None:
        self._by_class: Counter[FailureClass] = Counter()
        self._models: dict[str, _ModelTally] = {}
        self._generate = DurationTally()
        self._download = DurationTally()
        self._counts: Counter[str] = Counter()
        self._first_at: float | None = None
        self._last_at: float | None = None

    def add(self, record: JobRecord) -> None:
        """Take in one job."""
        model = self._models.get(record.model)
        if model is None:
            model = self._models[record.model] = _ModelTally()
        model.by_state[record.state] += 1
        if record.error is not None and record.state is not State.SUCCEEDED:
            self._by_class[record.error.cls] += 1
        if record.generate_s is not None:
            self._generate.add(record.generate_s)
            model.generate.add(record.generate_s)
        if record.download_s is not None:
            self._download.add(record.download_s)
        self._count(record)
        self._stretch(record)

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

    def _stretch(self, record: JobRecord) -> None:
        first_at = record.attempts[0].submitted_at if record.attempts else record.submitted_at
        if first_at is not None and (self._first_at is None or first_at < self._first_at):
            self._first_at = first_at
        last_at = record.finished_at
        if last_at is not None and (self._last_at is None or last_at > self._last_at):
            self._last_at = last_at

    def summary(self) -> Summary:
        """Say what was taken in comes to."""
        by_state: Counter[State] = Counter()
        for model in self._models.values():
            by_state.update(model.by_state)
        counts = self._counts
        models = sorted(self._models.items(), key=lambda item: (-item[1].by_state.total(), item[0]))
        return Summary(
            jobs=by_state.total(),
            by_state=_every_state(by_state),
            by_class=dict(self._by_class.most_common()),
            by_model={name: tally.summary() for name, tally in models},
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
        )

    def generate_counts(self) -> dict[str, dict[int, int]]:
        """Give the distribution of generation times by model: the number of jobs in each `durations.bucket`."""
        return {name: tally.generate.counts() for name, tally in self._models.items()}


class _ModelTally:
    def __init__(self) -> None:
        self.by_state: Counter[State] = Counter()
        self.generate = DurationTally()

    def summary(self) -> ModelSummary:
        """Give what was counted so far."""
        return ModelSummary(
            jobs=self.by_state.total(),
            by_state=_every_state(self.by_state),
            generate=self.generate.durations(),
        )


def _every_state(counts: Counter[State]) -> dict[State, int]:
    return {state: counts[state] for state in State}
