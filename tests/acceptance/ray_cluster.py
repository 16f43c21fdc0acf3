"""A Ray cluster of several nodes on loopback, a driver as a user starts it, and ways to kill their processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.simulator_process import SimulatorProcess, command_line

# Else a cluster listens beyond loopback. It is read when Ray is imported.
_ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
os.environ[_ON_LOOPBACK] = "0"

MANIFEST = """
version: 1
name: fleet
gateway: {{base_url: '{base_url}'}}
limits: {{submit: {submit}, poll: 400/s, in_flight: 40, downloads: 4}}
poll: {{first: 200ms, interval: 200ms, max_interval: 400ms, timeout: 60s}}
timeouts: {{submit: 5s, poll: 2s, stall: 2s, unknown_task: 5s}}
retry: {{attempts: 4, base: 50ms, cap: 200ms}}
{more}
jobs:
  - id: job-${{n}}
    repeat: {count}
    request: {{model: seedance-1-5-pro-251215, prompt: 'fleet ${{n}}.', seconds: 4, size: 480p}}
"""
AWAITED_S = 120.0


def awaited(condition: Callable[[], Any], what: str) -> Any:
    """Return what a condition returns, once that is true."""
    deadline = time.monotonic() + AWAITED_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {AWAITED_S:g} s for {what}"
        time.sleep(0.05)
    return found


@dataclass
class RayRun:
    """A run on Ray in a folder of its own, over all its drivers."""

    simulator: SimulatorProcess
    folder: Path
    jobs: int
    submit: str = "10/s"
    arguments: tuple[str, ...] = ("--workers", "4")
    more: str = ""
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return (self.folder / "journal").as_uri()

    @contextmanager
    def driving(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start a driver for the length of a block."""
        manifest = self.folder / "m.yaml"
        text = MANIFEST.format(
            base_url=self.simulator.base_url, count=self.jobs, submit=self.submit, more=self.more
        )
        manifest.write_text(text, encoding="utf-8")
        command, environ = command_line(
            "run",
            manifest,
            "--engine",
            "ray",
            "--journal",
            self.url,
            "-o",
            self.folder / "shards",
            "--max-failures",
            "off",
            *self.arguments,
            *arguments,
        )
        environ.pop("PYTHONWARNINGS")
        environ[_ON_LOOPBACK] = "0"
        log = (self.folder / f"driver-{len(self.drivers)}.log").open("w", encoding="utf-8")
        with log, subprocess.Popen(command, env=environ, stdout=log, stderr=log, text=True) as process:
            self.drivers.append(process)
            try:
                yield process
            finally:
                process.kill()

    def output(self) -> str:
        """Return what the newest driver printed."""
        return (self.folder / f"driver-{len(self.drivers) - 1}.log").read_text(encoding="utf-8")

    def accepted(self) -> Counter[str]:
        """Count the accepted POSTs by prompt."""
        return Counter(entry["prompt"] for entry in self.simulator.ledger)

    def states(self) -> Counter[str]:
        """Count the jobs by their state in the journals."""
        command, environ = command_line("jobs", self.url, "--json")
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return Counter(line["status"] for line in lines)

    def check(self) -> int:
        """Hold what the journals say against the gateway's ledger, and return how many jobs are uncertain."""
        accepted, states = self.accepted(), self.states()
        assert not [prompt for prompt, count in accepted.items() if count > 1]
        assert self.jobs == states["succeeded"] + states["uncertain"], states
        assert states["succeeded"] <= len(accepted) <= self.jobs
        return states["uncertain"]


def processes_below(pid: int, title: str) -> list[int]:
    """List the descendants of a process whose command line begins with a text."""
    parents, found = {}, []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(encoding="utf-8")
            line = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
        if line.startswith(title):
            found.append(int(entry))
    return [each for each in found if _is_below(each, pid, parents)]


def _is_below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        pid = parents.get(pid, 0)
        if pid == ancestor:
            return True
    return False


def kill_one(pid: int, title: str, rng: random.Random) -> bool:
    """Kill one of the descendants of a process with this title; return whether there was one."""
    if not (found := processes_below(pid, title)):
        return False
    try:
        os.kill(rng.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class Nodes:
    """
    A cluster of nodes on loopback, which takes a moment to start.

    Attributes:
        address: For ``--ray-address``.
    """

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        own = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **own})
        self._own = {"object_store_memory": 80 * 2**20, "num_cpus": 1}
        self.address: str = self._cluster.address
        self._nodes = [self._added() for _ in range(count)]

    def lose_one(self, rng: random.Random) -> None:
        """Kill a node's raylet, with which its processes end, and add another node."""
        node = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._added())

    def _added(self) -> Any:
        """Add a node; on a machine under load Ray's patience of 30 s may be too short, for which it has no class."""
        for _ in range(4):
            try:
                return self._cluster.add_node(**self._own)
            except Exception as error:
                if "timed out during startup" not in str(error):
                    raise
        return self._cluster.add_node(**self._own)

    def close(self) -> None:
        """End all."""
        self._cluster.shutdown()
