"""The power goes at any moment of a run: what the disk was asked to keep by then is enough to pay nothing twice."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.power_cut import Call, Disk, can_trace, moments, traced
from tests.acceptance.simulator_process import command_line, run_simulator

SCENARIO = "{version: 1, generate_s: [0.01, 0.05]}"

# The first query follows the answer to the POST at once, long before a commit that nobody waits for is made.
MANIFEST = """
version: 1
name: power
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s}}
poll: {{first: 1ms, interval: 20ms, max_interval: 50ms, timeout: 20s}}
jobs:
  - {{id: 'job-${{n}}', repeat: 4, request: {{model: seedance-1-5-pro-251215, prompt: 'kitten ${{n}}.', seconds: 4, size: 480p}}}}
"""
JOBS = {f"job-{n}" for n in range(1, 5)}

WITH_ASSETS = "SELECT job_id, path, sha256 FROM jobs JOIN assets USING (seq) WHERE state = 'succeeded'"
DERIVED = ("results.jsonl", "summary.json", "report.html", "failed.yaml")


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, and what it asked of the system."""

    root: Path
    run_dir: Path
    trace: list[str]
    scratch: Path

    def moments(self) -> Iterator[tuple[Call, Disk]]:
        """Play the run again."""
        return moments(self.trace, self.root)

    def after_power_cut(self, disk: Disk) -> Path:
        """Return the run directory as a power cut would leave it now."""
        return disk.after_power_cut(self.scratch) / self.run_dir.relative_to(self.root)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a small manifest to its end under strace, into folders of which none is there yet."""
    if not can_trace():
        pytest.skip("needs strace, and the right to use it")
    root, aside = tmp_path_factory.mktemp("disk"), tmp_path_factory.mktemp("aside")
    run_dir, trace = root / "deep" / "down" / "out", aside / "trace"
    with run_simulator(aside, SCENARIO) as simulator:
        manifest = aside / "power.yaml"
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        words, environ = command_line("run", manifest, "-o", run_dir)
        done = subprocess.run(
            traced(words, trace), env=environ, capture_output=True, text=True, timeout=60, check=False
        )
    assert 0 == done.returncode, done.stderr
    return Run(root, run_dir, trace.read_text(encoding="utf-8").splitlines(), aside / "left")


def rows(run_dir: Path, select: str) -> list[tuple[Any, ...]]:
    """Read from the database of a run directory, where there is one with anything in it."""
    if not (run_dir / "run.db").exists():
        return []
    with closing(sqlite3.connect(run_dir / "run.db")) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return []
        return connection.execute(select).fetchall()


def test_intent_outlives_a_power_cut_before_its_post_leaves(run: Run) -> None:
    """Whoever continues after a power cut knows of every POST that may have left."""
    posted = set()
    for call, disk in run.moments():
        # Not merely somewhere in it: compiled modules, written at a first start, name the path too.
        if call.data.startswith(b"POST /v1/videos "):
            posted.add(f"job-{call.data.rsplit(b'kitten ', 1)[1].split(b'.')[0].decode()}")
            known = rows(run.after_power_cut(disk), "SELECT job_id FROM jobs WHERE state != 'pending'")
            assert posted <= {job_id for (job_id,) in known}

    assert JOBS == posted


def test_id_outlives_a_power_cut_before_it_is_asked_for(run: Run) -> None:
    """No task that was seen by the program is ever known to a dead process alone."""
    asked = set()
    for call, disk in run.moments():
        if found := re.match(rb"GET /v1/videos/(\w+) ", call.data):
            asked.add(found[1].decode())
            known = rows(run.after_power_cut(disk), "SELECT task_id FROM jobs")
            assert asked <= {task_id for (task_id,) in known}

    assert len(JOBS) == len(asked)


def test_job_that_succeeded_has_its_video_after_a_power_cut(run: Run) -> None:
    """That a job succeeded is kept only with its video, under its name, every byte of it."""
    succeeded = set()
    for call, disk in run.moments():
        if call.name.endswith("sync"):
            left = run.after_power_cut(disk)
            for job_id, path, digest in rows(left, WITH_ASSETS):
                assert digest == sha256((left / path).read_bytes()).hexdigest()
                succeeded.add(job_id)

    assert JOBS == succeeded


def test_job_that_is_told_to_have_ended_has_ended_after_a_power_cut(run: Run) -> None:
    """A line of results is there for others to act upon, so the store has it first."""
    told = set()
    for call, disk in run.moments():
        if call.name == "write" and call.file == str(run.run_dir / "results.jsonl"):
            told |= {json.loads(line)["job_id"] for line in call.data.splitlines()}
            ended = rows(run.after_power_cut(disk), "SELECT job_id FROM jobs WHERE state = 'succeeded'")
            assert told <= {job_id for (job_id,) in ended}

    assert JOBS == told


def test_file_has_its_name_only_with_all_its_bytes(run: Run) -> None:
    """No name ever leads to a file of which a power cut would leave a part, or nothing."""
    named = set()
    for call, disk in run.moments():
        if call.name.startswith("rename") and str(run.run_dir) in call.paths[1]:
            part, final = call.paths
            assert disk.is_whole(part), final
            named.add(Path(final).name)

    assert {f"{job_id}.mp4" for job_id in JOBS} | set(DERIVED[:3]) <= named


def test_derived_files_outlive_a_power_cut_once_the_run_is_marked_finished(run: Run) -> None:
    """A finished run is not worked through again, so its files must be there by then."""
    was_marked = False
    for call, disk in run.moments():
        if call.name.endswith("sync"):
            left = run.after_power_cut(disk)
            if rows(left, "SELECT 1 FROM meta WHERE key = 'finished'"):
                was_marked = True
                for name in DERIVED:
                    if (run.run_dir / name).exists():
                        assert (left / name).read_bytes() == (run.run_dir / name).read_bytes()

    assert was_marked
