"""`runner report`: every format, from an active run or a finished one, and errors if there is nothing to report."""

from __future__ import annotations

import csv
import json
import os
import webbrowser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from runner.core.lifecycle import State
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import runner


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def run_dir() -> Path:
    """Create a run with a succeeded, a failed and a pending job."""
    states = {"a": State.SUCCEEDED, "b": State.FAILED, "c": State.PENDING}
    return make_run(Path("out"), write_manifest(Path("m.yaml"), *states), states)


def test_without_options_it_writes_the_page(run_dir: Path) -> None:
    """The page is generated from run.db alone, beside the assets."""
    result = runner("report", run_dir)

    assert (0, "", "wrote out/report.html\n") == (result.exit_code, result.stdout, result.stderr)
    assert "kittens" in Path("out/report.html").read_text()


def test_it_works_while_a_run_is_active(run_dir: Path) -> None:
    """The report ignores the lock of the run."""
    with Store(run_dir):
        result = runner("report", run_dir, "--html")

    assert 0 == result.exit_code


def test_junit(run_dir: Path) -> None:
    """The file has a test case per job; report.html is not written."""
    assert 0 == runner("report", run_dir, "--junit", "junit.xml").exit_code

    suite = ElementTree.parse("junit.xml").getroot()[0]
    assert ("3", "1", "1") == tuple(suite.attrib[key] for key in ("tests", "failures", "skipped"))
    assert not Path("out/report.html").exists()


def test_markdown_goes_to_stdout(run_dir: Path) -> None:
    """Outside of GitHub Actions the summary is printed to stdout."""
    result = runner("report", run_dir, "--github")

    assert (0, "") == (result.exit_code, result.stderr)
    assert "1 of 3 jobs succeeded." in result.stdout


def test_markdown_is_appended_to_the_step_summary(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier command of the step wrote is kept."""
    Path("summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")

    result = runner("report", run_dir, "--github")

    assert (0, "") == (result.exit_code, result.stdout)
    assert Path("summary.md").read_text().startswith("before\n## kittens\n")


def test_a_step_summary_stays_below_the_limit_of_github(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub shows no summary over 1 MiB, so the file is left as it is."""
    Path("summary.md").write_text("x" * (1 << 20))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")

    result = runner("report", run_dir, "--github")

    assert 2 == result.exit_code
    assert "1 MiB" in result.stderr
    assert 1 << 20 == Path("summary.md").stat().st_size


def test_openai_lines(run_dir: Path) -> None:
    """The file has a line per job, in the format of the batch API."""
    assert 0 == runner("report", run_dir, "--openai", "batch.jsonl").exit_code

    lines = [json.loads(line) for line in Path("batch.jsonl").read_text().splitlines()]
    assert ["a", "b", "c"] == [line["custom_id"] for line in lines]


@pytest.mark.parametrize("option", ["--junit", "--openai", "--csv", "--github"])
@pytest.mark.parametrize("kind", ["pipe", "link", "link to a device"])
def test_pipes_devices_and_links_as_outputs(
    kind: str, option: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for the reader of a pipe, replaces a device or is written through a link."""
    Path("target").write_text("mine")
    if kind == "pipe":
        os.mkfifo("file")
    else:
        Path("file").symlink_to("target" if kind == "link" else "/dev/stdout")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "file")

    result = runner("report", run_dir, option, *([] if option == "--github" else ["file"]))

    assert 2 == result.exit_code
    assert "file can't be written: it is " in result.stderr
    assert "mine" == Path("target").read_text()
    assert "pipe" == kind or Path("file").is_symlink()


def test_csv(run_dir: Path) -> None:
    """The file has a row per job with its verdict, and a column for each key; report.html is not written."""
    Path("out/verdicts.jsonl").write_text(
        '{"job_id": "a", "verdict": "keep", "at": "2026-11-21T02:00:00.000Z"}\n'
    )

    assert 0 == runner("report", run_dir, "--csv", "jobs.csv").exit_code

    with Path("jobs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [("a", "succeeded", "keep"), ("b", "failed", ""), ("c", "pending", "")]
    assert expected == [(row["job_id"], row["status"], row["verdict"]) for row in rows]
    assert not Path("out/report.html").exists()


def test_open(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is written, and the user's browser gets its address."""
    browser = Path("browser")
    browser.write_text('#!/bin/sh\nprintf %s "$1" > opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser.resolve()} %s")
    # What `webbrowser` found in the environment before does not count.
    monkeypatch.setattr(webbrowser, "_tryorder", None)

    assert 0 == runner("report", run_dir, "--open").exit_code

    assert Path("out/report.html").resolve().as_uri() == Path("opened").read_text()


@pytest.mark.parametrize("content", [None, b"", b"not a database at all, and long enough to be read as one"])
def test_not_a_run_directory(content: bytes | None) -> None:
    """A missing, empty or damaged run.db is an error, and nothing is written."""
    Path("empty").mkdir()
    if content is not None:
        Path("empty/run.db").write_bytes(content)

    result = runner("report", "empty")

    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith(("error[store-missing]", "error[store-damaged]", "error[report]"))
    assert not Path("empty/report.html").exists()


def test_a_run_without_jobs_has_no_report() -> None:
    """A process that is killed before it stored the jobs leaves an empty database."""
    with Store(Path("out")):
        pass

    result = runner("report", "out")

    assert 2 == result.exit_code
    assert "out holds no jobs yet" in result.stderr


def test_a_file_that_can_not_be_written(run_dir: Path) -> None:
    """The error names the file, and there is no traceback."""
    result = runner("report", run_dir, "--junit", "nowhere/junit.xml")

    assert 2 == result.exit_code
    assert result.stderr.startswith("error[report]: nowhere/junit.xml can't be written")
    assert "name another file" in result.stderr

    (run_dir / "report.html").mkdir()
    result = runner("report", run_dir)

    assert f"{run_dir}/report.html can't be written" in result.stderr
    assert "or report on a copy of it" in result.stderr
