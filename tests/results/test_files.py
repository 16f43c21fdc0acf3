"""Result files are appended to in whole lines, and replaced only by whole files."""

from __future__ import annotations

import json

import pytest

from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.summary import summarize
from runner.errors import DiskFull
from runner.results.files import ResultsWriter, atomic_write, repair_tail, translate_disk_full
from runner.results.formats import batch_line, write_summary
from tests.results.records import succeeded, unsuccessful


def test_append_is_seen_at_once(tmp_path):
    """Who follows the file sees each job as it ends, before the writer closes."""
    path = tmp_path / "results.jsonl"

    with ResultsWriter(path) as writer:
        writer.append(b'{"a":1}\n')
        seen = path.read_bytes()
        writer.append(b'{"a":2}\n{"a":3}\n')

    assert b'{"a":1}\n' == seen
    assert b'{"a":1}\n{"a":2}\n{"a":3}\n' == path.read_bytes()


@pytest.mark.parametrize(
    ("left", "mended", "cut"),
    [
        (b"", b"", 0),
        (b'{"a":1}\n', b'{"a":1}\n', 0),
        (b'{"a":1}\n{"b', b'{"a":1}\n', 3),
        (b'{"b', b"", 3),
        (b'{"a":1}\n{"b":2}', b'{"a":1}\n{"b":2}\n', 0),
        (b'{"a":1}\n' + bytes(200_000), b'{"a":1}\n', 200_000),
    ],
    ids=["empty", "whole", "torn", "torn first", "no line feed", "zeros of a power loss"],
)
def test_torn_last_line_is_mended_on_open(tmp_path, left, mended, cut):
    """What a dead process left of its last line does not spoil the next line."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(left)

    assert repair_tail(path) == cut
    assert path.read_bytes() == mended


def test_rewrite_replaces_the_file_whole(tmp_path):
    """Readers see the old file until the new one is whole, and nothing else is left in the folder."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"old\n")

    with atomic_write(path) as file:
        file.writelines([b"a\n", b"b\n"])
        seen = path.read_bytes()

    assert b"old\n" == seen
    assert b"a\nb\n" == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_broken_rewrite_leaves_the_old_file(tmp_path):
    """A rewrite that fails midway loses nothing and leaves nothing behind."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"old\n")

    def write():
        with atomic_write(path) as file:
            file.write(b"new\n")
            raise RuntimeError("the store broke")

    with pytest.raises(RuntimeError):
        write()
    assert b"old\n" == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_planted_link_is_not_followed(tmp_path):
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


def test_full_disk_is_said(tmp_path):
    """No room is an error that a person can act on."""
    with pytest.raises(DiskFull, match="no space left to write"), translate_disk_full(tmp_path):
        raise OSError(28, "No space left on device")


def test_summary_file(tmp_path):
    """summary.json has every status, zeros included, and the failures by class."""
    path = tmp_path / "summary.json"
    failed = unsuccessful("b", State.FAILED, FailureClass.MODERATION)

    write_summary(path, summarize([succeeded("a"), failed]), run="kittens", gateway="https://g")

    summary = json.loads(path.read_bytes())
    assert 2 == summary["jobs"]
    assert summary["by_status"] == {**dict.fromkeys(map(str, State), 0), "succeeded": 1, "failed": 1}
    assert {"moderation": 1} == summary["by_class"]
    assert {"count": 1, "mean": 93.1, "p50": 93.1, "p90": 93.1, "max": 93.1} == summary["generate_s"]
    assert "2026-11-21T02:00:01.250Z" == summary["first_submitted_at"]


def test_batch_view():
    """A line of the batch shape has a response where the API answered, and else an error."""
    answered = batch_line(succeeded(), run="kittens")
    refused = batch_line(unsuccessful("b", State.FAILED, FailureClass.MODERATION, "refused"), run="kittens")
    doubtful = batch_line(
        unsuccessful("c", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, "reset"), run="kittens"
    )
    pending = batch_line(succeeded("d", state=State.PENDING), run="kittens")

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
    ) == (doubtful["response"], doubtful["error"])
    assert {"code": "pending", "message": "the job is pending"} == pending["error"]
