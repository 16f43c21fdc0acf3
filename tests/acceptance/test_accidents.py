"""What happens to a run directory behind the program's back: nothing is paid for twice, or it is refused with the way out."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.forked_process import ForkedProcess
from tests.acceptance.simulator_process import (
    SimulatorProcess,
    results_by_id,
    run_simulator,
    runner,
    start,
)

SCENARIO = """
version: 1
seed: 3
generate_s: [0.1, 0.4]
rules:
  - {name: long enough for another process, match: {prompt: 'test_deleted_lock* 1.'}, task: {generate_s: 5}}
  - {name: likewise, match: {prompt: 'test_copy_of* 1.'}, task: {generate_s: 5}}
  - {name: too long to be downloaded yet, match: {prompt: 'test_moved*'}, task: {generate_s: 1.5}}
"""
MANIFEST = """
version: 1
name: accidents
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 40/s, poll: 200/s, in_flight: 8, downloads: 4}}
poll: {{first: 50ms, interval: 50ms, max_interval: 100ms, timeout: 20s}}
jobs:
  - id: job-${{n}}
    repeat: {count}
    request: {{model: seedance-1-5-pro-251215, prompt: '{name} ${{n}}.', seconds: 4, size: 480p}}
"""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The run of one test."""

    simulator: SimulatorProcess
    folder: Path
    name: str

    @property
    def run_dir(self) -> Path:
        return self.folder / "out"

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.yaml"

    def paid(self) -> Counter[str]:
        """Count the accepted POSTs of this run, by prompt."""
        prompts = (entry["prompt"] for entry in self.simulator.ledger)
        return Counter(prompt for prompt in prompts if prompt.startswith(f"{self.name} "))

    def start(self) -> ForkedProcess:
        """Start a run in a process of its own."""
        return start("run", self.manifest, "-o", self.run_dir, stderr=subprocess.PIPE)

    def kill_after(self, jobs: int) -> None:
        """Start a run, and kill it when so many jobs are paid for."""
        with self.start() as process:
            self.wait_for(jobs)
            process.kill()

    def wait_for(self, jobs: int) -> None:
        """Wait until so many jobs are paid for."""
        while self.paid().total() < jobs:
            time.sleep(0.01)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return runner("run", self.manifest, "-o", self.run_dir, *options)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """Share one simulator among all tests."""
    with run_simulator(tmp_path_factory.mktemp("accidents"), SCENARIO) as process:
        yield process


@pytest.fixture
def workspace(simulator: SimulatorProcess, tmp_path: Path) -> Workspace:
    """Write the manifest of a run whose prompts begin with a name of its own."""
    made = Workspace(simulator, tmp_path, tmp_path.name)
    text = MANIFEST.format(base_url=simulator.base_url, name=made.name, count=20)
    made.manifest.write_text(text, encoding="utf-8")
    return made


FILES = ("run.db", "run.db-wal", "run.db-shm", "results.jsonl", ".lock", ".epoch", ".reserve", "assets")


def delete(path: Path) -> None:
    """Delete a file or a folder; there may be none."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check(workspace: Workspace, done: subprocess.CompletedProcess[str], paid_before: int) -> None:
    """Check that nothing was paid for twice, and that a refusal sent nothing and names the way out."""
    assert {} == {prompt: n for prompt, n in workspace.paid().items() if n > 1}, done.stderr
    if done.returncode == 2:
        assert paid_before == workspace.paid().total()
        assert "hint: " in done.stderr
        return
    assert done.returncode in (0, 4), done.stderr
    statuses = Counter(line["status"] for line in results_by_id(workspace.run_dir).values())
    assert 20 == statuses["succeeded"] + statuses["uncertain"]


@pytest.mark.parametrize("name", FILES)
def test_file_is_deleted_after_a_kill(name: str, workspace: Workspace) -> None:
    """
    Each file in turn.
    """
    workspace.kill_after(10)
    paid = workspace.paid().total()
    delete(workspace.run_dir / name)

    check(workspace, workspace.run(), paid)


@pytest.mark.parametrize("name", FILES)
def test_older_copy_of_a_file_is_restored_after_a_kill(name: str, workspace: Workspace) -> None:
    """
    Each file in turn, from a copy that was made between two processes.
    """
    workspace.kill_after(5)
    backup = workspace.folder / "backup"
    shutil.copytree(workspace.run_dir, backup)
    workspace.kill_after(12)
    paid = workspace.paid().total()
    restore(workspace, backup, name)

    check(workspace, workspace.run(), paid)


def test_older_database_is_refused_until_the_results_are_adopted(workspace: Workspace) -> None:
    """
    A backup of run.db beside newer results is refused; `--adopt-results` takes over what they know, and pays for the rest.
    """
    assert 6 == runner("run", workspace.manifest, "-o", workspace.run_dir, "--limit", "6").returncode
    shutil.copy(workspace.run_dir / "run.db", workspace.folder / "backup")
    assert 6 == workspace.run("--limit", "6").returncode
    shutil.copy(workspace.folder / "backup", workspace.run_dir / "run.db")

    refused = [
        workspace.run(),
        runner("resume", workspace.run_dir),
        runner("plan", workspace.manifest, "-o", workspace.run_dir),
    ]
    paid = workspace.paid().total()
    done = workspace.run("--adopt-results")

    assert [2, 2, 2] == [each.returncode for each in refused]
    assert all("error[store-outdated]" in each.stderr for each in refused)
    assert "--adopt-results" in refused[0].stderr
    assert 12 == paid
    assert 0 == done.returncode, done.stderr
    assert "8 jobs without a line there count as never submitted" in done.stderr
    assert f"to take over such a task: runner resolve {workspace.run_dir} JOB --task-id ID" in done.stderr
    assert 20 == len(workspace.paid()) == workspace.paid().total()
    results = results_by_id(workspace.run_dir)
    assert {"succeeded"} == {line["status"] for line in results.values()}
    assert all((workspace.run_dir / line["assets"][0]["path"]).exists() for line in results.values())
    assert 0 == workspace.run().returncode


def test_lost_log_is_refused(workspace: Workspace) -> None:
    """
    After kill -9 everything is in the log; without it nothing is paid for again.
    """
    workspace.kill_after(10)
    paid = workspace.paid().total()
    for suffix in ("-wal", "-shm"):
        (workspace.run_dir / f"run.db{suffix}").unlink()

    done = workspace.run()

    assert (2, paid) == (done.returncode, workspace.paid().total())
    assert "error[store-outdated]" in done.stderr


def test_deleted_lock_lets_no_second_process_in(workspace: Workspace) -> None:
    """
    People delete .lock while a run holds it: the second process exits with 5, and the first one continues.
    """
    with workspace.start() as process:
        workspace.wait_for(5)
        (workspace.run_dir / ".lock").unlink()
        second = workspace.run()
        resumed = runner("resume", workspace.run_dir)
        process.communicate()

    assert [0, 5, 5] == [process.returncode, second.returncode, resumed.returncode]
    assert 20 == len(workspace.paid()) == workspace.paid().total()


def test_copy_of_a_running_directory_is_refused(workspace: Workspace) -> None:
    """
    A copy that is resumed while the original continues would pay for the same jobs.
    """
    copy = workspace.folder / "copy"
    with workspace.start() as process:
        workspace.wait_for(5)
        shutil.copytree(workspace.run_dir, copy)
        resumed = runner("resume", copy)
        process.communicate()

    assert [0, 2] == [process.returncode, resumed.returncode], resumed.stderr
    assert f"is a copy of a run directory that pid {process.pid} works in" in resumed.stderr
    assert 20 == len(workspace.paid()) == workspace.paid().total()


def test_of_a_killed_run_and_its_copy_one_goes_on(workspace: Workspace) -> None:
    """
    The one that is resumed first pays for the jobs that are left; the other one is refused, and names it.
    """
    copy = workspace.folder / "copy"
    workspace.kill_after(5)
    shutil.copytree(workspace.run_dir, copy)

    done = runner("resume", copy)
    paid = workspace.paid().total()
    refused = [runner(*words, workspace.run_dir) for words in (("resume",), ("rerun", "--status", "pending"))]

    assert done.returncode in (0, 4), done.stderr
    assert [2, 2] == [each.returncode for each in refused], refused[0].stderr
    assert all(f"the same run continues in {copy}" in each.stderr for each in refused)
    assert paid == workspace.paid().total()
    assert {1} == set(workspace.paid().values())


def test_assets_that_vanished_are_downloaded_again(workspace: Workspace) -> None:
    """
    `status` sees files that are gone or cut short; `resume --verify` also those that were changed, and pays for nothing.
    """
    assert 0 == workspace.run().returncode
    assets = workspace.run_dir / "assets"
    original = {path.name: path.read_bytes() for path in assets.iterdir()}
    (assets / "job-1.mp4").unlink()
    (assets / "job-2.mp4").write_bytes(original["job-2.mp4"][:100])
    changed = bytearray(original["job-3.mp4"])
    changed[-1] ^= 1
    (assets / "job-3.mp4").write_bytes(changed)

    seen = json.loads(runner("status", workspace.run_dir, "--json").stdout)
    told = runner("status", workspace.run_dir).stdout
    done = runner("resume", workspace.run_dir, "--verify")

    assert ["assets/job-1.mp4", "assets/job-2.mp4"] == seen["lost_files"]
    assert f"runner resume {workspace.run_dir} --verify" in told
    assert 0 == done.returncode, done.stderr
    assert "to download again: 3 jobs" in done.stderr
    assert original == {path.name: path.read_bytes() for path in assets.iterdir()}
    assert 20 == len(workspace.paid()) == workspace.paid().total()
    assert {"succeeded"} == {line["status"] for line in results_by_id(workspace.run_dir).values()}


def test_moved_directory_stops_the_run(workspace: Workspace) -> None:
    """
    A run whose directory is moved stops with exit code 3 before it pays for more, and makes no new one; it is
    continued at the new place.
    """
    moved = workspace.folder / "moved"
    with workspace.start() as process:
        workspace.wait_for(5)
        workspace.run_dir.rename(moved)
        _, stderr = process.communicate()
    paid = workspace.paid().total()
    is_remade = workspace.run_dir.exists()
    done = runner("resume", moved)

    assert 3 == process.returncode, stderr
    # Before the next POST the run looks whether the directory is in place; a commit of SQLite's may see it earlier.
    assert "was moved" in stderr
    assert "continue with the directory at its new place" in stderr
    assert "Traceback" not in stderr
    assert not is_remade
    assert paid < 20
    assert 0 == done.returncode, done.stderr
    assert 20 == len(workspace.paid()) == workspace.paid().total()
    assert all((moved / line["assets"][0]["path"]).exists() for line in results_by_id(moved).values())


def plant(victim: Path, path: Path, make: Callable[[Path, Path], None]) -> None:
    """Plant a link to a file of somebody's where a run writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path, victim)


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        ".reserve",
        ".epoch",
        "results.jsonl",
        "simulator.jsonl",
        "assets/job-7.mp4.part",
        "assets/job-7.mp4",
    ],
)
def test_planted_links_overwrite_nothing(
    name: str, make: Callable[[Path, Path], None], workspace: Workspace
) -> None:
    """
    A directory from somebody else may have links in it; what they lead to stays as it is.
    """
    victim = workspace.folder / "victim"
    victim.write_text("mine")
    assert 6 == workspace.run("--limit", "2").returncode
    plant(victim, workspace.run_dir / name, make)

    dry = runner("rerun", workspace.run_dir, "--dry-run")
    done = workspace.run("--limit", "0" if name == "assets/job-7.mp4" else "20")

    assert "mine" == victim.read_text()
    assert "Traceback" not in dry.stderr + done.stderr
    assert done.returncode in (0, 2, 6), done.stderr


def move(workspace: Workspace, _backup: Path, _name: str) -> None:
    """Move the directory away and back, as a disk that is mounted elsewhere for a while."""
    workspace.run_dir.rename(workspace.folder / "elsewhere")
    (workspace.folder / "elsewhere").rename(workspace.run_dir)


def copy(workspace: Workspace, _backup: Path, _name: str) -> None:
    """Put a copy of the directory in its place, as after a move to another disk."""
    shutil.copytree(workspace.run_dir, workspace.folder / "copied")
    shutil.rmtree(workspace.run_dir)
    (workspace.folder / "copied").rename(workspace.run_dir)


def lose(workspace: Workspace, _backup: Path, name: str) -> None:
    """Delete a file."""
    delete(workspace.run_dir / name)


def restore(workspace: Workspace, backup: Path, name: str) -> None:
    """Put an older copy of a file back."""
    delete(workspace.run_dir / name)
    if (backup / name).is_dir():
        shutil.copytree(backup / name, workspace.run_dir / name)
    elif (backup / name).exists():
        shutil.copy(backup / name, workspace.run_dir / name)


@pytest.mark.extended
@pytest.mark.parametrize("seed", range(20))
def test_kills_and_accidents_in_any_order(seed: int, workspace: Workspace) -> None:
    """
    After each kill something happens to the directory; each command pays for nothing twice, or is refused and says what to do.
    """
    chance = random.Random(seed)
    backup = workspace.folder / "backup"
    for _ in range(6):
        with workspace.start() as process:
            before = workspace.paid().total()
            while process.poll() is None and workspace.paid().total() < before + chance.randint(1, 4):
                time.sleep(0.01)
            process.kill()
        if backup.exists() and chance.random() < 0.7:
            accident, name = chance.choice([move, copy, lose, restore]), chance.choice(FILES)
            accident(workspace, backup, name)
        shutil.rmtree(backup, ignore_errors=True)
        shutil.copytree(workspace.run_dir, backup)
        paid = workspace.paid().total()
        done = workspace.run("--limit", "2")
        assert {} == {prompt: n for prompt, n in workspace.paid().items() if n > 1}, (seed, done.stderr)
        assert done.returncode in (0, 2, 4, 6), done.stderr
        if done.returncode == 2:
            assert paid == workspace.paid().total()
            assert "hint: " in done.stderr
            return
    check(workspace, workspace.run(), workspace.paid().total())
