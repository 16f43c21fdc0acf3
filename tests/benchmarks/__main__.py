"""Print the table: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import budget, end_to_end, front_end, growth, pacing, startup, waiting
from tests.benchmarks.rig import MEMORY, ROOT, Row, Wrong

Benchmark = Callable[..., Iterator[Row]]

BENCHMARKS: dict[str, Benchmark] = {
    "small": end_to_end.small,
    "dear-sync": end_to_end.dear_sync,
    "synced-assets": end_to_end.synced_assets,
    "budget": budget.reservation,
    "ledger": budget.ledger,
    "sdk": end_to_end.sdk,
    "large": end_to_end.large,
    "medium": end_to_end.medium,
    "huge": end_to_end.huge,
    "parked": waiting.parked,
    "query-cpu": waiting.query_cpu,
    "million": front_end.million,
    "ten-million": front_end.ten_million,
    "yaml": front_end.yaml_jobs,
    "jsonl": front_end.jsonl_rows,
    "finished": front_end.finished,
    "growth": growth.growth,
    "long-run": growth.long_run,
    "startup": startup.startup,
    "pace": pacing.configured,
    "limited": pacing.limited,
}


def main() -> None:
    """Run what was asked for, in turn, and print a row of Markdown for each figure as it is known."""
    options = _options()
    jobs, rounds = (1000, 2) if options.quick else (10_000, 5)
    names = options.only or list(BENCHMARKS)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}, Python {platform.python_version()}: {_command()}\n")
    print("| what | against | must | aim | measured | |")
    print("|---|---|---|---|---|---|", flush=True)
    # On the disk nothing is deleted before the end: ext4 without a journal is slow where it just was.
    disk = Path(tempfile.mkdtemp(prefix="runner-benchmarks-", dir=options.disk))
    failed = False
    try:
        for name in names:
            failed |= not _one(name, disk, jobs, options.rounds or rounds)
    finally:
        shutil.rmtree(disk, ignore_errors=True)
    print("\naccepted POSTs per job, in every run above: exactly 1" if not failed else "")
    sys.exit(failed)


def _one(name: str, disk: Path, jobs: int, rounds: int) -> bool:
    memory = Path(tempfile.mkdtemp(prefix="runner-benchmarks-", dir=MEMORY))
    own_disk = disk / name
    own_disk.mkdir()
    began = time.monotonic()
    try:
        for row in BENCHMARKS[name](own_disk, memory, jobs=jobs, rounds=rounds):
            cells = (row.what, row.against, row.must, row.aim, f"**{row.value}**", row.note)
            print("| " + " | ".join(cells) + " |", flush=True)
    except Wrong as error:
        print(f"| {name} | | | | not measured: {error} | |", flush=True)
        return False
    finally:
        shutil.rmtree(memory, ignore_errors=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the jobs, two rounds: a minute or two"
    )
    parser.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), help="only this one; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help="how often each case is measured")
    parser.add_argument(
        "--disk", type=Path, default=ROOT, help="a folder on the disk to measure with (default: here)"
    )
    return parser.parse_args()


def _command() -> str:
    return " ".join(["python -m tests.benchmarks", *sys.argv[1:]])


def _machine() -> str:
    import os

    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{os.cpu_count()} CPUs ({model}), {platform.system()} {platform.release()}"


if __name__ == "__main__":
    main()
