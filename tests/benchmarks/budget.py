"""What a budget costs: runs with and without reservations in turn, and sums of a ledger with ten million entries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

from runner.core.cost import Cost, CostState
from runner.core.prices import Unit
from runner.store.costs import LedgerEntry
from runner.store.ledger import Ledger
from runner.store.ledger_report import open_to_read, spent_by
from tests.benchmarks import rig
from tests.benchmarks.end_to_end import SMALL_BYTES, Figures, figures, rig_folder
from tests.benchmarks.rig import Gateway, Row, ratio

_PRICED = """\
prices:
  {version: 1, checked: 2026-11-26, currency: USD, prices: [{model: seedance-1-0-pro-250528, unit: second, price: 0.01}]}
budget: {run: 900000 USD, day: 900000 USD, month: 900000 USD}
"""
_ENTRIES, _RUNS = 10_000_000, 100
_JANUARY_2026 = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
_numbers = count()


def reservation(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """10 KB assets, with a budget of the run, the day and the month, against the same run without one."""
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    with rig.gateway(asset) as server:
        for at_once in (64, 256):
            bare, paid = rig.in_turn(
                rounds,
                *(partial(_run, server, jobs, at_once, disk, memory, head) for head in ("", _PRICED)),
            )
            yield Row(
                f"jobs/s with a budget, {jobs:,} jobs of 10 KB, {at_once} at once",
                "the same without a budget",
                "0.97",
                "-",
                ratio([a.per_s / b.per_s for a, b in zip(paid, bare, strict=True)], digits=3),
                f"{paid[0].per_s:.0f} of {bare[0].per_s:.0f} jobs/s",
            )
            yield Row(
                f"CPU a job, {at_once} at once",
                "the same without a budget",
                "-",
                "-",
                ratio([a.cpu_ms / b.cpu_ms for a, b in zip(paid, bare, strict=True)], digits=3),
                f"{paid[0].cpu_ms:.2f} of {bare[0].cpu_ms:.2f} ms",
            )


def _run(
    server: Gateway, jobs: int, at_once: int, disk: Path, memory: Path, head: str, _round: int
) -> Figures:
    out = disk / f"paid-{next(_numbers)}"
    elsewhere = memory / out.name
    elsewhere.mkdir(parents=True)
    out.mkdir(parents=True)
    (out / "assets").symlink_to(elsewhere, target_is_directory=True)
    manifest = rig.manifest(rig_folder(disk), server.url, jobs, at_once=at_once, head=head)
    taken = rig.run(["-m", "runner", "run", manifest, "--new", "-o", out], on_one_cpu=True)
    return figures(taken, server, jobs, elsewhere)


def ledger(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Sums of a ledger of a hundred runs."""
    path = disk / "spend.db"
    with closing(Ledger(path)) as opened:
        for run in range(_RUNS):
            key, _ = opened.open_run(str(run), f"run {run}", f"/runs/{run}")
            opened.sync_run(key, _entries(run))
            opened.close_run(key, [])
    for by, must in (("day", "2 s"), ("model", "-"), ("run", "-"), ("tag:split", "-")):
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            with open_to_read(path) as reading:
                spent_by(reading, by)
            took.append(time.perf_counter() - began)
        size = f"{path.stat().st_size / 1e6:,.0f} MB"
        yield Row(f"runner spend --by {by}, {_ENTRIES:,} entries", "-", must, "-", f"{max(took):.3f} s", size)


def _entries(run: int) -> Iterator[LedgerEntry]:
    for seq in range(_ENTRIES // _RUNS):
        cost = Cost(
            number=1,
            at=_JANUARY_2026 + (run * 3 + seq // 40_000) % 365 * 86400,
            currency="USD",
            reserved=10**8,
            unit=Unit.SECOND,
            rate="0.05",
            state=CostState.SETTLED,
            settled=9 * 10**7,
            basis="usage",
        )
        yield LedgerEntry(seq, f"model-{seq % 4}", '{"split": "train"}', cost)
