"""
A long run under faults and kills, judged by the simulator's ledger.

``python -m tests.benchmarks.soak`` runs 2,000 jobs with faults mixed in, kills the
runner every few seconds, goes on until all is done, and prints the verdict: how often
each job was paid for, how each ended, how long it took and how much memory each
process held at most. ``--jobs 200000`` is a night's work.
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

from tests.acceptance.theatre import Theatre, command, playing

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

LOOK_S = 0.2

ENDS_PAID = {"succeeded": {1}, "uncertain": {0, 1}, "undelivered": {1}, "timed_out": {1}, "failed": {0, 1}}
"""By a job's end, how many accepted POSTs it may have."""


@dataclass(frozen=True, slots=True)
class Life:
    """One process of the runner."""

    lasted_s: float
    exit_code: int
    peak_bytes: int


def live(manifest: Path, run_dir: Path, *, kill_after_s: float | None) -> Life:
    """Run one process, killing it after a while, and measure it."""
    began = time.monotonic()
    words, environ = command("run", manifest, "-o", run_dir)
    log = (run_dir.parent / "soak.log").open("ab")
    peak_bytes = 0
    with log, subprocess.Popen(words, env=environ, stdout=log, stderr=log) as process:
        while process.poll() is None:
            peak_bytes = max(peak_bytes, _peak_bytes(process.pid))
            if kill_after_s is not None and time.monotonic() - began > kill_after_s:
                process.kill()
            time.sleep(LOOK_S)
    return Life(time.monotonic() - began, process.returncode, peak_bytes)


def _peak_bytes(pid: int) -> int:
    """
    Read the most memory that a process has held; 0 where that can't be known.

    What `wait4` gives is no use here: it counts what this process held when it started the other.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return 0 if found is None else int(found[1]) * 1024


def soak(folder: Path, *, jobs: int, kill_every_s: float, seed: int) -> int:
    """Run, kill and resume until all is done; print the verdict, and return 0 where it is good."""
    dice = random.Random(seed)
    lives: list[Life] = []
    with playing(folder, SCENARIO.format(seed=seed)) as theatre:
        manifest, run_dir = folder / "soak.yaml", folder / "out"
        manifest.write_text(MANIFEST.format(base_url=theatre.base_url, count=jobs), encoding="utf-8")
        while not lives or lives[-1].exit_code < 0:
            life = live(manifest, run_dir, kill_after_s=kill_every_s * dice.uniform(0.2, 1.8))
            lives.append(life)
            print(f"life {len(lives)}: {_told(life)}, {len(theatre.ledger)} tasks paid for", flush=True)
        return _verdict(theatre, run_dir, jobs, lives)


def _told(life: Life) -> str:
    end = "killed" if life.exit_code < 0 else f"exit {life.exit_code}"
    return f"{life.lasted_s:.1f} s, {end}, at most {life.peak_bytes / 1e6:.0f} MB"


def _verdict(theatre: Theatre, run_dir: Path, jobs: int, lives: list[Life]) -> int:
    paid = Counter(f"job-{entry['prompt'][5:-1]}" for entry in theatre.ledger)
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    with (run_dir / "results.jsonl").open(encoding="utf-8") as results:
        for line in map(json.loads, results):
            ends[line["status"]] += 1
            if paid[line["job_id"]] not in ENDS_PAID.get(line["status"], set()):
                wrong.append(
                    f"{line['job_id']} is {line['status']}, and was paid for {paid[line['job_id']]} times"
                )
    took_s = sum(life.lasted_s for life in lives)
    print(f"jobs: {jobs}, " + ", ".join(f"{count} {state}" for state, count in ends.most_common()))
    print(f"paid for twice: {sum(count > 1 for count in paid.values())}; without a good end: {len(wrong)}")
    for sentence in wrong[:20]:
        print(f"  {sentence}")
    print(
        f"{len(lives)} processes in {took_s:.0f} s ({jobs / took_s:.0f} jobs/s), "
        f"at most {max(life.peak_bytes for life in lives) / 1e6:.0f} MB each"
    )
    is_good = not wrong and sum(ends.values()) == jobs and lives[-1].exit_code in (0, 1, 4)
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
