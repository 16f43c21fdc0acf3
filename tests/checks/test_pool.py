"""Processes that look at videos: whatever becomes of one, the others and the run continue."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from runner.checks.pool import MeasuringPool, NotMeasured
from tests.checks.clips import write_simulated

ANSWERS = """
import os, sys, time
for line in sys.stdin:
    if "crash" in line:
        os.abort()
    if "hang" in line:
        time.sleep(600)
    if "noise" in line:
        print("no JSON", flush=True)
        continue
    if "key" in line:
        print('{"problem": "%s"}' % os.environ.get("A_KEY"), flush=True)
        continue
    print('{"problem": "%d"}' % os.getpid(), flush=True)
"""
PROGRAM = (sys.executable, "-c", ANSWERS)


async def ask(pool: MeasuringPool, path: str) -> str:
    """Ask for a file that can't be measured, and return why."""
    with pytest.raises(NotMeasured) as caught:
        await pool.measure(path)
    return str(caught.value)


async def test_a_crash_concerns_one_video() -> None:
    """A process that a file makes crash is replaced, and the others keep theirs."""
    async with MeasuringPool((), program=PROGRAM, processes=1) as pool:
        first = await ask(pool, "a")
        assert first == await ask(pool, "b")
        assert "made the process that checked it end with -6" == await ask(pool, "crash")
        assert "made the process that checked it end with -9" == await ask(pool, "noise")
        assert first != await ask(pool, "c")


@pytest.mark.slow
async def test_a_video_that_takes_too_long_is_given_up() -> None:
    """The process is killed at the limit, and the next video gets a new one."""
    async with MeasuringPool((), program=PROGRAM, processes=1, limit_s=0.5) as pool:
        assert "was not checked within 500ms" == await ask(pool, "hang")
    async with MeasuringPool((), program=PROGRAM, processes=1) as pool:
        assert (await ask(pool, "a")).isdecimal()


async def test_no_process_outlives_the_pool() -> None:
    """As many processes work at the same time as the pool may have, and all end with it."""
    async with MeasuringPool((), program=PROGRAM, processes=3) as pool:
        pids = set(await asyncio.gather(*(ask(pool, str(n)) for n in range(9))))
        assert 3 == len(pids)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


async def test_keys_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder of foreign files has no use for a key."""
    monkeypatch.setenv("A_KEY", "secret")
    async with MeasuringPool(("A_KEY",), program=PROGRAM, processes=1) as pool:
        assert "None" == await ask(pool, "key")


async def test_what_cannot_be_started_is_one_sentence() -> None:
    """A system without room for a process is not an error of the run's."""
    async with MeasuringPool((), program=("/nowhere/python",), processes=1) as pool:
        assert "was not checked: no process can be started" in await ask(pool, "a")


async def test_real_files_are_measured(tmp_path: Path) -> None:
    """A video is measured, and damage is a reason; a list of other files that calls itself a video is not followed."""
    pytest.importorskip("av")
    write_simulated(tmp_path / "a.mp4", "a")
    (tmp_path / "b.mp4").write_bytes(b"no video")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    async with MeasuringPool((), processes=1) as pool:
        measures = await pool.measure(str(tmp_path / "a.mp4"))
        assert (4.0, 0.0, 0.0) == (measures.duration_s, measures.black_s, measures.frozen_s)
        assert "can't be decoded" in await ask(pool, str(tmp_path / "b.mp4"))
        assert "can't be decoded" in await ask(pool, str(tmp_path / "c.mp4"))
        assert "can't be decoded" in await ask(pool, str(tmp_path / "list.mp4"))
        (tmp_path / "a.mp4").rename(tmp_path / "a.txt")
        assert "is not a video" == await ask(pool, str(tmp_path / "a.txt"))
