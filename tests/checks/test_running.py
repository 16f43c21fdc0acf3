"""Checks beside a run: of jobs that succeeded, after that is on disk, and never in anything's way."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from runner.checks.pool import MeasuringPool
from runner.checks.video_checker import RunningChecks, VideoChecker
from runner.core.lifecycle import State
from runner.core.model import Job
from runner.core.settings import Check
from runner.store import query, work_list
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.engine.answers import REMOTE_FAILED, SUCCEEDED
from tests.engine.fakes import FakeApi, specs
from tests.engine.harness import EngineHarness

HANGING = (sys.executable, "-c", "import time; time.sleep(600)")
CRASHING = (sys.executable, "-c", "input(); raise SystemExit(7)")


def jobs(run_dir: Path) -> list[Job]:
    """Make a run of two jobs that succeeded, and return them."""
    manifest = write_manifest(run_dir.parent / "m.yaml", "a", "b")
    make_run(run_dir, manifest, dict.fromkeys("ab", State.SUCCEEDED))
    with Store(run_dir) as store:
        return list(work_list.jobs_in_states(store.reader, [State.SUCCEEDED], waiting_since=0.0))


async def check(run_dir: Path, program: tuple[str, ...], *, is_stopped: bool) -> int:
    """Check the jobs with processes of this program, and return how many were left."""
    added = jobs(run_dir)
    with Store(run_dir) as store:
        async with store, MeasuringPool((), program=program, processes=1) as pool:
            checker = VideoChecker(str(run_dir), [Check.BLACK], [], pool=pool, hook=None, job_id_of=str)
            async with RunningChecks(store, checker) as checks:
                for job in added:
                    checks.add(job)
                await asyncio.sleep(0)
                return await checks.finish(lambda: is_stopped)


async def test_checks_that_hang_do_not_keep_a_stopped_run(tmp_path: Path) -> None:
    """A signal ends them at once, and it is known how many were not made."""
    assert 2 == await check(tmp_path / "run", HANGING, is_stopped=True)


async def test_a_crash_is_a_warning(tmp_path: Path) -> None:
    """Each job keeps its state, and a sentence says why its video was not checked."""
    assert 0 == await check(tmp_path / "run", CRASHING, is_stopped=False)

    with Store(tmp_path / "run") as store:
        found = {record.job_id: record for record in query.records(store.reader)}
    warning = "the video was not checked: it made the process that checked it end with 7"
    assert [(warning,)] * 2 == [record.warnings for record in found.values()]
    assert [State.SUCCEEDED] * 2 == [record.state for record in found.values()]
    assert [None] * 2 == [record.verdict for record in found.values()]


async def test_a_store_that_cannot_be_read_is_no_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The checks end, and it is known how many were not begun."""
    added = jobs(tmp_path / "run")
    with Store(tmp_path / "run") as store:
        async with store, MeasuringPool((), program=CRASHING, processes=1) as pool:
            checker = VideoChecker("run", [Check.BLACK], [], pool=pool, hook=None, job_id_of=str)
            async with RunningChecks(store, checker) as checks:
                with closing(sqlite3.connect(tmp_path / "run" / "run.db")) as other:
                    other.execute("ALTER TABLE specs RENAME TO damaged")
                for job in added:
                    checks.add(job)
                assert 1 == await checks.finish(lambda: False)
    assert "" == caplog.text


def test_only_jobs_that_succeeded_are_checked(tmp_path: Path) -> None:
    """Each is passed on once, when its success was saved; a job that failed has nothing to check."""
    api = FakeApi(on_poll=lambda task, nth: REMOTE_FAILED if "001" in task else SUCCEEDED)
    run = EngineHarness(tmp_path, api)
    run.add_jobs(specs(3))
    passed: list[tuple[str, State, bool]] = []

    run.run(on_success=lambda job: passed.append((job.job_id, job.state, job.commit > 0)))

    expected = [(f"model-a-{n:03}", State.SUCCEEDED, True) for n in (0, 2)]
    assert expected == sorted(passed)
