"""`runner explain` says how an answer is read, and why."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import runner


def explain(path: Path, answer: bytes, *options: str) -> dict[str, object]:
    """Explain an answer, as JSON."""
    path.write_bytes(answer)
    result = runner("explain", path, "--json", *options)
    assert (0, "") == (result.exit_code, result.stderr)
    document: dict[str, object] = json.loads(result.stdout)
    return document


def test_success(tmp_path: Path) -> None:
    """A finished task: its id, state and address, where each stands, and what would be done."""
    answer = b'{"data": {"taskId": "t1", "state": "done", "video": {"url": "https://x/a.mp4?sig=1"}}}'

    document = explain(tmp_path / "a.txt", answer)

    assert ("t1", "succeeded", ["https://x/a.mp4"]) == (document["id"], document["state"], document["asset"])
    assert {"id": "data.taskId", "status": "data.state", "asset": "data.video.url"} == document["places"]
    assert {
        "outcome": "accepted",
        "then": "the task exists and is paid for: it is polled, and its video downloaded",
        "class": None,
        "code": None,
        "message": None,
    } == document["submission"]


def test_refusal_with_its_head(tmp_path: Path) -> None:
    """The status and the headers of a whole response count."""
    answer = b'HTTP/1.1 403 Forbidden\r\nContent-Type: x\r\n\r\n{"code": 4030, "msg": "insufficient balance"}'

    document = explain(tmp_path / "a.txt", answer)

    assert (403, None, None) == (document["http_status"], document["id"], document["state"])
    assert {
        "outcome": "key refused",
        "then": "the job stays pending, and the run stops when no other key is left",
        "class": "quota",
        "code": "4030",
        "message": "insufficient balance",
    } == document["submission"]


def test_body_with_a_status(tmp_path: Path) -> None:
    """The status of a body alone is an option."""
    document = explain(tmp_path / "a.txt", b"<html>busy</html>", "--status", "503")

    assert {"uncertain"} == {document["submission"]["outcome"]}  # type: ignore[index]


def test_words(tmp_path: Path) -> None:
    """Without --json, a person reads the same."""
    (tmp_path / "a.txt").write_bytes(
        b'{"id": "t", "status": "Fail", "error": {"message": "bad \x1b[31mimage"}}'
    )

    result = runner("explain", tmp_path / "a.txt")

    assert 0 == result.exit_code
    assert [
        "HTTP status: 200",
        "id: t, from id",
        "state: failed (Fail), from status",
        "asset: none",
        "as an answer to a submission: accepted",
        "  then: the task exists and is paid for: it is polled, and its video downloaded",
        "as an answer to a query: failed, class remote_failed",
        "  because: bad image",
        "  then: the job fails with class remote_failed",
    ] == result.stdout.splitlines()


def test_no_such_file(tmp_path: Path) -> None:
    """A file that does not exist is an error of usage."""
    assert 2 == runner("explain", tmp_path / "none.txt").exit_code
