"""Tasks that wait for their next query: their memory, and the CPU of a query."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import rig
from tests.benchmarks.end_to_end import SMALL_BYTES, floor, runner
from tests.benchmarks.rig import Row, ratio

_PARKED = Path(__file__).with_name("parked.py")


def parked(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Memory of a task in flight over its record, in the heap and as a coroutine that sleeps."""
    for count in (jobs, jobs * 10):
        peer = [_kib("tasks", count) for _ in range(rounds)]
        own = [_kib("heap", count) for _ in range(rounds)]
        yield Row(
            f"memory a task in flight over its record, {count:,} at once",
            "a sleeping coroutine a job",
            "0.5x",
            "0.2x",
            ratio([a / b for a, b in zip(own, peer, strict=True)]),
            f"{own[0]:.2f} beside {peer[0]:.2f} KiB",
        )


def _kib(kind: str, count: int) -> float:
    value: float = json.loads(rig.run([_PARKED, kind, str(count)]).stdout)
    return value


def query_cpu(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """CPU of a query: what twenty more of them for each job add to a run, and to the bare loop."""
    few, more = max(jobs // 10, 500), 20
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    ratios, note = [], ""
    for _ in range(rounds):
        costs = []
        for is_ours in (False, True):
            cpu = []
            for queries in (1, 1 + more):
                with rig.gateway(asset, queries=queries) as server:
                    spent = (
                        runner(server, few, 64, disk, memory) if is_ours else floor(server, few, 64, memory)
                    )
                    cpu.append(spent.cpu_ms)
            costs.append((cpu[1] - cpu[0]) / more * 1000)
        ratios.append(costs[1] / costs[0])
        note = f"{costs[1]:.0f} beside {costs[0]:.0f} us"
    yield Row("CPU a poll", "a bare GET and json.loads", "1.4x", "1.15x", ratio(ratios), note)
