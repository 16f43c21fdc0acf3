"""kill -9 at the durable writes of the commands around a run: each ends as if it had not been killed when it is repeated."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.crash_harness import COMMAND_POINTS, ForkServer, KillPoint, fork_server
from tests.acceptance.simulator_process import SimulatorProcess, command_line, results_by_id, run_simulator

SCENARIO = """
version: 1
generate_s: 0.02
rules:
  - {name: answer lost, match: {prompt: '* unsure'}, submit: {fault: reset, created: true}}
"""
MANIFEST = """
version: 1
name: {name}
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: 2, downloads: 4}}
poll: {{first: 20ms, interval: 20ms, max_interval: 40ms, timeout: 20s}}
timeouts: {{submit: 5s, poll: 1s, stall: 1s}}
retry: {{attempts: 4, base: 20ms, cap: 50ms}}
jobs:
"""
JOB = "  - {{id: job-{n}, request: {{model: seedance-1-0-pro-250528, prompt: '{prompt}', seconds: 4, size: 480p}}}}\n"


@dataclass(frozen=True, slots=True)
class Scene:
    """A folder with a manifest and whatever runs a command needs, whose prompts begin with a name of its own."""

    simulator: SimulatorProcess
    server: ForkServer
    folder: Path
    prompt: str

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.yaml"

    def write_manifest(self, *prompts: str, name: str = "killed") -> None:
        """Write the manifest of a job for each prompt."""
        head = MANIFEST.format(name=name, base_url=self.simulator.base_url)
        jobs = (JOB.format(n=n, prompt=f"{self.prompt} {prompt}") for n, prompt in enumerate(prompts))
        self.manifest.write_text(head + "".join(jobs), encoding="utf-8")

    def run(self, *arguments: str | Path, kill_at: KillPoint | None = None) -> int | None:
        """Run a command in a process of its own."""
        return self.server.run_command(*arguments, kill_at=kill_at)

    def paid(self) -> Counter[str]:
        """Count accepted POSTs by prompt."""
        own = (entry["prompt"] for entry in self.simulator.ledger)
        return Counter(prompt for prompt in own if prompt.startswith(f"{self.prompt} "))

    def check(self, run_dir: Path, *others: str) -> None:
        """Check that nothing was paid twice, and that every job that is not uncertain has its video."""
        assert {} == {prompt: count for prompt, count in self.paid().items() if count > 1}
        for line in results_by_id(run_dir).values():
            assert line["status"] in ("succeeded", "submitted", "uncertain", *others)
            assert all((run_dir / asset["path"]).is_file() for asset in line["assets"])


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """Share one simulator among all tests."""
    with run_simulator(tmp_path_factory.mktemp("simulator"), SCENARIO) as process:
        yield process


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """Share one fork server among all tests."""
    with fork_server(command_line()[1]) as process:
        yield process


class RerunFromResults:
    """The pending jobs of a results file are submitted in a new directory."""

    def prepare(self, scene: Scene) -> None:
        scene.write_manifest("a", "b", "c")
        assert 6 == scene.run("run", scene.manifest, "-o", scene.folder / "out", "--limit", "1")

    def act(self, scene: Scene, kill_at: KillPoint | None) -> int | None:
        results = scene.folder / "out" / "results.jsonl"
        bounds = ("--submit-rate", "100/s", "--max-runtime", "1s", "--drain-time", "0s")
        options = ("--base-url", scene.simulator.base_url, *bounds)
        return scene.run("rerun", results, "-o", scene.folder / "new", *options, kill_at=kill_at)

    def check(self, scene: Scene, exit_code: int | None) -> None:
        # Its first poll is after ten seconds; a repeated one may find tasks that have ended.
        assert exit_code in (0, 4, 6)
        # On a slow machine the second may be over before all are submitted.
        scene.check(scene.folder / "new", "pending")
        assert 3 >= len(scene.paid()) == scene.paid().total()


class Resolve:
    """A task is attached to an uncertain job, and downloaded by the next run."""

    def prepare(self, scene: Scene) -> None:
        scene.write_manifest("a", "unsure")
        assert 4 == scene.run("run", scene.manifest, "-o", scene.folder / "out")

    def act(self, scene: Scene, kill_at: KillPoint | None) -> int | None:
        (task_id,) = (e["task_id"] for e in scene.simulator.ledger if e["prompt"] == f"{scene.prompt} unsure")
        return scene.run("resolve", scene.folder / "out", "job-1", "--task-id", task_id, kill_at=kill_at)

    def check(self, scene: Scene, exit_code: int | None) -> None:
        # A kill after the commit has resolved it: then the second attempt is refused.
        assert exit_code in (0, 2)
        assert 0 == scene.run("run", scene.manifest, "-o", scene.folder / "out")
        scene.check(scene.folder / "out")
        assert 2 == len(scene.paid()) == scene.paid().total()


class Report:
    """The derived files of a finished run are written again."""

    FILES = ("results.jsonl", "summary.json", "report.html")

    def prepare(self, scene: Scene) -> None:
        scene.write_manifest("a", "b")
        assert 0 == scene.run("run", scene.manifest, "-o", scene.folder / "out")
        for name in self.FILES:
            (scene.folder / "out" / name).unlink()

    def act(self, scene: Scene, kill_at: KillPoint | None) -> int | None:
        return scene.run("report", scene.folder / "out", kill_at=kill_at)

    def check(self, scene: Scene, exit_code: int | None) -> None:
        assert 0 == exit_code
        assert all((scene.folder / "out" / name).is_file() for name in self.FILES)
        scene.check(scene.folder / "out")
        assert 0 == scene.run("run", scene.manifest, "-o", scene.folder / "out")
        assert 2 == scene.paid().total()


class KeepRuns:
    """A run of a series deletes the older one."""

    def prepare(self, scene: Scene) -> None:
        scene.write_manifest("a", "b")
        assert 0 == scene.run("run", scene.manifest, "-o", scene.folder / "nights" / "n-2026-01-01")
        # The newer run has other jobs, so that each is paid for once.
        scene.write_manifest("c")

    def act(self, scene: Scene, kill_at: KillPoint | None) -> int | None:
        new = scene.folder / "nights" / "n-2026-01-02"
        return scene.run("run", scene.manifest, "-o", new, "--new", "--keep-runs", "1", kill_at=kill_at)

    def check(self, scene: Scene, exit_code: int | None) -> None:
        assert exit_code in (0, 4)
        assert ["n-2026-01-02"] == [path.name for path in (scene.folder / "nights").iterdir()]
        scene.check(scene.folder / "nights" / "n-2026-01-02")


class CatchUp:
    """A new night first fetches what the older one paid for."""

    def prepare(self, scene: Scene) -> None:
        scene.write_manifest("${night}1", "${night}2", name="night-${night}")
        text = scene.manifest.read_text() + "vars: {night: 0}\n"
        scene.manifest.write_text(text)
        # The first rename is of what is known of the run; at the second a video gets its name.
        assert self.night(scene, 1, KillPoint("rename", "before", 2)) is None

    def night(self, scene: Scene, number: int, kill_at: KillPoint | None) -> int | None:
        return scene.run("run", scene.manifest, "--var", f"night={number}", kill_at=kill_at)

    def act(self, scene: Scene, kill_at: KillPoint | None) -> int | None:
        return self.night(scene, 2, kill_at)

    def check(self, scene: Scene, exit_code: int | None) -> None:
        assert exit_code in (0, 4)
        scene.check(scene.folder / "output" / "night-2")
        older = Counter(
            line["status"] for line in results_by_id(scene.folder / "output" / "night-1").values()
        )
        assert 2 == older["succeeded"] + older["uncertain"] + older["pending"]
        assert {} == {prompt: count for prompt, count in scene.paid().items() if count > 1}


COMMANDS = {command.__name__: command() for command in (RerunFromResults, Resolve, Report, KeepRuns, CatchUp)}


def kill_at_each(
    command: str, point: str, when: str, make_scene: Callable[[str], Scene], *, every: int = 1
) -> int:
    """Kill a command at each of a point's moments in turn, and repeat it each time; return how many there were."""
    acted = COMMANDS[command]
    # Every nth moment, from the first one or, if only some are tried, from the second.
    nth = min(every, 2)
    while True:
        scene = make_scene(f"{command} {point} {when} {nth}")
        acted.prepare(scene)
        exit_code = acted.act(scene, KillPoint(point, when, nth))
        if exit_code is not None:
            acted.check(scene, exit_code)
            return nth - 1
        acted.check(scene, acted.act(scene, None))
        shutil.rmtree(scene.folder)
        nth += every


@pytest.fixture
def make_scene(simulator: SimulatorProcess, server: ForkServer, tmp_path: Path) -> Callable[[str], Scene]:
    """Return what makes a scene with a name."""

    def make(name: str) -> Scene:
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        return Scene(simulator, server, folder, name)

    return make


SHORT = {
    "RerunFromResults": ("transaction", 3),
    "Resolve": ("transaction", 1),
    "Report": ("rename", 2),
    "KeepRuns": ("unlink", 12),
    "CatchUp": ("commit", 8),
}
"""Of each command the point whose moments are tried always, and which of them: every nth."""


@pytest.mark.parametrize("command", SHORT)
def test_killed_at_the_writes_that_matter_most(command: str, make_scene: Callable[[str], Scene]) -> None:
    """
    Killed after some of its writes, each command is repeated; nothing is paid for twice, and nothing is lost.
    """
    point, every = SHORT[command]

    assert kill_at_each(command, point, "after", make_scene, every=every) > 0


def test_refused_run_that_was_killed_while_it_was_undone_can_be_begun(
    make_scene: Callable[[str], Scene],
) -> None:
    """
    A run that is refused deletes what it created; killed in between, what is left keeps no run from beginning.
    """
    for nth in range(1, 4):
        scene = make_scene(f"refused {nth}")
        scene.write_manifest("a")
        text = scene.manifest.read_text()
        scene.manifest.write_text(text.replace("seconds", "secondz"))
        command = "run", scene.manifest, "-o", scene.folder / "out", "--limit", "0"
        assert scene.run(*command, kill_at=KillPoint("unlink", "after", nth)) is None
        scene.manifest.write_text(text)

        assert 6 == scene.run(*command)


@pytest.mark.extended
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", COMMAND_POINTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_every_write(
    command: str, point: str, when: str, make_scene: Callable[[str], Scene]
) -> None:
    """
    The same just before and just after each write of each kind.
    """
    kill_at_each(command, point, when, make_scene)
