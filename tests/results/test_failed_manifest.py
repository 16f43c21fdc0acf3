"""failed.yaml can be run as it is, has every value unchanged, and pays for nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from runner.core.lifecycle import State
from runner.core.model import Attempt, FailureClass, JobRecord
from runner.results.failed_manifest import yaml_flow
from tests.results.failed import write_failed
from tests.results.records import HOSTILE, json_objects, succeeded, unsuccessful

Write = Callable[..., tuple[int, Any]]
"""Takes records, and options of the file; returns the number of jobs and the text, or None if there is no file."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*records: JobRecord, **options: Any) -> tuple[int, Any]:
        path = tmp_path / "failed.yaml"
        settings = {
            "run": "kittens",
            "base_url": "https://api.powertokens.ai",
            "key_names": ["KEY_A", "KEY_B"],
        }
        count = write_failed(path, records, **{**settings, **options})
        return count, path.read_text(encoding="utf-8") if path.exists() else None

    return write


def test_header_names_the_run_and_never_a_key(write: Write) -> None:
    """Its run has a directory of its own, uses the same gateway, and names the variables with the keys."""
    _, text = write(unsuccessful("sky", State.FAILED, FailureClass.REMOTE_FAILED))

    manifest = yaml.safe_load(text)
    assert 1 == manifest["version"]
    assert "kittens-rerun" == manifest["name"]
    assert {"base_url": "https://api.powertokens.ai", "api_keys": ["KEY_A", "KEY_B"]} == manifest["gateway"]


def test_failed_job_is_as_it_was(write: Write) -> None:
    """A failed job is submitted again with the same request, and without its old task."""
    record = unsuccessful("sky", State.FAILED, FailureClass.REMOTE_FAILED, timeout_s=5400.0)

    count, text = write(record)

    assert 1 == count
    assert yaml.safe_load(text)["jobs"] == [
        {
            "id": "sky",
            "schema": "wan2.7-i2v",
            "request": record.request,
            "metadata": record.metadata,
            "timeout": "5400s",
        }
    ]


def test_failed_job_whose_task_was_named_names_it_again(write: Write) -> None:
    """A job whose task a person named was never submitted, and running the file does not submit it either."""
    attached = Attempt(1, 900.0, "attached", "task_x")
    record = unsuccessful(
        "sky", State.FAILED, FailureClass.REMOTE_FAILED, task_id="task_x", attempts=(attached,)
    )

    _, text = write(record)

    assert "task_x" == yaml.safe_load(text)["jobs"][0]["task_id"]


@pytest.mark.parametrize("state", [State.TIMED_OUT, State.UNDELIVERED, State.SUBMITTED, State.DOWNLOADING])
def test_job_with_a_task_names_it(write: Write, state: State) -> None:
    """What was paid for is polled and downloaded by its task id, and so never submitted."""
    count, text = write(unsuccessful("sky", state, FailureClass.POLL_TIMEOUT, task_id="task_x"))

    assert 1 == count
    assert "task_x" == yaml.safe_load(text)["jobs"][0]["task_id"]


@pytest.mark.parametrize(
    ("state", "cls"),
    [
        (State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT),
        (State.SUBMITTING, FailureClass.INTERRUPTED),
        (State.FAILED, FailureClass.UNCERTAIN_SUBMIT),
        (State.FAILED, FailureClass.LOST),
        (State.FAILED, FailureClass.MODERATION),
        (State.FAILED, FailureClass.INVALID_REQUEST),
    ],
)
def test_job_that_a_rerun_leaves_alone_is_only_a_comment(
    write: Write, state: State, cls: FailureClass
) -> None:
    """A job that may be paid for, or would be refused again, is shown, and can't be run by mistake."""
    other = unsuccessful("other", State.FAILED, FailureClass.REMOTE_FAILED)

    count, text = write(unsuccessful("sky", state, cls, "reset\nby: peer"), other)

    assert 1 == count
    assert ["other"] == [job["id"] for job in yaml.safe_load(text)["jobs"]]
    assert "# Left out: sky" in text
    assert (0, None) == write(unsuccessful("sky", state, cls))


def test_pending_job_is_left_out(write: Write) -> None:
    """The run itself submits what was never sent; in a second manifest it would be paid for twice."""
    pending = succeeded("sky", state=State.PENDING, task_id=None, attempts=(), assets=())

    assert (0, None) == write(pending)


def test_removed_job_is_not_submitted(write: Write) -> None:
    """A job that was removed from the manifest is not paid for; what was paid for already is still downloaded."""
    removed = unsuccessful("a", State.FAILED, FailureClass.REMOTE_FAILED, is_gone=True)
    paid = unsuccessful("b", State.UNDELIVERED, FailureClass.DOWNLOAD_FAILED, is_gone=True)

    _, text = write(removed, paid)

    assert ["b"] == [job["id"] for job in yaml.safe_load(text)["jobs"]]


@pytest.mark.parametrize(
    "text", [*HOSTILE, "no", "16:9", "on", "2026-11-21", "1e3", "~", "<<", "!!x", "# a", " a "]
)
def test_text_is_read_back(write: Write, text: str) -> None:
    """Text that YAML would read as something else, or refuse, is unchanged; placeholders remain text."""
    record = unsuccessful(
        text[:200],
        State.FAILED,
        FailureClass.REMOTE_FAILED,
        text[:200],
        request={"model": "m", "prompt": text},
    )

    _, written = write(record)

    (job,) = yaml.safe_load(written)["jobs"]
    assert text == job["request"]["prompt"].replace("$${", "${")
    assert text[:200] == job["id"].replace("$${", "${")
    assert "${" not in job["request"]["prompt"].replace("$${", "")


@pytest.mark.slow
@given(json_objects)
def test_any_value_is_read_back(value: Any) -> None:
    """Whatever is in a request or its metadata is read back unchanged."""
    assert {"value": value} == yaml.safe_load(f"value: {yaml_flow(value)}\n")


def test_local_file_is_written_by_its_path(write: Write) -> None:
    """A local file is a path, as in the manifest that it is from."""
    picture = {"$file": "/a/${b}.png", "sha256": "a" * 64, "media_type": "image/png", "bytes": 9}
    record = unsuccessful("sky", State.FAILED, FailureClass.REMOTE_FAILED, request={"image": picture})

    assert {"image": "/a/$${b}.png"} == yaml.safe_load(write(record)[1])["jobs"][0]["request"]


def test_unknown_keys_go_to_extra(write: Write) -> None:
    """Fields that were sent without a check are written where the manifest allows them."""
    record = unsuccessful("sky", State.FAILED, FailureClass.REMOTE_FAILED, request={"model": "m", "new": 1})

    (job,) = yaml.safe_load(write(record, known_keys=lambda schema: {"model"})[1])["jobs"]

    assert ({"model": "m"}, {"new": 1}) == (job["request"], job["extra"])
