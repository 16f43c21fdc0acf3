"""What the report says of any number of jobs together, in constant memory."""

from __future__ import annotations

from msgspec import Struct, field

from runner.core.lifecycle import State
from runner.core.model import JobRecord
from runner.core.summary import SummaryBuilder
from runner.report.aggregates import TimeBins


class Totals(Struct):
    """
    Builds the summary of jobs and the counts of the report's charts; those of parts of a run can be merged.

    Attributes:
        bins: When jobs were submitted, and ended.
    """

    summary: SummaryBuilder = field(default_factory=SummaryBuilder)
    bins: TimeBins = field(default_factory=lambda: TimeBins(("succeeded", "other", "throttled", "submitted")))

    def add(self, record: JobRecord) -> None:
        """Add a job."""
        self.summary.add(record)
        if record.finished_at is not None:
            self.bins.add("succeeded" if record.state is State.SUCCEEDED else "other", record.finished_at)
        for attempt in record.attempts:
            kind = "throttled" if attempt.outcome == "throttled" else "submitted"
            self.bins.add(kind, attempt.submitted_at)

    def merge(self, other: Totals) -> None:
        """Add the jobs of other totals."""
        self.summary.merge(other.summary)
        self.bins.merge(other.bins)
