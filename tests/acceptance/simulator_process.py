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
from typing import Any

ROOT = Path(__file__).parents[2]
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
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.acceptance.simulator_process",
            str(folder / "scenario.yaml"),
            str(ledger),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
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


def runner(
    *arguments: str | Path, timeout_s: float = 60, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its end."""
    command, environ = command_line(*arguments, **variables)
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def results_by_id(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Read the result lines of a run, by job id."""
    text = (run_dir / "results.jsonl").read_text(encoding="utf-8")
    return {value["job_id"]: value for value in map(json.loads, text.splitlines())}


async def _serve(scenario: Path, ledger: Path) -> None:
    from runner.simulator.scenario_reader import load_scenario
    from runner.simulator.server import serve

    await serve(load_scenario(scenario), port=0, ledger_path=ledger, ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
