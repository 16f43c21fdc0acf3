"""A results file from anywhere is read, or refused with a sentence that helps."""

from __future__ import annotations

import gzip
import json
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


def edited(**changes: Any) -> bytes:
    value = {**result_line(succeeded(), run="kittens", gateway="g"), **changes}
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode() + b"\n"


@pytest.fixture
def written(tmp_path):
    def write(*lines: bytes):
        path = tmp_path / "results.jsonl"
        path.write_bytes(b"".join(lines))
        return path

    return write


def test_reads_what_was_written(written):
    """Each job comes back as its run knew it, with the run and the gateway that it was sent to."""
    results = open_results(written(line(succeeded("a")), line(succeeded("b"))))

    assert 2 == results.jobs
    assert {"kittens": 2} == results.runs
    assert () == results.warnings
    assert [(found.run, found.gateway, found.record) for found in results] == [
        ("kittens", "https://api.powertokens.ai", succeeded("a")),
        ("kittens", "https://api.powertokens.ai", succeeded("b")),
    ]


def test_torn_last_line_is_left_out_with_a_warning(written):
    """What a dead process left of its last line costs that line only."""
    results = open_results(written(line(succeeded("a")), line(succeeded("b"))[:-40]))

    assert ["a"] == [found.record.job_id for found in results]
    assert "results.jsonl:2 was not finished" in results.warnings[0]


def test_last_line_without_a_line_feed_counts(written):
    """An editor that drops the last line feed drops no job."""
    assert 1 == open_results(written(line(succeeded("a")).rstrip())).jobs


def test_gzip_and_byte_order_mark_are_read(written):
    """A packed file is read as it is, and so is one that an editor saved with a mark."""
    packed = written(gzip.compress(b"\xef\xbb\xbf" + line(succeeded("a")) + b"\n\n"))

    assert ["a"] == [found.record.job_id for found in open_results(packed)]


def test_later_line_of_a_job_counts_and_attempts_are_united(written):
    """A job that failed and then succeeded has succeeded, and its first attempt stays in its history."""
    first = replace(FAILED, attempts=(Attempt(1, AT, "accepted", "task_1", 200),))
    second = succeeded("sky", attempts=(Attempt(2, AT + 500, "accepted", "task_2", 200),))

    other, found = open_results(written(line(first), line(succeeded("other")), line(second)))

    assert "other" == other.record.job_id
    assert found.record.state is State.SUCCEEDED
    assert [1, 2] == [attempt.number for attempt in found.record.attempts]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_runs_the_line_that_got_further_counts(written, order):
    """A job that failed in one run and succeeded in its rerun is not paid for again, in whichever order files stand."""
    lines = [line(FAILED, "monday"), line(succeeded("sky"), "tuesday")]

    results = open_results(written(*(lines[place] for place in order)))

    assert [("tuesday", State.SUCCEEDED)] == [(found.run, found.record.state) for found in results]
    assert "2 runs" in results.warnings[0]


def test_of_two_runs_a_doubt_outweighs_a_failure(written):
    """A job that may have been paid for in one run is not taken for a plain failure of another."""
    doubtful = unsuccessful("sky", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT)

    results = open_results(written(line(doubtful, "monday"), line(FAILED, "tuesday")))

    assert [State.UNCERTAIN] == [found.record.state for found in results]


def test_same_id_with_another_request_is_another_job(written):
    """Two runs that happen to use one id for different things keep both."""
    other = replace(FAILED, request={"model": "other"})

    results = open_results(written(line(FAILED, "monday"), line(other, "tuesday")))

    assert 2 == results.jobs
    assert 2 == len(list(results))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (line(succeeded())[:50], "has no whole line"),
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
        (gzip.compress(line(succeeded()), mtime=0)[:60], "damaged or cut off"),
        (edited(assets=[{"path": "../../etc/passwd", "kind": "video"}]), "outside its run directory"),
        (edited(assets=[{"path": "javascript:alert(1)", "kind": "video"}]), "outside its run directory"),
        (edited(request={"a": json.loads("[" * 70 + "]" * 70)}), "nested deeper"),
    ],
)
def test_bad_file_is_refused_in_a_sentence(written, content, said):
    """Every kind of damage is one clear error that names the file, never a traceback of a library."""
    path = written(content)

    with pytest.raises(ResultsError) as caught:
        open_results(path)

    assert "results.jsonl" in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint


def test_bad_line_is_named(written):
    """Who edited a file by hand learns which line to mend."""
    with pytest.raises(ResultsError, match=r"results\.jsonl:2 has no 'model'"):
        open_results(written(line(succeeded()), edited(model=...), line(succeeded())))


def test_absent_file_and_folder(tmp_path):
    """A path that is no file is said to be none."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ResultsError, match="can't be read"):
            open_results(path)


def test_numbers_of_a_data_frame(written):
    """Whole numbers that went through a data frame (7.0) are still whole numbers."""
    (found,) = open_results(written(edited(polls=7.0, index=3.0)))

    assert (7, 3) == (found.record.polls, found.record.index)


@given(st.binary(max_size=300) | records.map(line))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    """No content at all makes the reader fail in another way than with its own error."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)

    try:
        found = list(open_results(path))
    except ResultsError:
        found = []

    assert len(found) <= 1


def test_fields_of_the_store_are_not_read(written):
    """A file can't set what only a run's own database knows."""
    attempt = {"outcome": "accepted", "key": "0f3a"}
    (found,) = open_results(written(edited(digest="5", is_gone=True, source=["/", 1, 1], attempts=[attempt])))

    assert ("", False, Position("")) == (found.record.digest, found.record.is_gone, found.record.source)
    assert (Attempt(0, 0.0, "accepted"),) == found.record.attempts


def test_missing_and_null_fields_have_defaults(written):
    """What a filter dropped, or a data frame wrote as null, is read as if nothing was known."""
    dropped = {
        "metadata": None,
        "polls": None,
        "index": None,
        "schema": None,
        "gateway": None,
        "attempts": ...,
    }
    (found,) = open_results(written(edited(**dropped, error={"class": "lost", "code": 5})))

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
