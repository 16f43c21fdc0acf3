"""
Every step of every job, for the logger ``runner.jobs``: what an account's bill can be compared with.

The records have the level DEBUG, their message is the name of the event, and their attribute ``fields`` has the rest.
If nobody listens, nothing is wrapped, and a run costs nothing more.
"""

from __future__ import annotations

import logging
from typing import Any, cast

from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Asset, Attempt, Failure, Job
from runner.core.outcomes import Polled, PollOutcome
from runner.worker.deliver import Deliverer
from runner.worker.poll import Poller
from runner.worker.submit import Submitter

log = logging.getLogger("runner.jobs")


def with_job_log(
    submitter: Submitter, poller: Poller, deliverer: Deliverer
) -> tuple[Submitter, Poller, Deliverer]:
    """Return the steps of a job as they are, or such as log what they do if somebody listens."""
    if not log.isEnabledFor(logging.DEBUG):
        return submitter, poller, deliverer
    return (
        replace(submitter, store=cast(Any, LoggedStore(submitter.store))),
        cast(Poller, LoggedPoller(poller)),
        replace(deliverer, store=cast(Any, LoggedStore(deliverer.store))),
    )


class LoggedStore:
    """A store that logs what is saved: an intent, the answer to a submission, the end of a delivery."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        """Save a job, and log it."""
        if attempt is not None:
            _log_attempt(job, attempt)
        elif job.state is State.SUCCEEDED:
            files = [
                {"path": asset.path, "bytes": asset.bytes, "sha256": asset.sha256}
                | ({} if asset.url is None else {"url": asset.url})
                for asset in assets or ()
            ]
            _log("downloaded", job, seconds=job.download_s, files=files)
        else:
            _log("not_downloaded", job, **_error(job.error))
        number: int = self._store.save(job, attempt, assets)
        return number


class LoggedPoller:
    """A poller that logs the news of tasks: another status, and answers that show no task."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    async def poll(self, job: Job) -> PollOutcome:
        """Query a task, and log what is new."""
        status = job.remote_status
        outcome = await self._poller.poll(job)
        if not isinstance(outcome, Polled):
            _log("poll", job, outcome=type(outcome).__name__.lower(), **_error(outcome.failure))
        elif job.remote_status != status:
            _log(
                "poll",
                job,
                outcome="polled",
                status=job.remote_status,
                state=job.state.value,
                **_error(job.error),
            )
        return outcome


def _log_attempt(job: Job, attempt: Attempt) -> None:
    name = {"pending": "intent", "throttled": "throttle"}.get(attempt.outcome, "answer")
    fields: dict[str, Any] = {"attempt": attempt.number, "model": job.model, "key": attempt.key}
    if name != "intent":
        fields |= {"outcome": attempt.outcome, "http_status": attempt.http_status, **_error(attempt.error)}
    _log(name, job, **fields)


def _error(failure: Failure | None) -> dict[str, Any]:
    return {} if failure is None else {"error_class": failure.cls.value, "message": failure.message}


def _log(name: str, job: Job, **fields: Any) -> None:
    log.debug(name, extra={"fields": {"job_id": job.job_id, "task_id": job.task_id, **fields}})
