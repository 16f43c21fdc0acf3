"""The tasks in which steps run: taken again, counted, and ended."""

from __future__ import annotations

import asyncio
from typing import cast

from runner.core.lifecycle import State
from runner.engine.progress import JobTasks, RunProgress
from tests.engine.fakes import job_in_memory

JOB = job_in_memory("a", State.PENDING)
NO_PROGRESS = cast(RunProgress, None)
"""No step here ends with an error, so nothing is reported."""


async def test_a_step_runs_in_the_task_of_an_earlier_one() -> None:
    """It is counted while it runs, its end is reported once, and `wait` leaves no task behind."""
    ended = asyncio.Event()
    ran_in: list[object] = []
    steps = JobTasks(NO_PROGRESS, on_step_end=ended.set)

    async def step() -> None:
        ran_in.append(asyncio.current_task())

    for _ in range(3):
        ended.clear()
        steps.start(step, JOB)
        assert 1 == len(steps.busy)
        await ended.wait()
        assert 0 == len(steps.busy)
    await steps.wait()

    assert [ran_in[0]] * 3 == ran_in
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_a_step_that_is_canceled_before_it_begins_has_an_end() -> None:
    """In a new task as in one that had a step before; and a later step gets a task of its own."""
    ends: list[None] = []
    ran: list[str] = []
    steps = JobTasks(NO_PROGRESS, on_step_end=lambda: ends.append(None))

    async def step() -> None:
        ran.append("step")

    for _ in range(2):
        steps.start(step, JOB)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        steps.start(step, JOB)
        steps.cancel()
        await steps.wait()

    assert (["step"] * 2, 4, 0) == (ran, len(ends), len(steps.busy))
