"""Results with their videos, as a run leaves them, made without a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.core.filenames import asset_path
from runner.core.model import Asset, AssetKind, JobRecord
from runner.results.formats import line_bytes
from runner.simulator.video import video, video_spec
from tests.results.records import AT, succeeded

MODELS = ("seedance-1-0-pro-250528", "wan2.7-i2v")


def video_bytes(number: int) -> bytes:
    """Return a small MP4 file; each number has a color of its own."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    body = video(video_spec({"duration": 2}, digest))
    return body[0 : body.size]


def mixed_jobs(count: int) -> Iterator[JobRecord]:
    """Yield jobs of two models and splits: some have no seed, no width or no duration, and all have Chinese captions."""
    for number in range(count):
        request: dict[str, Any] = {"model": MODELS[number % 2], "prompt": f"A kitten, take {number}"}
        if number >= count // 2:
            request["seed"] = number
        yield succeeded(
            f"job-{number}",
            index=number,
            model=MODELS[number % 2],
            request=request,
            metadata={"caption": f"小猫 {number}", "split": "test" if number % 5 == 4 else "train"},
            finished_at=AT + number,
        )


def write_run(
    folder: Path,
    jobs: Iterable[JobRecord],
    *,
    run: str = "kittens",
    content: bytes | None = None,
    append: bool = False,
) -> Path:
    """
    Write the results of jobs and a video for each that succeeded; return the folder.

    Args:
        content: Of every video; by default each has one of its own.
    """
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    with (folder / "results.jsonl").open("ab" if append else "wb") as results:
        for number, job in enumerate(jobs):
            record = job
            if job.assets:
                body = video_bytes(number) if content is None else content
                path = asset_path(job.job_id, AssetKind.VIDEO, ".mp4", sharded=False)
                (folder / path).write_bytes(body)
                size = None if number % 3 == 0 else 480
                asset = Asset(
                    AssetKind.VIDEO,
                    path,
                    len(body),
                    hashlib.sha256(body).hexdigest(),
                    "video/mp4",
                    size,
                    size,
                    None if number < 8 else 2.0,
                )
                record = replace(job, assets=(asset,))
            results.write(line_bytes(record, run=run, gateway="https://gateway.example"))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
