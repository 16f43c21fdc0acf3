"""Results files get only complete lines, and are replaced only by complete files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.summary import summarize
from runner.errors import DiskFull
from runner.results.formats import openai_batch_line, write_summary
from runner.results.writers import ResultsWriter, atomic_write, repair_tail, translate_disk_full
from tests.results.records import succeeded, unsuccessful


def test_append_is_seen_at_once(tmp_path: Path) -> None:
    """A reader sees each job when it ends, before the file is closed."""
    path = tmp_path / "results.jsonl"

    with ResultsWriter(path) as writer:
        writer.append(b'{"a":1}\n')
        seen = path.read_bytes()
        writer.append(b'{"a":2}\n{"a":3}\n')

    assert b'{"a":1}\n' == seen
    assert b'{"a":1}\n{"a":2}\n{"a":3}\n' == path.read_bytes()


def test_lines_are_own_only_where_they_are(tmp_path: Path) -> None:
    """Another program may append at any moment, even while lines are: then it is noticed, or they are where they were written."""
    path, line, has_ended = tmp_path / "results.jsonl", b'{"a":1}\n', Event()

    def append_others() -> None:
        with path.open("ab", buffering=0) as other:
            while not has_ended.is_set():
                other.write(b"{}\n")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(append_others)
        try:
            for _ in range(1500):
                with ResultsWriter(path) as writer:
                    start = writer.append(line)
                    assert not writer.is_own or line == writer.read(start, len(line))
        finally:
            has_ended.set()


@pytest.mark.parametrize(
    ("before", "after", "removed"),
    [
        (b"", b"", 0),
        (b'{"a":1}\n', b'{"a":1}\n', 0),
        (b'{"a":1}\n{"b', b'{"a":1}\n', 3),
        (b'{"b', b"", 3),
        (b'{"a":1}\n{"b":2}', b'{"a":1}\n{"b":2}\n', 0),
        (b'{"a":1}\n' + bytes(200_000), b'{"a":1}\n', 200_000),
    ],
    ids=["empty", "complete", "torn", "torn first", "no line feed", "zeros after a power loss"],
)
def test_incomplete_last_line_is_repaired(tmp_path: Path, before: bytes, after: bytes, removed: int) -> None:
    """The incomplete last line of a dead process does not corrupt the next line."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(before)

    assert removed == repair_tail(path)
    assert after == path.read_bytes()


def test_write_replaces_the_file_atomically(tmp_path: Path) -> None:
    """Readers see the old file until the new one is complete, and no other file remains in the folder."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"old\n")

    with atomic_write(path) as file:
        file.writelines([b"a\n", b"b\n"])
        seen = path.read_bytes()

    assert b"old\n" == seen
    assert b"a\nb\n" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that fails midway loses nothing and leaves no other file."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"old\n")

    def write() -> None:
        with atomic_write(path) as file:
            file.write(b"new\n")
            raise RuntimeError("the store broke")

    with pytest.raises(RuntimeError):
        write()
    assert b"old\n" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_planted_link_is_not_followed(tmp_path: Path) -> None:
    """A link at the temporary name does not make the program overwrite another file."""
    path, victim = tmp_path / "summary.json", tmp_path / "victim"
    victim.write_text("mine")
    with atomic_write(path) as file:
        planted = tmp_path / file.name
    planted.symlink_to(victim)

    with atomic_write(path) as file:
        file.write(b"{}")

    assert "mine" == victim.read_text()
    assert "{}" == path.read_text()


@pytest.mark.parametrize("plant", [os.symlink, os.link, lambda _victim, path: os.mkfifo(path)])
def test_results_are_not_appended_to_what_is_not_a_file_of_the_run(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    """A link, or a FIFO, in place of the results is replaced by a file; what a link leads to stays as it is."""
    path, victim = tmp_path / "results.jsonl", tmp_path / "victim"
    victim.write_text("mine")
    plant(victim, path)

    with ResultsWriter(path) as writer:
        writer.append(b'{"a":1}\n')

    assert "mine" == victim.read_text()
    assert b'{"a":1}\n' == path.read_bytes()


def test_full_disk_is_an_error_of_its_own(tmp_path: Path) -> None:
    """A full disk is an error that a person can act on."""
    with pytest.raises(DiskFull, match="no space left to write"), translate_disk_full(tmp_path):
        raise OSError(28, "No space left on device")


def test_error_of_an_open_file_names_it(tmp_path: Path) -> None:
    """The system says only what happened."""
    path = tmp_path / "results.jsonl"
    with pytest.raises(OSError, match="Input/output error: '.*results.jsonl'"), translate_disk_full(path):
        raise OSError(5, "Input/output error")


def test_summary_file(tmp_path: Path) -> None:
    """summary.json has every status, including those without jobs, and the failures by class."""
    path = tmp_path / "summary.json"
    failed = unsuccessful("b", State.FAILED, FailureClass.MODERATION)

    write_summary(path, summarize([succeeded("a"), failed]), run="kittens", gateway="https://g")

    summary = json.loads(path.read_bytes())
    assert 2 == summary["jobs"]
    assert {**dict.fromkeys(map(str, State), 0), "succeeded": 1, "failed": 1} == summary["by_status"]
    assert {"moderation": 1} == summary["by_class"]
    assert {"count": 1, "mean": 93.1, "p50": 93.1, "p90": 93.1, "max": 93.1} == summary["generate_s"]
    assert "2026-11-21T02:00:01.250Z" == summary["first_submitted_at"]


def test_openai_batch_format() -> None:
    """A line has a response if the API answered, and otherwise an error."""
    answered = openai_batch_line(succeeded(), run="kittens")
    refused = openai_batch_line(
        unsuccessful("b", State.FAILED, FailureClass.MODERATION, "refused"), run="kittens"
    )
    uncertain = openai_batch_line(
        unsuccessful("c", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, "reset"), run="kittens"
    )
    pending = openai_batch_line(succeeded("d", state=State.PENDING), run="kittens")

    assert ("sky", None) == (answered["custom_id"], answered["error"])
    assert (200, "task_x") == (answered["response"]["status_code"], answered["response"]["body"]["id"])
    assert {
        "status_code": 400,
        "request_id": "req_1",
        "body": {"error": {"message": "refused", "type": "moderation", "code": "some_code"}},
    } == refused["response"]
    assert (
        None,
        {"code": "uncertain_submit", "message": "reset"},
    ) == (uncertain["response"], uncertain["error"])
    assert {"code": "pending", "message": "the job is pending"} == pending["error"]
