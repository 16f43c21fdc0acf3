"""Verdicts on the videos of a run, and which one counts."""

from __future__ import annotations

from runner.core.model import JobRecord


class Verdicts(dict[str, str]):
    """
    What people think: ``keep`` or ``reject``, by job id.

    Attributes:
        given_at: When each was given, in seconds since 1970, as far as that is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.given_at: dict[str, float] = {}

    def of(self, record: JobRecord) -> str | None:
        """Return the verdict on the video of a job: a person's, else that of checks."""
        takes = sum(attempt.made_task for attempt in record.attempts)
        verdict = self.by_person(record.job_id, takes=takes, submitted_at=record.submitted_at)
        if verdict is not None:
            return verdict
        return None if record.verdict is None else str(record.verdict["value"])

    def by_person(self, job_id: str, *, takes: int, submitted_at: float | None) -> str | None:
        """
        Return a person's verdict on the newest take of a job.

        Args:
            takes: How many takes there are; what was said before the newest one was submitted is about an earlier one.
            submitted_at: When the newest one was submitted, in seconds since 1970.
        """
        at = self.given_at.get(job_id)
        if takes > 1 and at is not None and submitted_at is not None and at < submitted_at:
            return None
        return self.get(job_id)
