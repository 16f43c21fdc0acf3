"""Reports of runs whose jobs are written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Attempt, FailureClass, JobRecord, Verdicts
from runner.report.page import PageInfo, ReportBuilder, write_page
from tests.results.records import AT, HOSTILE, VIDEO, succeeded, unsuccessful

JOBS = [
    *(
        succeeded(
            f"job-{n:02}",
            index=n,
            model=("wan2.7-i2v", "wan2.7-t2v")[n % 2],
            request={"prompt": f"A kitten, take {n // 2}", "seed": 100 - n},
            metadata={"split": "test" if n % 5 == 0 else "train"},
            submitted_at=AT + n,
            finished_at=AT + n + 90,
            assets=(
                replace(
                    VIDEO,
                    path=f"assets/{name}.mp4",
                    width=90 if n else 160,
                    height=160 if n else 90,
                    bytes=1000 + n,
                ),
            ),
        )
        for n, name in enumerate(["sky", "sky #1?", *["absent"] * 28])
    ),
    *(
        unsuccessful(
            text[:150],
            State.FAILED,
            FailureClass.MODERATION,
            text[:400],
            index=30 + n,
            request={"prompt": text},
        )
        for n, text in enumerate(HOSTILE)
    ),
    unsuccessful(
        "unclear", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, model="seedance-1-5-pro-251215", index=50
    ),
    succeeded(
        "late",
        index=51,
        attempts=(Attempt(1, AT - 9, "throttled", http_status=429), Attempt(2, AT, "accepted", "t", 200)),
    ),
]


def report(
    folder: Path, jobs: Iterable[JobRecord] = JOBS, verdicts: Mapping[str, str] | None = None, **options: Any
) -> Path:
    """Write the report of these jobs into a folder."""
    known = Verdicts()
    known.update(verdicts or {})
    path, builder = folder / "report.html", ReportBuilder(known, **options)
    for job in jobs:
        builder.add(job)
    write_page(builder, path, PageInfo("kittens", "https://api.powertokens.ai", folder, AT))
    return path
