"""From the start of a process to its first deed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import rig
from tests.benchmarks.rig import Row, ratio


def startup(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """`runner --help`, `runner validate` and `runner run`, beside an interpreter that does nothing."""
    with rig.gateway(rig.video_file(memory / "small.mp4", 10_240)) as server:
        manifest = rig.manifest(memory, server.url, 10, at_once=10)

        def first_post(number: int) -> float:
            began = time.monotonic()
            rig.run(["-m", "runner", "run", manifest, "--new", "-o", disk / f"start-{number}"])
            taken_s: float = server.check(10, disk / f"start-{number}")["first_post_at"] - began
            return taken_s

        nothing, importing, showing, checking, posting = rig.in_turn(
            rounds * 4,
            lambda _: rig.run(["-c", "pass"]).wall_s,
            lambda _: rig.run(["-c", "import aiohttp"]).wall_s,
            lambda _: rig.run(["-m", "runner", "--help"]).wall_s,
            lambda _: rig.run(["-m", "runner", "validate", manifest]).wall_s,
            first_post,
        )
    for what, against, must, aim, own, peer in (
        ("`runner --help`", "python -c pass", "5x", "3.9x", showing, nothing),
        ("`runner validate` of ten jobs", "python -c pass", "9x", "7x", checking, nothing),
        ("`runner run` to its first POST", "import aiohttp", "1.6x", "1.3x", posting, importing),
    ):
        value = ratio([a / b for a, b in zip(own, peer, strict=True)], digits=1)
        note = f"{statistics.median(own) * 1000:.0f} beside {statistics.median(peer) * 1000:.0f} ms"
        yield Row(what, against, must, aim, value, note)
