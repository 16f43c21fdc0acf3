"""Batch files: one request on each line, in the form of other batch APIs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.core.model import Json
from tests.manifest.helpers import SEEDANCE, read_manifest


def line(**changes: Json) -> str:
    """Return a line of a batch file; a key that is None is left out."""
    row = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/videos",
        "body": {"model": SEEDANCE, "prompt": "x", "seconds": 5},
        **changes,
    }
    return (
        json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False) + "\n"
    )


@pytest.mark.parametrize("name", ["b.jsonl", "b.NDJSON", "b.txt"])
def test_jobs(tmp_path: Path, name: str) -> None:
    """A batch file is recognized by its suffix or its first line; bodies are normalized, and have no placeholders."""
    path = tmp_path / name
    path.write_text(
        line() + "\n" + line(custom_id="b", body={"model": SEEDANCE, "prompt": "${小猫}"}), encoding="utf-8"
    )

    result = read_manifest(path)

    assert [] == result.problems
    assert [("a", 0, 1), ("b", 1, 3)] == [(job.job_id, job.index, job.source.line) for job in result.jobs]
    assert {"model": SEEDANCE, "prompt": "x", "seconds": "5"} == result.requests[0]
    assert "${小猫}" == result.requests[1]["prompt"]
    assert "b" == result.manifest.header.name


def test_address(tmp_path: Path) -> None:
    """A URL names the gateway."""
    path = tmp_path / "b.jsonl"
    path.write_text(line(url="https://gw.example.com/v1/videos"))

    assert "https://gw.example.com" == read_manifest(path).manifest.header.settings.base_url


def test_null_is_absent(tmp_path: Path) -> None:
    """Tables written as JSONL have null for an empty cell; it is not sent."""
    path = tmp_path / "b.jsonl"
    path.write_text(line(body={"model": SEEDANCE, "prompt": "x", "image": None}))

    assert [{"model": SEEDANCE, "prompt": "x"}] == read_manifest(path).requests


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line(method="GET"), "b.jsonl:1: jobs[0] \"a\": method: 'GET' is not 'POST'"),
        (line(url="/v1/chat"), "b.jsonl:1: jobs[0] \"a\": url: '/v1/chat' is not supported; write /v1/videos"),
        (line(body=[1]), 'b.jsonl:1: jobs[0] "a": body: the request must be an object'),
        (line(body=None), "b.jsonl:1: jobs[0] \"a\": missing key 'body'; a line of a batch file has custom_id, method, url, body"),
        (line(custom_id=None), "b.jsonl:1: jobs[0]: missing key 'custom_id'; a line of a batch file has custom_id, method, url, body"),
        (line(boby=1), "b.jsonl:1: jobs[0] \"a\": unknown key 'boby'; did you mean 'body'?"),
        (line(custom_id=[1]), "b.jsonl:1: jobs[0]: id: [1] is not text; an id is text of 1 to 200 characters"),
        (line() + "{\n", "b.jsonl:2:2: jobs[1]: the line is not JSON: Expecting property name enclosed in double quotes"),
        (line() + line(body={"model": SEEDANCE, "prompt": "y"}), "b.jsonl:2: jobs[1] \"a\": the job at b.jsonl:1 has the id 'a' too; each job needs an id of its own"),
        (line() + line(custom_id="b", body={"model": SEEDANCE, "prompt": "y", "seeds": 1}), "b.jsonl:2: jobs[1] \"b\": unknown key 'seeds' in request; did you mean 'seed'?"),
        (line() + line(custom_id="b"), "b.jsonl:2: warning: jobs[1] \"b\": the request is the same as that of 'a' at b.jsonl:1, and both are billed; use repeat if this is intended"),
        (line() + line(custom_id="b", url="http://x/v1/videos"), "b.jsonl:2: jobs[1] \"b\": url: 'http://x/v1/videos' differs from '/v1/videos' on the first line; all lines of a file use one gateway"),
        ("", "b.jsonl: warning: the batch file has no jobs"),
    ],
)  # fmt: skip
def test_invalid_lines(tmp_path: Path, text: str, expected: str) -> None:
    """Each mistake is reported with its line, and all other lines are checked."""
    path = tmp_path / "b.jsonl"
    path.write_text(text)

    assert [expected] == [problem.replace(f"{tmp_path}/", "") for problem in read_manifest(path).problems]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "b.jsonl: 'b.jsonl' can't be read: No such file or directory"),
        ("{\n", "b.jsonl:1:2: jobs[0]: the line is not JSON"),
    ],
)
def test_a_file_without_a_readable_line(tmp_path: Path, content: str | None, expected: str) -> None:
    """An unreadable file is reported once, and not as empty too."""
    if content is not None:
        (tmp_path / "b.jsonl").write_text(content)

    assert [expected] == [
        problem.split(": Expecting")[0] for problem in read_manifest(tmp_path / "b.jsonl").problems
    ]
