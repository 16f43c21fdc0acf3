"""A simulator in a process of its own, and the command line as a user starts it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from runner.simulator.scenario_reader import load_scenario
from runner.simulator.server import serve
from tests.acceptance.forked_process import ROOT, ForkedProcess

KEY = "sk-proof-0123456789abcdefghij"

_FAST_HEADER = """
version: 1
name: {name}
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: 40, downloads: 16}}
poll: {{first: 50ms, interval: 50ms, max_interval: 100ms, timeout: 3s}}
timeouts: {{submit: 1s, poll: 1s, stall: 1s, unknown_task: 500ms}}
retry: {{attempts: 2, base: 50ms, cap: 100ms}}
"""


@dataclass(frozen=True, slots=True)
class SimulatorProcess:
    """
    A running simulator.

    Attributes:
        ledger_path: Its accepted POSTs, one line each; complete however the client ends.
    """

    base_url: str
    ledger_path: Path

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Read the accepted POSTs."""
        if not self.ledger_path.exists():
            return []
        return [json.loads(line) for line in self.ledger_path.read_text(encoding="utf-8").splitlines()]


def write_fast_manifest(folder: Path, name: str, base_url: str, jobs: str) -> Path:
    """Write a manifest of these jobs with short waits and time-outs, and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(_FAST_HEADER.format(name=name, base_url=base_url) + jobs, encoding="utf-8")
    return path


@contextmanager
def run_simulator(folder: Path, scenario: str) -> Iterator[SimulatorProcess]:
    """Serve a scenario, given as YAML, for the length of a block."""
    (folder / "scenario.yaml").write_text(scenario, encoding="utf-8")
    ledger = folder / "ledger.jsonl"
    with ForkedProcess(
        "tests.acceptance.simulator_process:main",
        [str(folder / "scenario.yaml"), str(ledger)],
        command_line()[1],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            yield SimulatorProcess(process.stdout.readline().strip(), ledger)
        finally:
            process.kill()


def command_line(*arguments: str | Path, **variables: str) -> tuple[list[str], dict[str, str]]:
    """Return a command line and its environment, which holds the key."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "POWERTOKENS_API_KEY": KEY,
        "PYTHONWARNINGS": "error",
        **{name: os.environ[name] for name in ("HOME", "XDG_STATE_HOME") if name in os.environ},
        **variables,
    }
    return [sys.executable, "-m", "runner", *map(str, arguments)], environ


def start(
    *arguments: str | Path, stderr: int | IO[Any] = subprocess.DEVNULL, **variables: str
) -> ForkedProcess:
    """Start a command in a forked process."""
    words, environ = command_line(*arguments, **variables)
    return ForkedProcess("runner.__main__:main", words[3:], environ, stderr=stderr)


def runner(
    *arguments: str | Path, timeout_s: float = 60, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a forked process, and wait for its end."""
    words, environ = command_line(*arguments, **variables)
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        with ForkedProcess(
            "runner.__main__:main", words[3:], environ, stdout=stdout, stderr=stderr
        ) as process:
            try:
                process.wait(timeout_s)
            except TimeoutError:
                process.kill()
                raise
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(words, process.wait(), stdout.read(), stderr.read())


def results_by_id(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Read the result lines of a run, by job id."""
    text = (run_dir / "results.jsonl").read_text(encoding="utf-8")
    return {value["job_id"]: value for value in map(json.loads, text.splitlines())}


async def _serve(scenario: Path, ledger: Path) -> None:
    await serve(load_scenario(scenario), port=0, ledger_path=ledger, ready=lambda url: print(url, flush=True))


def main() -> None:
    """Serve the scenario of the first argument, with the ledger of the second one."""
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
