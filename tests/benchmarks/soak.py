"""
A long run under faults and kills, checked against the simulator's ledger.

``python -m tests.benchmarks.soak`` runs 2,000 jobs with faults mixed in, kills the
process every few seconds, starts the next one until all jobs are finished, and prints how
often each job was paid for, in which states the jobs ended, how long it took and how much
memory each process used at most. ``--jobs 200000`` takes a night.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.simulator_process import SimulatorProcess, command_line, run_simulator

SCENARIO = """
version: 1
seed: {seed}
generate_s: [0.2, 2.0]
rules:
  - {{name: answer lost, match: {{nth: 100, every: 400}}, submit: reset}}
  - {{name: no id, match: {{nth: 300, every: 400}}, submit: no_id}}
  - {{name: throttled, match: {{nth: 50, every: 500}}, submit: throttled_empty}}
  - {{name: no channel, match: {{probability: 0.01}}, submit: no_channel}}
  - {{name: rejected, match: {{probability: 0.01}}, submit: {{fault: bad_request, times: always}}}}
  - {{name: polls, match: {{probability: 0.05}}, poll: [bad_gateway, forbidden, reset]}}
  - {{name: failed, match: {{probability: 0.02}}, task: {{end: failed}}}}
  - {{name: moderation, match: {{probability: 0.01}}, task: {{end: moderation}}}}
  - {{name: cut short, match: {{probability: 0.03}}, asset: [{{fault: truncated, at: 0.5}}, reset]}}
  - {{name: expired, match: {{probability: 0.02}}, asset: expired_url}}
"""

MANIFEST = """
version: 1
name: soak
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 500/s, poll: 1000/s, in_flight: 500, downloads: 16}}
poll: {{first: 300ms, interval: 500ms, max_interval: 1s, timeout: 5m}}
timeouts: {{submit: 10s, poll: 5s, stall: 5s, unknown_task: 5s}}
retry: {{attempts: 4, base: 50ms, cap: 500ms}}
jobs:
  - id: job-${{n}}
    repeat: {count}
    request: {{model: seedance-1-5-pro-251215, prompt: 'soak ${{n}}.', seconds: 4, size: 480p}}
"""

CHECK_EVERY_S = 0.2

PAID_BY_STATE = {
    "succeeded": {1},
    "uncertain": {0, 1},
    "undelivered": {1},
    "timed_out": {1},
    "failed": {0, 1},
}
"""The possible numbers of accepted POSTs of a job, by its final state."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """The measurements of one process."""

    elapsed_s: float
    exit_code: int
    peak_bytes: int


def run_once(manifest: Path, run_dir: Path, *, kill_after_s: float | None) -> ProcessResult:
    """Run one process, kill it after a while, and measure it."""
    started_at = time.monotonic()
    arguments, environ = command_line("run", manifest, "--new", "-o", run_dir)
    log = (run_dir.parent / "soak.log").open("ab")
    peak_bytes = 0
    with log, subprocess.Popen(arguments, env=environ, stdout=log, stderr=log) as process:
        while process.poll() is None:
            peak_bytes = max(peak_bytes, _peak_bytes(process.pid))
            if kill_after_s is not None and time.monotonic() - started_at > kill_after_s:
                process.kill()
            time.sleep(CHECK_EVERY_S)
    return ProcessResult(time.monotonic() - started_at, process.returncode, peak_bytes)


def _peak_bytes(pid: int) -> int:
    """
    Read the peak memory of a process; 0 if it is not known.

    The peak that `wait4` returns is no use: it includes what this process used when it started the other.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return 0 if found is None else int(found[1]) * 1024


def soak(folder: Path, *, jobs: int, kill_every_s: float, seed: int) -> int:
    """Run, kill and continue until all jobs are finished; print the results, and return 0 if they are good."""
    rng = random.Random(seed)
    processes: list[ProcessResult] = []
    with run_simulator(folder, SCENARIO.format(seed=seed)) as simulator:
        manifest, run_dir = folder / "soak.yaml", folder / "out"
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url, count=jobs), encoding="utf-8")
        while not processes or processes[-1].exit_code < 0:
            result = run_once(manifest, run_dir, kill_after_s=kill_every_s * rng.uniform(0.2, 1.8))
            processes.append(result)
            paid = len(simulator.ledger)
            print(f"process {len(processes)}: {_described(result)}, {paid} tasks paid for", flush=True)
        return _check(simulator, run_dir, jobs, processes)


def _described(result: ProcessResult) -> str:
    end = "killed" if result.exit_code < 0 else f"exit {result.exit_code}"
    return f"{result.elapsed_s:.1f} s, {end}, at most {result.peak_bytes / 1e6:.0f} MB"


def _check(simulator: SimulatorProcess, run_dir: Path, jobs: int, processes: list[ProcessResult]) -> int:
    paid = Counter(f"job-{entry['prompt'][5:-1]}" for entry in simulator.ledger)
    states: Counter[str] = Counter()
    problems: list[str] = []
    with (run_dir / "results.jsonl").open(encoding="utf-8") as results:
        for line in map(json.loads, results):
            states[line["status"]] += 1
            if paid[line["job_id"]] not in PAID_BY_STATE.get(line["status"], set()):
                problems.append(
                    f"{line['job_id']} is {line['status']}, and was paid for {paid[line['job_id']]} times"
                )
    elapsed_s = sum(process.elapsed_s for process in processes)
    print(f"jobs: {jobs}, " + ", ".join(f"{count} {state}" for state, count in states.most_common()))
    print(f"paid for twice: {sum(count > 1 for count in paid.values())}; in a wrong state: {len(problems)}")
    for problem in problems[:20]:
        print(f"  {problem}")
    print(
        f"{len(processes)} processes in {elapsed_s:.0f} s ({jobs / elapsed_s:.0f} jobs/s), "
        f"at most {max(process.peak_bytes for process in processes) / 1e6:.0f} MB each"
    )
    is_good = not problems and sum(states.values()) == jobs and processes[-1].exit_code in (0, 1, 4)
    print("good" if is_good else "NOT GOOD")
    return 0 if is_good else 1


def main() -> int:
    """Read the options and soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--kill-every", type=float, default=4.0, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        return soak(Path(folder), jobs=options.jobs, kill_every_s=options.kill_every, seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
