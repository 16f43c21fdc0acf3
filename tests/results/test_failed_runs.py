"""failed.yaml is a manifest: read as one, it has the same requests as before."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.problem import Problem, Severity
from runner.core.settings import (
    AssetRules,
    Inputs,
    Limits,
    ModelLimits,
    Notify,
    PollPolicy,
    RetryPolicy,
    Settings,
    Timeouts,
)
from runner.manifest.loader import load
from runner.results.failed_manifest import rerun_name
from runner.schema.catalog import load_catalog as load_catalog
from tests.results.failed import write_failed
from tests.results.records import HOSTILE, unsuccessful

SEEDANCE = "seedance-1-0-pro-250528"


def failed(job_id: str, prompt: str, state: State = State.FAILED, **changes: Any) -> JobRecord:
    request = {"model": SEEDANCE, "prompt": prompt, "seconds": "5", "ratio": "16:9"}
    settings = {"model": SEEDANCE, "schema": "seedance-1", "request": request, "task_id": None, **changes}
    return unsuccessful(job_id, state, FailureClass.REMOTE_FAILED, **settings)


def known_keys(schema: str) -> Any:
    return load_catalog().document(schema)["properties"].keys()


def read(tmp_path: Path, *records: JobRecord, **options: Any) -> Any:
    path = tmp_path / "failed.yaml"
    write_failed(
        path,
        records,
        run="kittens",
        base_url="https://g.example",
        key_names=["K"],
        known_keys=known_keys,
        **options,
    )
    problems: list[Problem] = []
    manifest = load(path, problems.append, variables={}, today=date(2026, 11, 21))
    specs = list(manifest.jobs(problems.append))
    assert [] == [str(problem) for problem in problems if problem.severity is Severity.ERROR]
    return manifest, specs


@pytest.mark.parametrize(
    "prompt", [text[:900] for text in HOSTILE] + ["no", "$${x} $ ${y}", "16:9", "2026-11-21"]
)
def test_job_is_read_back(tmp_path: Path, prompt: str) -> None:
    """A failed job is read back with its id, request, metadata and timeout, whatever is in its prompt."""
    record = failed("sky ${n}", prompt, metadata={"caption": prompt, "n": 1.5}, timeout_s=90.0)

    manifest, (spec,) = read(tmp_path, record)

    assert (spec.job_id, spec.request, spec.metadata) == (record.job_id, record.request, record.metadata)
    assert (90.0, "seedance-1", None) == (spec.timeout_s, spec.schema, spec.task_id)
    assert ("kittens-rerun", "https://g.example") == (manifest.header.name, manifest.header.settings.base_url)
    assert ("K",) == manifest.header.settings.key_names


def test_settings_are_read_back(tmp_path: Path) -> None:
    """What failed is rerun with the settings of the first run."""
    limits = Limits(
        submit_per_s=1 / 3,
        in_flight=2,
        uploads=9,
        upload_per_s=0.5,
        models={SEEDANCE: ModelLimits(in_flight=1)},
    )
    settings = Settings(
        name="kittens",
        limits=limits,
        poll=PollPolicy(first_s=0.5, timeout_s=7200.0),
        timeouts=Timeouts(submit_s=33.3, stall_s=7.0),
        retry=RetryPolicy(attempts=9, base_s=0.1),
        assets=AssetRules(max_bytes=1_234_567_890, hosts=("cdn.example",)),
        notify=(
            Notify(on=("failure", "uncertain"), command=("notify-send", "no: ${x}")),
            Notify(webhook="https://h.example/"),
        ),
        inputs=Inputs(upload="s3://bucket/prefix", expires_s=7200.0, public_url="https://cdn.example/x/"),
    )

    manifest, _ = read(tmp_path, failed("sky", "a kitten"), settings=settings)

    other_names = {
        "name": manifest.header.settings.name,
        "base_url": "https://g.example",
        "key_names": ("K",),
    }
    assert replace(settings, **other_names) == manifest.header.settings


def test_task_and_extra_fields_are_read_back(tmp_path: Path) -> None:
    """A job with a task is polled by it; a field that no schema has is still sent."""
    paid = failed("paid", "a kitten", State.TIMED_OUT, task_id="task_x")
    extra = failed(
        "extra", "a kitten", request={"model": SEEDANCE, "prompt": "a kitten", "brand_new": {"a": [1]}}
    )

    _, specs = read(tmp_path, paid, extra)

    assert ["task_x", None] == [spec.task_id for spec in specs]
    assert extra.request == specs[1].request


def test_name_fits_however_often_it_is_rerun() -> None:
    """The name remains valid for a directory."""
    assert len(rerun_name("x" * 100)) <= 100
    assert "x" * 89 + "-rerun-1000" == rerun_name("x" * 90 + "-rerun-999")
