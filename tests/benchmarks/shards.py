"""
A run of many shards under faults, checked against the simulator's ledger, and what a job costs in it.

``python -m tests.benchmarks.shards --jobs 300000 --shards 8`` prepares a journal in a folder, works on all shards at once,
each in a process of its own, merges them, and prints what that took: CPU, records and bytes of the journal a job, and the
merge. With ``--kill-every 300`` each process is killed about every five minutes, and started again. ``--folder`` is a new
folder that is kept; ext4 without a journal is slow where many files were deleted before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.simulator_process import command_line, run_simulator
from tests.benchmarks.soak import PAID_BY_STATE, SCENARIO

MANIFEST = """
version: 1
name: many
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 400/s, poll: 1000/s, in_flight: 800, downloads: 8}}
poll: {{first: 1s, interval: 1s, max_interval: 2s, timeout: 10m}}
timeouts: {{submit: 30s, poll: 20s, stall: 20s, unknown_task: 20s}}
retry: {{attempts: 4, base: 50ms, cap: 500ms}}
jobs:
  - id: job-${{n}}
    repeat: {count}
    request: {{model: seedance-1-5-pro-251215, prompt: 'soak ${{n}}.', seconds: 4, size: 480p}}
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process took."""

    exit_code: int
    wall_s: float
    cpu_s: float


def _run(folder: Path, *arguments: str | Path, kill_after_s: float | None = None) -> Taken:
    """Run a command of the program to its end, or kill it after a while."""
    words, environ = command_line(*arguments, XDG_STATE_HOME=str(folder / "state"))
    began = time.monotonic()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(words, cwd=folder, env=environ, stdout=log, stderr=log)
    timer = None
    if kill_after_s is not None:
        timer = threading.Timer(kill_after_s, os.kill, (process.pid, signal.SIGKILL))
        timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    if timer is not None:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Taken(process.returncode, time.monotonic() - began, usage.ru_utime + usage.ru_stime)


def _shard(
    folder: Path, base_url: str, shard: str, *, kill_every_s: float | None, rng: random.Random
) -> list[Taken]:
    """Work on a shard until it ends, in one process after another."""
    command = ("resume", (folder / "journal").as_uri(), "--shard", shard, "--base-url", base_url)
    processes: list[Taken] = []
    while not processes or processes[-1].exit_code < 0:
        kill_after_s = None if kill_every_s is None else kill_every_s * rng.uniform(0.2, 1.8)
        processes.append(_run(folder, *command, "--max-failures", "off", kill_after_s=kill_after_s))
        print(f"shard {shard}: exit {processes[-1].exit_code} after {processes[-1].wall_s:.0f} s", flush=True)
    return processes


def measure(folder: Path, *, jobs: int, shards: int, kill_every_s: float | None, seed: int) -> bool:
    """Run all shards, merge and check them, print the figures, and return whether all is as it should be."""
    (folder / "output").mkdir()
    with run_simulator(folder, SCENARIO.format(seed=seed)) as simulator:
        manifest, url = folder / "many.yaml", (folder / "journal").as_uri()
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url, count=jobs), encoding="utf-8")
        prepared = _run(folder, "prepare", manifest, "--shards", str(shards), "--journal", url)
        began = time.monotonic()
        with ThreadPoolExecutor(shards) as pool:
            working = [
                pool.submit(
                    _shard,
                    folder,
                    simulator.base_url,
                    f"{index}/{shards}",
                    kill_every_s=kill_every_s,
                    rng=random.Random(f"{seed} {index}"),
                )
                for index in range(shards)
            ]
            of_shards = [each.result() for each in working]
        wall_s = time.monotonic() - began
        sizes = [path.stat().st_size for path in (folder / "journal").glob("shards/*/log/*")]
        objects = sum(1 for path in (folder / "journal").rglob("*") if path.is_file())
        out, merged = folder / "output" / "many", Taken(0, 0.0, 0.0)
        if shards > 1:
            merged = _run(folder, "merge", out, *(folder / "output").glob("many-shard-*"))
        paid = Counter(f"job-{entry['prompt'][5:-1]}" for entry in simulator.ledger)
    processes = [process for each in of_shards for process in each]
    cpu_s = sum(process.cpu_s for process in processes)
    kills = sum(process.exit_code < 0 for process in processes)
    print(f"{jobs} jobs, {shards} shards, {kills} kills, seed {seed}: {wall_s:.0f} s")
    print(
        f"CPU a job {cpu_s / jobs * 1000:.2f} ms; journal: {len(sizes) / jobs:.2f} records and "
        f"{sum(sizes) / jobs:.0f} bytes a job, {objects} objects; prepare {prepared.wall_s:.1f} s "
        f"({prepared.cpu_s:.1f} s of CPU); merge {merged.wall_s:.1f} s ({merged.cpu_s:.1f} s of CPU)"
    )
    ends = [each[-1].exit_code for each in of_shards]
    is_good = _check(out, paid, jobs) and {0, 1, 4}.issuperset(ends) and merged.exit_code == 0
    print("good" if is_good else f"NOT GOOD: the shards ended with {ends}, merge with {merged.exit_code}")
    return is_good


def _check(out: Path, paid: Counter[str], jobs: int) -> bool:
    """Hold the merged results against the ledger."""
    states: Counter[str] = Counter()
    wrong = []
    with (out / "results.jsonl").open(encoding="utf-8") as results:
        for line in map(json.loads, results):
            states[line["status"]] += 1
            job_id, status = line["job_id"], line["status"]
            has_assets = all((out / asset["path"]).is_file() for asset in line["assets"])
            if paid[job_id] not in PAID_BY_STATE.get(status, set()) or not has_assets:
                wrong.append(f"{job_id} is {status}, and was paid for {paid[job_id]} times")
    print(", ".join(f"{count} {state}" for state, count in states.most_common()), end="; ")
    print(f"{sum(paid.values())} tasks paid for, {sum(count > 1 for count in paid.values())} jobs twice")
    for problem in wrong[:20]:
        print(f"  {problem}")
    return not wrong and sum(states.values()) == jobs


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--kill-every", type=float, help="seconds, on average; by default nothing is killed")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, help="a new folder, which is kept")
    options = parser.parse_args()
    arguments = {"jobs": options.jobs, "shards": options.shards, "seed": options.seed}
    if options.folder is not None:
        options.folder.mkdir(parents=True)
        return not measure(options.folder, kill_every_s=options.kill_every, **arguments)
    with tempfile.TemporaryDirectory() as folder:
        return not measure(Path(folder), kill_every_s=options.kill_every, **arguments)


if __name__ == "__main__":
    sys.exit(main())
