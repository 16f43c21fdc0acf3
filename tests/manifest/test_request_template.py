"""Rows that are checked by what differs between them give the same jobs as requests that are written out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.core.model import Json
from tests.manifest.helpers import SEEDANCE, ReadManifest, read_manifest

PROMPTS = st.sampled_from(
    [
        "A kitten",
        "",
        " ",
        "猫" * 500,
        "猫" * 501,
        "x" * 501,
        "c " * 1001,
        '"\\\0',
        "$file",
        5,
        None,
        ["x"],
        "./a.png",
    ]
)
VALUES = {
    "prompt": PROMPTS,
    "seed": st.sampled_from([5, "5", 5.0, True, -2, 2**40, "x", None]),
    "seconds": st.sampled_from(["5", 5, "13", None]),
    "size": st.sampled_from(["720p", "720P", "1080p", "4k", None]),
    "image": st.sampled_from(["https://example.com/a.png", "./missing.png", "x", None]),
    "model": st.sampled_from([SEEDANCE, "seedance-1-5-pro-251215", "wan2.7-i2v", "none", None]),
    "media": st.sampled_from([[{"type": "text", "text": "A cat"}], [], None]),
}
CONSTANTS: dict[str, Json] = {
    "model": SEEDANCE,
    "prompt": "A cat",
    "seconds": "5",
    "size": "720p",
    "watermark": False,
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Json], list[dict[str, Json]]]:
    """Choose which keys of a template are placeholders, and the rows for them."""
    keys = draw(st.sets(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3) | st.just({"prompt"}))
    constants = draw(st.sampled_from([CONSTANTS, {**CONSTANTS, "seconds": 5}]))
    request = {key: value for key, value in constants.items() if key not in keys or draw(st.booleans())}
    rows = draw(st.lists(st.fixed_dictionaries({key: VALUES[key] for key in sorted(keys)}), max_size=6))
    return request | {key: f"${{{key}}}" for key in sorted(keys)}, rows


def _results(result: ReadManifest) -> list[tuple[Json, ...]]:
    jobs = [(job.job_id, job.request, job.digest, job.schema, job.model, job.warnings) for job in result.jobs]
    invalid = [(job.job_id, job.request, job.digest, job.schema, reason) for job, reason in result.invalid]
    return [*jobs, *invalid]


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_rows_give_the_jobs_of_a_batch_file(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[dict[str, Json], list[dict[str, Json]]]
) -> None:
    """A template with rows makes the same jobs, valid and invalid, as a batch file with each request in full."""
    request, rows = table
    folder: Path = tmp_path_factory.mktemp("m")
    filled = [{key: row.get(key, value) for key, value in request.items()} for row in rows]
    bodies = [{key: value for key, value in body.items() if value is not None} for body in filled]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"n": str(n), **row}) + "\n" for n, row in enumerate(rows))
    )
    (folder / "batch.jsonl").write_text(
        "".join(
            json.dumps({"custom_id": str(n), "method": "POST", "url": "/v1/videos", "body": body}) + "\n"
            for n, body in enumerate(bodies)
        )
    )
    entry = {"id": "${n}", "from": "rows.jsonl", "request": request}
    (folder / "m.yaml").write_text(json.dumps({"version": 1, "jobs": [entry]}))

    assert _results(read_manifest(folder / "batch.jsonl")) == _results(read_manifest(folder / "m.yaml"))
