"""Who has a task: jobs of earlier processes, jobs that were just saved, and nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.model import Attempt
from runner.store import query, work_list
from runner.store.store import Store
from runner.store.work_list import JobFilter
from tests.store.jobs import make_spec, sync_jobs

MANY = 40


async def save_tasks(store: Store, first: int, count: int) -> None:
    """Save a task for each of some pending jobs, each in a commit of its own."""
    found = work_list.pending(
        store.reader,
        "wan2.7-i2v",
        after=(first - 1, first),
        count=count,
        scope=JobFilter(),
        waiting_since=0.0,
    )
    assert count == len(found)
    for job, _ in found:
        await store.durable(store.save(job, Attempt(1, 5.0, "accepted", f"task-of-{job.job_id}")))


async def test_tasks_of_an_earlier_process_are_known(tmp_path: Path) -> None:
    """Each is found with its job, and a new one is not."""
    with Store(tmp_path / "run") as store:
        sync_jobs(store, *(make_spec(f"job-{number}", number) for number in range(MANY)))
        async with store:
            await save_tasks(store, 0, MANY)

    with Store(tmp_path / "run") as store:
        owners = [store.task_owner(f"task-of-job-{number}") for number in range(MANY)]
        unknown = [store.task_owner(f"another-{number}") for number in range(MANY)]

    assert [f"job-{number}" for number in range(MANY)] == owners
    assert [None] * MANY == unknown


async def test_tasks_that_are_no_longer_held_in_memory_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are committed are forgotten now and then; the store is asked for them."""
    monkeypatch.setattr(query, "_MAX_UNCOMMITTED", 3)
    with Store(tmp_path / "run") as store:
        sync_jobs(store, *(make_spec(f"job-{number}", number) for number in range(MANY)))
        async with store:
            # The first question comes before the first task.
            assert store.task_owner("task-of-job-0") is None
            await save_tasks(store, 0, MANY)

            owners = [store.task_owner(f"task-of-job-{number}") for number in range(MANY)]

    assert [f"job-{number}" for number in range(MANY)] == owners
