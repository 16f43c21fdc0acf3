"""Take over what ``results.jsonl`` knows into a ``run.db`` that is older than it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from msgspec.structs import replace

from runner.core.filenames import RESULTS_NAME
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, JobRecord
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.manifest.job_digest import request_digest
from runner.results.inline_media import restore_inline_media
from runner.results.reader import open_results
from runner.store import query
from runner.store.evidence import jobs_with_unknown_assets
from runner.store.store import Store
from runner.store.transitions import adopt_records, mark_uncertain

_WITH_A_TASK = (State.SUBMITTED, State.DOWNLOADING, State.TIMED_OUT, State.UNDELIVERED)


def adopt_results(store: Store, observe: Observer) -> None:
    """
    Add the attempts, tasks and assets to the store that only the results have, and report how many jobs changed.

    A job that only has a file in the folder of assets becomes uncertain: its task is not known. What the results
    do not have either remains unknown, such as tasks that were being rendered when the process was killed.

    Raises:
        ResultsError: The results can't be read.
    """
    now_at = time.time()
    path = store.run_dir / RESULTS_NAME
    with store.transaction() as connection:
        adopted = adopt_records(connection, _records(store, now_at), at=now_at) if path.exists() else 0
        why = "its file is in the folder of assets, and neither run.db nor the results know its task"
        unknown = list(jobs_with_unknown_assets(connection, store.run_dir))
        mark_uncertain(connection, unknown, Failure(FailureClass.UNCERTAIN_SUBMIT, why), at=now_at)
    pending = query.counts(store.reader, with_gone=False)[State.PENDING]
    message = f"taken over from {path}: {format_count(adopted, 'job')}"
    if unknown:
        message += f"; uncertain, since only their files are there: {format_count(len(unknown), 'job')}"
    observe(Notice("adopted", message))
    if pending:
        # Which of them had a task when the process was killed is written nowhere.
        message = (
            f"{format_count(pending, 'job')} without a line there count as never submitted; what was submitted just "
            "before a kill has no line either, and would be paid for again"
        )
        hint = "--limit 0 submits nothing while you look for such tasks in the account"
        observe(Notice("warning", message, hint))
        observe(
            Notice("warning", f"to take over such a task: runner resolve {store.run_dir} JOB --task-id ID")
        )


def _records(store: Store, now_at: float) -> Iterator[JobRecord]:
    for result in open_results(store.run_dir / RESULTS_NAME):
        request = restore_inline_media(result.record.request).request
        record = replace(result.record, request=request, digest=request_digest(request))
        yield as_left_by_a_process(record, now_at)


def as_left_by_a_process(record: JobRecord, now_at: float) -> JobRecord:
    """Return a job of a results file as a later process must treat it: without its task's id it is uncertain."""
    if record.state is State.SUBMITTING:
        why = "the results were written before its POST was answered"
    elif record.state in _WITH_A_TASK and not record.task_id:
        why = f"the results call it {record.state} and do not name its task"
    else:
        return record
    failure = Failure(FailureClass.UNCERTAIN_SUBMIT, why)
    return replace(record, state=State.UNCERTAIN, error=failure, finished_at=now_at)
