"""
How long Chromium takes to open the report of a run, and to change what it shows.

``python -m tests.benchmarks.report_page --jobs 10000 --posters 1000``
"""

from __future__ import annotations

import argparse
import base64
import os
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.report.page import PageInfo, ReportBuilder, write_page
from tests.report.browser import Browser, browser
from tests.results.records import AT, VIDEO, succeeded, unsuccessful

_ROUNDS = 5
_POSTER_BYTES = 6_000
_CHANGES = (
    "{sort: 'request.seed'}",
    "{by: 'metadata.split'}",
    "{by: '', sort: '', q: 'kitten 77'}",
    "{q: '', state: 'failed'}",
)
_OPENED = """
    const [navigation] = performance.getEntriesByType('navigation');
    return [performance.getEntriesByName('first-contentful-paint')[0]?.startTime, navigation.loadEventEnd, cards().length];
"""


def main() -> None:
    """Write a report, open it several times, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--posters", type=int, default=1_000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        _write(page, arguments.jobs, arguments.posters)
        print(f"{arguments.jobs:,} jobs, {arguments.posters:,} posters: {page.stat().st_size / 1e6:.1f} MB")
        with browser(Path(folder) / "profile") as chromium:
            _measure(chromium, page)


def _write(path: Path, jobs: int, posters: int) -> None:
    builder = ReportBuilder()
    for n in range(jobs):
        changes = {
            "index": n,
            "request": {
                "prompt": f"A kitten {n // 4} looks up at falling snow, soft light, slow dolly in",
                "seed": n % 97,
            },
            "metadata": {"split": "test" if n % 9 == 0 else "train", "caption": "小猫", "shot": n // 4},
            "submitted_at": AT + n,
            "finished_at": AT + n + 90,
        }
        if n % 10:
            builder.add(
                succeeded(f"job-{n}", assets=(replace(VIDEO, path=f"assets/job-{n}.mp4"),), **changes)
            )
        else:
            builder.add(unsuccessful(f"job-{n}", State.FAILED, FailureClass.MODERATION, "refused", **changes))
    pictures = {
        video: base64.b64encode(os.urandom(_POSTER_BYTES)).decode() for video in builder.videos()[:posters]
    }
    write_page(builder, path, PageInfo("kittens", "https://api.example", path.parent, AT, posters=pictures))


def _measure(chromium: Browser, page: Path) -> None:
    rounds = []
    for _ in range(_ROUNDS):
        chromium.visit("about:blank")
        chromium.open(page)
        rounds.append(chromium.run(_OPENED))
    paint, loaded, cards = (statistics.median(values) for values in zip(*rounds, strict=True))
    print(f"opened: first picture after {paint:.0f} ms, usable with {cards:.0f} clips after {loaded:.0f} ms")
    for change in _CHANGES:
        script = f"const start = performance.now(); change({change}); document.body.offsetHeight; return performance.now() - start"
        print(f"change({change}): {chromium.run(script):.0f} ms")


if __name__ == "__main__":
    main()
