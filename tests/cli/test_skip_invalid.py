"""Runs that leave invalid jobs out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import runner


def test_skip_invalid_records_every_job_that_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that can't be read: they are failed in the results, and again when the same command is repeated."""
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("name,prompt\nr1,one\nr2,two,three\n")
    manifest = Path("skip.yaml")
    manifest.write_text(
        "version: 1\njobs:\n"
        "  - {id: a, request: {model: wan2.7-t2v, prompt: x}}\n"
        "  - {id: refused, request: {model: wan2.7-t2v, prompt: x, seconds: 99}}\n"
        "  - {id: unknown, request: {model: wan2.7-t2v, prompt: '${nothing}'}}\n"
        "  - {id: mistyped, reqest: {model: wan2.7-t2v, prompt: x}, timeout: 3}\n"
        "  - {id: '${name}', from: rows.csv, request: {model: wan2.7-t2v, prompt: '${prompt}'}}\n"
        "  - {id: '${name}', from: rows.csv, request: {model: wan2.7-t2v, prompt: '${promt}'}}\n"
        "  - request: {model: wan2.7-t2v, prompt: x}\n    timeout: 3\n    reqest: 4\n"
    )
    command = ("run", manifest, "-o", "out", "--simulate", "--skip-invalid")
    failed = [
        "refused",
        "unknown",
        "mistyped",
        "jobs[4] rows.csv:3",
        "jobs[5] skip.yaml:8",
        "jobs[6] skip.yaml:10",
    ]

    for _ in range(2):
        assert 1 == runner(*command).exit_code
        lines = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
        assert ["a", *failed[:3], "r1", *failed[3:]] == [line["job_id"] for line in lines]
        invalid = [
            line["job_id"] for line in lines if (line["error"] or {}).get("class") == "invalid_request"
        ]
        assert failed == invalid

    # The results can be rerun, also with jobs that have no model.
    again = runner("rerun", "out/results.jsonl", "-o", "again", "--simulate", "--json")
    assert (1, True) == (again.exit_code, f'"invalid_request":{len(failed)}' in again.stdout)

    manifest.write_text(manifest.read_text().replace("${nothing}", "y"))
    assert 1 == runner(*command).exit_code
    assert '"job_id":"unknown","index":2,"status":"succeeded"' in Path("out/results.jsonl").read_text()

    # One that has a video, and is invalid now, is a changed job like any other.
    manifest.write_text(manifest.read_text().replace("'y'", "'y', seconds: 99"))
    changed = runner(*command)
    assert (2, True) == (changed.exit_code, "1 job changed since submission: unknown (succ" in changed.stderr)
    assert (1, 1) == tuple(runner(*command, "--on-changed", "keep").exit_code for _ in range(2))
    assert '"job_id":"unknown","index":2,"status":"succeeded"' in Path("out/results.jsonl").read_text()


@pytest.mark.parametrize("mistake", ["seconds: 99", "seconds: '${nothing}'"])
def test_job_that_was_invalid_in_between_is_submitted(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the manifest has the request again with which the job was pending, it is pending again."""
    monkeypatch.chdir(tmp_path)
    manifest, valid = Path("skip.yaml"), "seconds: 5"
    jobs = [f"  - {{id: {n}, request: {{model: wan2.7-t2v, prompt: {n}, {valid}}}}}\n" for n in "ab"]
    manifest.write_text("version: 1\njobs:\n" + "".join(jobs))
    command = ("run", manifest, "-o", "out", "--simulate", "--skip-invalid")
    assert 6 == runner(*command, "--limit", "0").exit_code

    manifest.write_text(manifest.read_text().replace(valid, mistake, 1))
    assert 1 == runner(*command).exit_code
    manifest.write_text(manifest.read_text().replace(mistake, valid))

    assert 0 == runner(*command).exit_code


def test_invalid_job_replaces_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest with a mistake, for a while, pays for nothing twice, even if changed jobs are to be rerun."""
    monkeypatch.chdir(tmp_path)
    manifest, valid = Path("skip.yaml"), "seconds: 5"
    manifest.write_text(
        f"version: 1\njobs: [{{id: a, request: {{model: wan2.7-t2v, prompt: x, {valid}}}}}]\n"
    )
    command = ("run", manifest, "-o", "out", "--simulate", "--skip-invalid", "--on-changed", "rerun")

    for before, now in ((valid, valid), (valid, "seconds: 99"), ("seconds: 99", valid)):
        manifest.write_text(manifest.read_text().replace(before, now))
        assert 0 == runner(*command).exit_code

    (line,) = map(json.loads, Path("out/results.jsonl").read_text().splitlines())
    assert ("succeeded", 1) == (line["status"], len(line["attempts"]))


@pytest.mark.parametrize(
    "content", [None, "name,prompt\nr1,one\nr2,t\0o\nr3,three\n"], ids=["missing", "cut"]
)
def test_skip_invalid_leaves_no_table_out(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that can't be read to its end stops the run: nobody knows how many jobs would be left out."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("rows.csv").write_text(content)
    manifest = Path("skip.yaml")
    manifest.write_text(
        "version: 1\njobs: [{id: '${name}', from: rows.csv, request: {model: wan2.7-t2v, prompt: '${prompt}'}}]\n"
    )

    refused = runner("run", manifest, "-o", "out", "--simulate", "--skip-invalid")

    assert (2, True) == (refused.exit_code, "rows.csv" in refused.stderr)


@pytest.mark.parametrize("header", ["budget: {run: 5}", "limits: {submit: 60}", "limts: {submit: 1/s}"])
def test_skip_invalid_leaves_no_setting_out(
    header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget or a limit that is invalid stops the run: without it jobs would be paid for as nobody meant."""
    monkeypatch.chdir(tmp_path)
    manifest = Path("skip.yaml")
    manifest.write_text(
        f"version: 1\n{header}\njobs: [{{id: a, request: {{model: wan2.7-t2v, prompt: x}}}}]\n"
    )

    for options in ((), ("--dry-run",)):
        refused = runner("run", manifest, "-o", "out", "--simulate", "--skip-invalid", *options)
        assert (2, True) == (refused.exit_code, "skip.yaml:2:" in refused.stderr)


def test_skip_invalid_refuses_the_id_of_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that can't be read: it would be a change of the other one, and that one paid for again."""
    monkeypatch.chdir(tmp_path)
    manifest = Path("skip.yaml")
    manifest.write_text(
        "version: 1\njobs:\n  - {id: a, request: {model: wan2.7-t2v, prompt: x}}\n"
        "  - {id: a, reqest: {model: wan2.7-t2v, prompt: y}}\n"
    )

    refused = runner("run", manifest, "-o", "out", "--simulate", "--skip-invalid")

    assert 2 == refused.exit_code
    assert "skip.yaml:4:13: jobs[1] \"a\": another job has the id 'a' too" in refused.stderr
