"""What is found of clips with known faults, and that nothing is found of good ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from runner.checks.pool import MeasuringPool
from runner.checks.video_checker import VideoChecker
from runner.core.lifecycle import State
from runner.core.model import JobRecord, Json
from runner.core.settings import Check
from tests.checks.clips import CLIPS, SECONDS, make_clip, read_asset, write_simulated

pytest.importorskip("av")
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")

REQUEST = {
    "model": "seedance-1-5-pro-251215",
    "seconds": str(SECONDS),
    "size": "320x180",
    "generate_audio": True,
}
FOUND = {
    "good": set(),
    "other": {"silent"},
    "black": {"black", "frozen"},
    "black with noise": {"black", "frozen", "silent"},
    "frozen": {"frozen"},
    "frozen at the end": {"frozen"},
    "without sound": {"silent"},
    "silent": {"silent"},
    "cut": {"duration"},
    "small": {"size"},
    "five frames a second": {"fps"},
    "smaller copy": {"silent", "size", "near_duplicate"},
}
"""By clip, the checks that it does not pass."""


async def check_all(folder: Path, requests: Mapping[str, Mapping[str, Json]]) -> dict[str, set[str]]:
    """Check files as those of a run, in this order; return the checks that each did not pass."""
    names, failed = list(requests), {}
    async with MeasuringPool(()) as pool:
        checker = VideoChecker(
            str(folder), tuple(Check), (), pool=pool, hook=None, job_id_of=lambda seq: names[seq]
        )
        for seq, name in enumerate(names):
            asset = read_asset(folder / f"{name}.mp4")
            record = JobRecord(name, seq, "m", "", requests[name], "", {}, State.SUCCEEDED, assets=(asset,))
            findings, measures = await checker.examine(record)
            row = checker.finish(seq, findings, measures)
            failed[name] = {check for check, found in row["checks"].items() if not found["ok"]}
            assert len(failed[name]) == len(row["warnings"])
    return failed


def show(failed: Mapping[str, set[str]], names: Iterable[str]) -> None:
    """Print the table: a row for each clip, a column for each check."""
    print("\n" + " " * 22 + "".join(f"{check:>16}" for check in Check))
    for name in names:
        print(f"{name:22}" + "".join(f"{'found' if check in failed[name] else '-':>16}" for check in Check))


@pytest.mark.slow
@needs_ffmpeg
async def test_faults_are_found_and_nothing_else(tmp_path: Path) -> None:
    """Each clip fails the checks that its fault concerns, and passes all others; five simulated ones pass all."""
    for name in CLIPS:
        make_clip(name, tmp_path / f"{name}.mp4")
    requests: dict[str, Mapping[str, Json]] = dict.fromkeys(CLIPS, REQUEST)
    requests |= {f"simulated {n}": write_simulated(tmp_path / f"simulated {n}.mp4", str(n)) for n in range(5)}

    failed = await check_all(tmp_path, requests)

    show(failed, requests)
    assert {**FOUND, **{name: set() for name in requests if name.startswith("simulated")}} == failed


@pytest.mark.extended
async def test_a_hundred_good_videos_pass_all_checks(tmp_path: Path) -> None:
    """No simulated video is found frozen, black, silent, of another size or length, or like another one."""
    sizes = ["480p", "720p", "1080p"]
    requests = {
        f"good {n}": write_simulated(tmp_path / f"good {n}.mp4", str(n), sizes[n % 3], 2 + n % 11)
        for n in range(100)
    }

    failed = await check_all(tmp_path, requests)

    print(f"\n{sum(not found for found in failed.values())} of {len(failed)} good videos pass all checks")
    assert {name: set() for name in requests} == failed
