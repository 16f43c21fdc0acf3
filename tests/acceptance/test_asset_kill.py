"""kill -9 around uploads: no video is lost or paid for twice, and a job succeeds only when its object is there."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from runner.objects import Content, Objects
from tests.acceptance.crash_harness import KillPoint, fork_server
from tests.acceptance.simulator_process import command_line, results_by_id, run_simulator
from tests.acceptance.test_journal import LostRun
from tests.acceptance.test_kill import SCENARIO, CrashHarness, KilledRun
from tests.objects.s3 import s3_server

_POINTS = [
    # The first commits are about submissions.
    ("commit", "before", 6),
    # A verified file that is only here.
    ("upload", "before", 2),
    # Half an object, under no name: after the probe and the file's own name.
    ("rename", "before", 3),
    ("rename", "after", 4),
    # An object that nobody has looked at; then one whose job is not saved. The first look is at the probe.
    ("head", "before", 2),
    ("head", "after", 3),
    # A job that succeeded, with its file still here; then without.
    ("remove", "before", 1),
    ("remove", "after", 2),
]

_SIGNALED = """
version: 1
name: signaled
limits: {downloads: 2}
jobs:
  - id: a-${n}
    repeat: 4
    request: {model: seedance-1-5-pro-251215, prompt: 'kitten ${n}', seconds: 4, size: 480p}
"""


def require_object(line: dict[str, Any]) -> None:
    """Check that the object of a result line is there, whole."""
    (asset,) = line["assets"]
    content = Path(unquote(urlsplit(asset["url"]).path)).read_bytes()
    assert sha256(content).hexdigest() == asset["sha256"]


class UploadingRun(KilledRun):
    """A run that uploads its assets into a folder."""

    def start(self, **kill: Any) -> int | None:
        """Run one process, and return its exit code; None if it was killed."""
        exit_code = self.run_once(assets=(self.folder / "store").as_uri(), **kill)
        if (self.run_dir / "results.jsonl").exists():
            self.check_objects(results_by_id(self.run_dir).values())
        return exit_code

    def check_objects(self, lines: Any) -> None:
        """Check the objects of all jobs that succeeded."""
        for line in lines:
            if line["status"] == "succeeded":
                self._check_file(line)

    def _check_file(self, line: dict[str, Any]) -> None:
        require_object(line)

    def end(self) -> None:
        """Run to the end, and hold the results against the ledger; nothing but objects is left."""
        self.check(self.start())
        assert [] == [path for path in (self.run_dir / "assets").rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHarness]:
    """Share one simulator and one fork server among all tests."""
    folder = tmp_path_factory.mktemp("uploads")
    _, environ = command_line()
    with run_simulator(folder, SCENARIO) as simulator, fork_server(environ) as server:
        yield CrashHarness(simulator, server, folder)


def prepare(harness: CrashHarness, name: str, *, count: int) -> UploadingRun:
    """Write the manifest of a run whose prompts begin with its own name."""
    run = harness.prepare(name, count=count, in_flight=4)
    return UploadingRun(run.harness, run.name, run.folder, run.count)


def test_killed_at_each_step_of_an_upload(harness: CrashHarness) -> None:
    """One run is killed at each step in turn; then it ends with every video in the store, each paid for once."""
    run = prepare(harness, "each step", count=32)
    for point, when, nth in _POINTS:
        assert run.start(kill_at=KillPoint(point, when, nth)) is None, (point, when)

    run.end()


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_killed_two_hundred_times_around_uploads(harness: CrashHarness) -> None:
    """The same with 200 kills, at each step for the nth time and at random moments; some with the disk full of files."""
    kills, seed = 0, 0
    while kills < 200:
        rng = random.Random(seed)
        seed += 1
        run = prepare(harness, f"kills {seed}", count=12)
        for _ in range(8):
            if rng.random() < 0.8:
                kill: dict[str, Any] = {"kill_at": KillPoint(*rng.choice(_POINTS)[:2], rng.randint(1, 8))}
            else:
                kill = {"kill_after_s": rng.uniform(0.05, 0.8)}
            if run.start(**kill) is not None:
                break
            kills += 1
        run.end()
    print(f"{kills} kills around uploads, {seed} runs, 0 paid twice, 0 lost")


class LostUploadingRun(LostRun):
    """A run with a journal that uploads its assets, over all the machines that work on it."""

    def start(self, **kill: Any) -> int | None:
        return super().start(assets=(self.folder / "store").as_uri(), **kill)

    def _check_file(self, line: dict[str, Any]) -> None:
        require_object(line)


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_machines_are_lost_around_uploads(harness: CrashHarness) -> None:
    """With a journal, 60 kills with the disk deleted: every job that succeeded has its object, whole, paid for once."""
    kills = seed = uncertain = 0
    while kills < 60:
        rng = random.Random(seed)
        seed += 1
        made = harness.prepare(f"lost {seed}", count=12, in_flight=4)
        (made.folder / "manifest.yaml").rename(made.folder / "m.yaml")
        run = LostUploadingRun(harness.simulator, harness.fork_server, made.folder, made.name, made.count)
        for _ in range(6):
            if run.start(kill_at=KillPoint(*rng.choice(_POINTS)[:2], rng.randint(1, 6))) is not None:
                break
            run.lose()
            kills += 1
        uncertain += len(run.check(run.start()))
    print(f"{kills} kills with the disk, {seed} runs, {uncertain} jobs uncertain, 0 paid twice, 0 lost")


@pytest.mark.extended
@pytest.mark.parametrize("signals", [1, 2])
def test_a_store_that_hangs_keeps_no_process(signals: int, tmp_path: Path) -> None:
    """While the store answers nothing, the first signal gives uploads a while and the second none; the files stay here."""
    (tmp_path / "m.yaml").write_text(_SIGNALED)
    hangs, may_answer = Event(), Event()

    def fault(method: str, path: str) -> None:
        if method == "PUT" and "probe" not in path:
            hangs.set()
            may_answer.wait(100)

    with s3_server() as (server, variables):
        server.fault = fault
        command, environ = command_line(
            "run", tmp_path / "m.yaml", "-o", tmp_path / "out", "--simulate", "--assets", "s3://videos/hang"
        )
        with subprocess.Popen(
            command, env={**environ, **variables}, stderr=subprocess.PIPE, text=True
        ) as process:
            assert hangs.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert any(line.startswith("interrupted: ") for line in process.stderr)
            if signals == 2:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        may_answer.set()
    assert 130 == process.returncode
    assert list((tmp_path / "out/assets").glob("*.mp4"))


def _killing(process: subprocess.Popen[bytes], nth: int) -> Callable[[str, str], None]:
    """Return a fault that kills a process at its nth request that is not a probe."""
    seen = itertools.count(1)

    def fault(_method: str, path: str) -> None:
        if "/parts/" in path and "probe" not in path and next(seen) == nth:
            process.kill()

    return fault


@pytest.mark.extended
def test_killed_at_each_request_to_a_bucket(tmp_path: Path) -> None:
    """Videos that go in parts: killed at the nth request of any kind, a run ends with every video whole in the bucket."""
    (tmp_path / "m.yaml").write_text(_SIGNALED)
    (tmp_path / "scenario.yaml").write_text(
        "version: 1\nrules: [{name: large, match: {}, task: {asset_bytes: 20000000}}]\n"
    )
    kills = 0
    with s3_server() as (server, variables):
        for nth in itertools.count(1):
            server.reset()
            command, environ = command_line(
                "run", tmp_path / "m.yaml", "-o", tmp_path / "out", "--simulate", "--assets", "s3://videos/parts",
                "--scenario", tmp_path / "scenario.yaml", "--quiet",
            )  # fmt: skip
            with subprocess.Popen(
                command, env={**environ, **variables}, stderr=subprocess.DEVNULL
            ) as process:
                server.fault = _killing(process, nth)
                process.wait(120)
            if process.returncode != -signal.SIGKILL:
                break
            kills += 1
        assert 0 == process.returncode
        objects = Objects(variables)
        for line in results_by_id(tmp_path / "out").values():
            (asset,) = line["assets"]
            assert objects.holds(asset["url"], Content(asset["bytes"], asset["sha256"]))
            store, name = objects.at(asset["url"])
            assert sha256(store.get(name)).hexdigest() == asset["sha256"]
        assert 4 == len((tmp_path / "out/simulator.jsonl").read_text().splitlines())
    assert [] == list((tmp_path / "out/assets").iterdir())
    print(f"{kills} kills at requests to a bucket, 4 videos of 20 MB, 0 paid twice, 0 lost")
