"""A results file from anywhere is read, or refused with a helpful message."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Attempt, Failure, FailureClass, JobRecord
from runner.core.problem import Position
from runner.errors import ResultsError
from runner.results.formats import line_bytes, result_line
from runner.results.reader import open_results
from tests.results.records import AT, records, succeeded, unsuccessful

FAILED = unsuccessful("sky", State.FAILED, FailureClass.REMOTE_FAILED)


def line(record: JobRecord, run: str = "kittens") -> bytes:
    return line_bytes(record, run=run, gateway="https://api.powertokens.ai")


COST = {"reserved": "1.00", "settled": None, "currency": "USD", "basis": "reserved"}


def edited(**changes: Any) -> bytes:
    value = {**result_line(succeeded(), run="kittens", gateway="g"), **changes}
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode() + b"\n"


Written = Callable[..., Path]
"""Writes lines into a file and returns its path."""


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(*lines: bytes) -> Path:
        path = tmp_path / "results.jsonl"
        path.write_bytes(b"".join(lines))
        return path

    return write


def test_reads_what_was_written(written: Written) -> None:
    """Each job is read as it was written, with its run and the gateway that it was sent to."""
    usage = {"seconds": 5.0, "resolution": "1080p"}
    results = open_results(written(line(succeeded("a", usage=usage)), line(succeeded("b", usage=usage))))

    assert 2 == results.jobs
    assert {"kittens": 2} == results.runs
    assert () == results.warnings
    assert [(found.run, found.gateway, found.record) for found in results] == [
        ("kittens", "https://api.powertokens.ai", succeeded("a", usage=usage)),
        ("kittens", "https://api.powertokens.ai", succeeded("b", usage=usage)),
    ]


def test_incomplete_last_line_is_left_out_with_a_warning(written: Written) -> None:
    """A dead process's incomplete last line costs only that line."""
    results = open_results(written(line(succeeded("a")), line(succeeded("b"))[:-40]))

    assert ["a"] == [found.record.job_id for found in results]
    assert "has an incomplete line 2, which is left out" == results.warnings[0]


def test_last_line_without_a_line_feed_counts(written: Written) -> None:
    """An editor that removes the last line feed removes no job."""
    assert 1 == open_results(written(line(succeeded("a")).rstrip())).jobs


def test_gzip_and_byte_order_mark_are_read(written: Written) -> None:
    """A compressed file is read as it is, and so is one that an editor saved with a byte order mark."""
    compressed = written(gzip.compress(b"\xef\xbb\xbf" + line(succeeded("a")) + b"\n\n"))

    assert ["a"] == [found.record.job_id for found in open_results(compressed)]


FIRST = Attempt(1, AT, "accepted", "task_1", 200)
SECOND = Attempt(2, AT + 500, "accepted", "task_2", 200)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_success_of_a_job_counts_and_attempts_are_merged(written: Written, order: tuple[int, ...]) -> None:
    """A job that failed and then succeeded has succeeded, whatever the order, and still has its first attempt."""
    lines = (
        line(replace(FAILED, attempts=(FIRST,))),
        line(succeeded("other")),
        line(succeeded("sky", attempts=(SECOND,))),
    )

    found = {
        result.record.job_id: result.record
        for result in open_results(written(*map(lines.__getitem__, order)))
    }

    assert {"other", "sky"} == found.keys()
    assert found["sky"].state is State.SUCCEEDED
    assert (FIRST, SECOND) == found["sky"].attempts


@pytest.mark.parametrize(
    ("less", "further"),
    [
        (replace(FAILED, attempts=(FIRST, SECOND)), succeeded("sky", attempts=(FIRST,))),
        (
            replace(FAILED, attempts=(FIRST,), finished_at=AT + 900),
            unsuccessful("sky", State.TIMED_OUT, FailureClass.POLL_TIMEOUT, attempts=(FIRST, SECOND)),
        ),
        (replace(FAILED, attempts=(FIRST,)), replace(FAILED, attempts=(FIRST,), finished_at=AT + 900)),
        (
            unsuccessful(
                "sky", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, task_id=None, attempts=(FIRST,)
            ),
            succeeded("sky", state=State.SUBMITTED, finished_at=None, assets=(), attempts=(FIRST,)),
        ),
    ],
    ids=["success", "more attempts", "later end", "task"],
)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_line_that_got_furthest_counts_in_any_order(
    written: Written, less: JobRecord, further: JobRecord, order: tuple[int, ...]
) -> None:
    """Copies of one run's file may be concatenated in any order: the job is where its furthest line says."""
    lines = (line(less), line(further))

    (found,) = open_results(written(*map(lines.__getitem__, order)))

    assert (further.state, further.task_id, further.finished_at) == (
        found.record.state,
        found.record.task_id,
        found.record.finished_at,
    )


def test_answer_of_an_attempt_outlasts_a_line_without_it(written: Written) -> None:
    """An attempt whose answer only another line has keeps that answer."""
    unanswered = Attempt(2, AT + 500, "pending")
    known = replace(FAILED, attempts=(FIRST, SECOND))
    later = replace(FAILED, attempts=(FIRST, unanswered), finished_at=AT + 900)

    (found,) = open_results(written(line(known), line(later)))

    assert (FIRST, SECOND) == found.record.attempts


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_runs_the_line_that_got_further_counts(written: Written, order: Any) -> None:
    """A job that failed in one run and succeeded in its rerun is not paid for again, whatever the order of the files."""
    lines = [line(FAILED, "monday"), line(succeeded("sky"), "tuesday")]

    results = open_results(written(*(lines[place] for place in order)))

    assert [("tuesday", State.SUCCEEDED)] == [(found.run, found.record.state) for found in results]
    assert "2 runs" in results.warnings[0]


def test_of_two_runs_an_uncertain_job_supersedes_a_failed_one(written: Written) -> None:
    """A job that may have been paid for in one run does not count as failed because of another run."""
    uncertain = unsuccessful("sky", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT)

    results = open_results(written(line(uncertain, "monday"), line(FAILED, "tuesday")))

    assert [State.UNCERTAIN] == [found.record.state for found in results]


def test_same_id_with_another_request_is_another_job(written: Written) -> None:
    """Jobs of two runs with the same id and different requests are both read."""
    other = replace(FAILED, request={"model": "other"})

    results = open_results(written(line(FAILED, "monday"), line(other, "tuesday")))

    assert 2 == results.jobs
    assert 2 == len(list(results))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (line(succeeded())[:50], "has no complete line"),
        (edited(schema_version=2), "has schema_version 2; this program reads up to 1"),
        (edited(schema_version=True), "has an invalid 'schema_version': True"),
        (edited(schema_version=...), "has no 'schema_version'"),
        (edited(job_id=...), "has no 'job_id'"),
        (edited(request=...), "has no 'request'"),
        (edited(status="suceeded"), "did you mean 'succeeded'?"),
        (edited(status="x` - at `$.y"), "has an invalid 'status': unknown value"),
        (edited(submitted_at="yesterday"), "has an invalid 'submitted_at': expected a time such as 2026"),
        (edited(job_id=""), "has an empty 'job_id'"),
        (edited(polls="7"), "has an invalid 'polls': expected a whole number, got '7'"),
        (edited(polls=-1), "has an invalid 'polls': expected a whole number, got -1"),
        (edited(index=2**63), "has an invalid 'index': expected a whole number, got 9223372036854775808"),
        (edited(cost={**COST, "reserved": 1}), "has an invalid 'cost.reserved': expected str, got int"),
        (edited(cost={**COST, "reserved": "-1"}), "has an invalid 'cost': '-1' is not an amount"),
        (edited(cost={"reserved": "1"}), "has no 'cost.currency'"),
        (edited(generate_s="5"), "has an invalid 'generate_s': expected float or null, got str"),
        (edited(metadata=[]), "has an invalid 'metadata': expected object, got array"),
        (edited(attempts=[5]), "has an invalid 'attempts[0]': expected object, got int"),
        (edited(attempts=[{"number": 1}]), "has no 'attempts[0].outcome'"),
        (edited(error={"class": "odd"}), "has an invalid 'error.class': unknown value 'odd'; known are inv"),
        (edited(generate_s=float("inf")), ""),
        (b'{"custom_id": "a", "response": null, "error": null}\n', "OpenAI batch format"),
        (b"[" * 3000 + b"]" * 3000 + b"\n", ""),
        (b"[1, 2]\n", "is not a JSON object"),
        (b"job_id,status\nsky,failed\n", "is not JSON"),
        (b"\xff\xfej\x00", "UTF-16"),
        (b"PK\x03\x04...", "a zip archive"),
        (gzip.compress(line(succeeded()), mtime=0)[:60], "damaged or incomplete"),
        (edited(assets=[{"path": "../../etc/passwd", "kind": "video"}]), "outside its run directory"),
        (edited(assets=[{"path": "javascript:alert(1)", "kind": "video"}]), "outside its run directory"),
        (edited(request={"a": json.loads("[" * 70 + "]" * 70)}), "nested deeper"),
        (
            edited(request={"media": [{"url": {"$file": "/dev/zero", "sha256": ""}}]}),
            "has a request with the key '$file'",
        ),
        (b"\n" * 100_001, "has more than 100,000 empty lines"),
        (b"x" * 20_000_001, "results.jsonl:1 is too long to be the line of a job"),
    ],
)
def test_invalid_file_is_refused_with_a_message(written: Written, content: bytes, expected: str) -> None:
    """Every kind of damage is one clear error that names the file, never a traceback of a library."""
    path = written(content)

    with pytest.raises(ResultsError) as caught:
        open_results(path)

    assert "results.jsonl" in caught.value.message
    assert expected in caught.value.message
    assert caught.value.hint


def test_invalid_line_is_named(written: Written) -> None:
    """The message says which line to correct."""
    with pytest.raises(ResultsError, match=r"results\.jsonl:2 has no 'model'"):
        open_results(written(line(succeeded()), edited(model=...), line(succeeded())))


def test_absent_file_and_folder(tmp_path: Path) -> None:
    """A path that is not a file is refused."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ResultsError, match="can't be read"):
            open_results(path)


def test_numbers_of_a_data_frame(written: Written) -> None:
    """A whole number that a data frame wrote as 7.0 is read."""
    (found,) = open_results(written(edited(polls=7.0, index=3.0)))

    assert (7, 3) == (found.record.polls, found.record.index)


@pytest.mark.slow
@given(st.binary(max_size=300) | records.map(line))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the content, the reader raises no other error than its own."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)

    try:
        found = list(open_results(path))
    except ResultsError:
        found = []

    assert len(found) <= 1


def test_fields_of_the_store_are_not_read(written: Written) -> None:
    """A file can't set what only a run's own database knows."""
    attempt = {"outcome": "accepted", "key": "0f3a"}
    (found,) = open_results(written(edited(digest="5", is_gone=True, source=["/", 1, 1], attempts=[attempt])))

    assert ("", False, Position("")) == (found.record.digest, found.record.is_gone, found.record.source)
    assert (Attempt(0, 0.0, "accepted"),) == found.record.attempts


def test_missing_and_null_fields_have_defaults(written: Written) -> None:
    """A field that a filter removed, or a data frame wrote as null, is read as unknown."""
    missing = {
        "metadata": None,
        "polls": None,
        "index": None,
        "schema": None,
        "gateway": None,
        "attempts": ...,
    }
    (found,) = open_results(written(edited(**missing, error={"class": "lost", "code": 5})))

    record = found.record
    assert (None, {}, 0, 0, "", ()) == (
        found.gateway,
        record.metadata,
        record.polls,
        record.index,
        record.schema,
        record.attempts,
    )
    assert Failure(FailureClass.LOST, "", "5") == record.error
