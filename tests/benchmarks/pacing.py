"""The rate of submissions: as configured, and under a gateway that allows less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import rig
from tests.benchmarks.rig import Row


def configured(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Submissions a second beside what the manifest says."""
    per_s, count = 50, 500 if jobs > 5000 else 250
    with rig.gateway(rig.video_file(memory / "small.mp4", 10_240)) as server:
        path = rig.manifest(memory, server.url, count, at_once=1000, submit=f"{per_s}/s")
        out = disk / "paced"
        rig.run(["-m", "runner", "run", path, "--new", "-o", out])
        stats = server.check(count, out)
    observed = (count - 1) / (stats["last_post_at"] - stats["first_post_at"])
    yield Row(
        "submissions a second",
        f"the configured {per_s}/s",
        "1.0",
        "1.0",
        f"{observed / per_s:.3f}",
        f"{observed:.1f}/s",
    )


def limited(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """A gateway that takes 20 a second and answers 429 beyond, and a manifest that wishes for 100."""
    per_s, seconds = 20, 90 if jobs > 5000 else 60
    count = per_s * seconds
    with rig.gateway(rig.video_file(memory / "small.mp4", 10_240), per_s=per_s) as server:
        path = rig.manifest(memory, server.url, count, at_once=1000, submit="100/s")
        out = disk / "limited"
        rig.run(["-m", "runner", "run", path, "--new", "-o", out])
        stats = server.check(count, out)
    kept_per_s = count / (stats["last_post_at"] - stats["first_post_at"])
    late = stats["throttled_late"] / max(stats["throttled_late"] + stats["posts_late"], 1)
    yield Row(
        f"accepted a second where the gateway allows {per_s}/s and the manifest wishes for 100/s",
        "what is allowed",
        "0.9",
        "-",
        f"{kept_per_s / per_s:.2f}",
        f"{late:.1%} throttled after the first half minute (must be < 5 %), {stats['throttled']} in all",
    )
