"""Hold a number of tasks in flight as the engine does (``heap``) or as sleeping coroutines (``tasks``); print KiB for each."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runner.core.governor import RunGovernor
from runner.core.key_pool import KeyPool
from runner.core.lifecycle import State
from runner.core.model import Job
from runner.core.settings import Settings
from runner.engine.admission import Admission
from runner.engine.polls import Polls


def resident_kib() -> float:
    """Read this process's resident size."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.0


def make(count: int) -> list[Job]:
    """Make the records, which both ways hold."""
    return [
        Job(n, f"job-{n}", n, "seedance-1-0-pro-250528", State.SUBMITTED, 1, f"task_{n}", key="ab12")
        for n in range(count)
    ]


async def hold(kind: str, count: int) -> float:
    """Hold them, and give the KiB that each takes beside its record."""
    jobs = make(count)
    before = resident_kib()
    if kind == "tasks":
        tasks = [asyncio.create_task(_sleep(job)) for job in jobs]
        await asyncio.sleep(0)
        after = resident_kib()
        for task in tasks:
            task.cancel()
        return (after - before) / count
    settings = Settings(name="benchmark")
    pool = KeyPool(["ab12"])
    context: Any = SimpleNamespace(
        settings=settings, key_pool=pool, clock=SimpleNamespace(now=time.monotonic), draw=random.random
    )
    admission = Admission(settings.limits, pool, RunGovernor(settings.limits, learned={}, stall_s=3600))
    unused: Any = None
    polls = Polls(
        context,
        unused,
        admission,
        unused,
        on_succeeded=lambda job, task: None,
        takes_again=lambda job: False,
    )
    for job in jobs:
        admission.reserve_slot(job.seq, job.model)
        polls.add(job)
    return (resident_kib() - before) / count


async def _sleep(job: Job) -> None:
    await asyncio.sleep(3600)
    job.polls += 1


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hold(sys.argv[1], int(sys.argv[2])))))
