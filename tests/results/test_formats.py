"""A result line has all that a run knows of a job, in a published format that common tools load."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, JobRecord
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    BadBaseUrl,
    KeyRefused,
    NoChannel,
    NotSent,
    Rejected,
    RemoteStatus,
    RemoteTask,
    Throttled,
    submit_transition,
)
from runner.core.wire_vocabulary import completed_usage
from runner.results.formats import line_bytes, result_line, utc_text
from runner.results.inline_media import replace_inline_media, restore_inline_media
from runner.results.parse import parse_line
from tests.conftest import SCHEMA, invalid_lines
from tests.results.records import AT, HOSTILE, records, succeeded, times, unsuccessful

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)


def line(record: JobRecord) -> bytes:
    return line_bytes(record, run="kittens", gateway="https://api.powertokens.ai")


def test_format() -> None:
    """The line of a finished job is the documented one, with times in UTC with milliseconds."""
    value = json.loads(line(succeeded()))

    assert "succeeded" == value["status"]
    assert "2026-11-21T02:00:01.250Z" == value["submitted_at"]
    assert "2026-11-21T02:01:40.020Z" == value["finished_at"]
    assert [
        {
            "number": 1,
            "submitted_at": "2026-11-21T02:00:01.250Z",
            "outcome": "accepted",
            "task_id": "task_x",
            "http_status": 200,
            "error": None,
        }
    ] == value["attempts"]
    assert "assets/sky.mp4" == value["assets"][0]["path"]
    assert value["error"] is None


def test_error_has_its_five_keys() -> None:
    """A failure always has class, code, message, status and request id, so that a column has one type."""
    record = unsuccessful("sky", State.FAILED, FailureClass.MODERATION, "refused")

    assert {
        "class": "moderation",
        "code": "some_code",
        "message": "refused",
        "http_status": 400,
        "request_id": "req_1",
    } == result_line(record, run="r", gateway="g")["error"]


@pytest.mark.slow
@given(records)
def test_any_line_follows_the_schema_and_reads_back(record: JobRecord) -> None:
    """Whatever is in a record, its line is valid by the published schema, and is parsed to the same record."""
    written = line(record)
    value = json.loads(written)

    jsonschema.Draft202012Validator(SCHEMA).validate(value)
    assert 1 == written.count(b"\n")
    usage = completed_usage(record.usage, record.assets)
    assert replace(record, usage=usage) == parse_line(value, line=1).record


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_one_line(text: str) -> None:
    """No prompt, however hostile or long, splits a line or is changed."""
    written = line(succeeded(request={"model": "m", "prompt": text}))

    assert 1 == written.count(b"\n")
    assert text == json.loads(written)["request"]["prompt"]


@given(times)
def test_times_are_what_datetime_reads(at: float) -> None:
    """A formatted time is right to the millisecond."""
    text = utc_text(at)

    assert text is not None
    assert abs(datetime.fromisoformat(text).timestamp() - at) < 0.0006
    assert UTC == datetime.fromisoformat(text).tzinfo


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1e30, 1e18])
def test_time_that_is_in_no_calendar(at: float) -> None:
    """An absurd time from the API does not break the line of its job."""
    assert utc_text(at) is None


def test_local_file_and_data_uri_are_replaced() -> None:
    """Results have a picture's digest, size and source, and not its content."""
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    reference = {
        "$file": "/home/a b/猫,;1.png",
        "sha256": sha256,
        "media_type": "image/png",
        "bytes": len(PICTURE),
    }
    inline = "data:image/png;base64," + base64.b64encode(PICTURE).decode()

    replaced = replace_inline_media({"image": reference, "images": [inline, "https://example.com/a.png"]})

    head = f"data:image/png;bytes={len(PICTURE)};sha256={sha256}"
    assert head + ";source=/home/a%20b/%E7%8C%AB%2C%3B1.png" == replaced["image"]
    assert [head, "https://example.com/a.png"] == replaced["images"]


def test_prompt_that_begins_like_a_data_uri_is_unchanged() -> None:
    """Only a data URI is replaced, not text that looks like one."""
    assert "data: the kittens; base64, they say" == replace_inline_media(
        "data: the kittens; base64, they say"
    )


def test_unchanged_file_is_restored(tmp_path: Path) -> None:
    """A job can be submitted again if its local file is unchanged."""
    file = tmp_path / "猫 1.png"
    file.write_bytes(PICTURE)
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    reference = {"$file": str(file), "sha256": sha256, "media_type": "image/png", "bytes": len(PICTURE)}

    restored = restore_inline_media(replace_inline_media({"image": reference}))

    assert {"image": reference} == restored.request
    assert () == restored.missing


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda file: file.unlink(), "is not on this machine"),
        (lambda file: file.write_bytes(PICTURE + b"x"), "bytes now"),
        (lambda file: file.write_bytes(bytes(len(PICTURE))), "other content"),
    ],
    ids=["absent", "longer", "changed"],
)
def test_missing_or_changed_file_is_reported(tmp_path: Path, change: Any, expected: str) -> None:
    """A job whose local file is missing or changed is not submitted, and says why; its request still has the file."""
    file = tmp_path / "a.png"
    file.write_bytes(PICTURE)
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    reference = {"$file": str(file), "sha256": sha256, "media_type": "image/png", "bytes": len(PICTURE)}
    replaced = replace_inline_media({"image": reference})
    change(file)

    restored = restore_inline_media(replaced)

    assert {"image": reference} == restored.request
    assert expected in restored.missing[0]


def test_inline_content_is_not_restored() -> None:
    """What was written in the manifest itself can't be restored from its digest."""
    replaced = replace_inline_media({"image": "data:image/png;base64,iVBORw0KGgo="})

    restored = restore_inline_media(replaced)

    assert "have only its digest" in restored.missing[0]
    assert replaced == replace_inline_media(restored.request)


@pytest.fixture
def results_file(tmp_path: Path) -> Path:
    picture = {"$file": "/a.png", "sha256": "a" * 64, "media_type": "image/png", "bytes": 9}
    jobs = [
        succeeded("a"),
        succeeded("b", request={"model": "m", "image": picture}),
        succeeded("c", request={"model": "m", "image": "https://example.com/a.png"}),
        unsuccessful("d", State.FAILED, FailureClass.QUOTA),
        succeeded("e", attempts=(), metadata={}, error=Failure(FailureClass.INTERNAL, "")),
    ]
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"".join(map(line, jobs)))
    return path


def test_pandas_loads_it(results_file: Path) -> None:
    """One statement with pandas loads a results file."""
    pandas = pytest.importorskip("pandas")

    frame = pandas.read_json(results_file, lines=True)

    assert ["a", "b", "c", "d", "e"] == list(frame.job_id)
    assert pandas.Timestamp(AT, unit="s", tz="UTC") == pandas.to_datetime(frame.submitted_at)[0]


def test_duckdb_loads_it(results_file: Path) -> None:
    """One statement with DuckDB loads a results file, and a column of pictures is text in every job."""
    duckdb = pytest.importorskip("duckdb")

    rows = duckdb.sql(
        f"SELECT job_id, status, request.image, error.class, assets[1].path FROM read_json('{results_file}', sample_size=-1) ORDER BY index, job_id"
    ).fetchall()

    assert ("a", "succeeded", None, None, "assets/sky.mp4") == rows[0]
    assert rows[1][2].startswith("data:image/png;bytes=9;sha256=")
    assert "https://example.com/a.png" == rows[2][2]
    assert "quota" == rows[3][3]


def test_datasets_loads_it(results_file: Path, tmp_path: Path) -> None:
    """One statement with Hugging Face datasets loads a results file."""
    datasets = pytest.importorskip("datasets")

    data = datasets.load_dataset(
        "json", data_files=str(results_file), chunksize=1 << 30, split="train", cache_dir=str(tmp_path)
    )

    assert ["a", "b", "c", "d", "e"] == data["job_id"]


def test_each_outcome_of_an_attempt_is_in_the_schema() -> None:
    """The schema names what the program writes of each outcome of a POST."""
    failure = Failure(FailureClass.UNAVAILABLE, "no")
    outcomes = [
        kind(failure) for kind in (Rejected, NotSent, Throttled, NoChannel, KeyRefused, BadBaseUrl, Ambiguous)
    ]
    accepted = Accepted(RemoteTask(("task_1",), RemoteStatus.QUEUED))

    written = {submit_transition(outcome).attempt_outcome for outcome in (*outcomes, accepted)}

    assert {*written, "attached", "pending"} == set(
        SCHEMA["$defs"]["attempt"]["properties"]["outcome"]["enum"]
    )


def test_check_of_the_suite_finds_an_invalid_line(tmp_path: Path) -> None:
    """The check that the suite makes at its end names the line that does not follow the schema."""
    (tmp_path / "run.db").touch()
    value = result_line(succeeded(), run="r", gateway="g")
    (tmp_path / "results.jsonl").write_bytes(
        line(succeeded()) + json.dumps({**value, "polls": -1}).encode() + b"\n{"
    )

    (found,) = invalid_lines(tmp_path)

    (tmp_path / "run.db").unlink()
    assert f"{tmp_path}/results.jsonl:2: -1 is less than the minimum of 0" == found
