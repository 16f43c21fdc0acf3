"""`report`: every form of it from what is on disk, in use or not, and clear words where there is nothing."""

from __future__ import annotations

import json
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
    """Give a run with a job that succeeded, one that failed and one that waits."""
    states = {"a": State.SUCCEEDED, "b": State.FAILED, "c": State.PENDING}
    return make_run(Path("out"), write_manifest(Path("m.yaml"), *states), states)


def test_without_options_it_draws_the_page(run_dir: Path) -> None:
    """The page is made from run.db alone, by the side of the assets."""
    ran = runner("report", run_dir)

    assert (0, "", "wrote out/report.html\n") == (ran.code, ran.out, ran.err)
    assert "kittens" in Path("out/report.html").read_text()


def test_it_works_while_a_run_is_going(run_dir: Path) -> None:
    """It only reads, and the page appears whole."""
    with Store(run_dir):
        ran = runner("report", run_dir, "--html")

    assert ran.code == 0


def test_junit(run_dir: Path) -> None:
    """CI gets a case a job; --html is not implied."""
    assert runner("report", run_dir, "--junit", "junit.xml").code == 0

    suite = ElementTree.parse("junit.xml").getroot()[0]
    assert ("3", "1", "1") == tuple(suite.attrib[key] for key in ("tests", "failures", "skipped"))
    assert not Path("out/report.html").exists()


def test_markdown_goes_to_stdout(run_dir: Path) -> None:
    """Outside of GitHub Actions the summary is data like any other."""
    ran = runner("report", run_dir, "--github")

    assert (0, "") == (ran.code, ran.err)
    assert "1 of 3 jobs succeeded." in ran.out


def test_markdown_is_appended_to_the_step_summary(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier command of the step wrote stays."""
    Path("summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")

    ran = runner("report", run_dir, "--github")

    assert (0, "") == (ran.code, ran.out)
    assert Path("summary.md").read_text().startswith("before\n## kittens\n")


def test_a_step_summary_never_passes_what_github_shows(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub shows nothing at all of a summary over 1 MiB."""
    Path("summary.md").write_text("x" * (1 << 20))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")

    ran = runner("report", run_dir, "--github")

    assert ran.code == 2
    assert "1 MiB" in ran.err
    assert 1 << 20 == Path("summary.md").stat().st_size


def test_openai_lines(run_dir: Path) -> None:
    """A line a job, in the shape of the batch API's output."""
    assert runner("report", run_dir, "--openai", "batch.jsonl").code == 0

    lines = [json.loads(line) for line in Path("batch.jsonl").read_text().splitlines()]
    assert ["a", "b", "c"] == [line["custom_id"] for line in lines]


@pytest.mark.parametrize("content", [None, b"", b"not a database at all, and long enough to be read as one"])
def test_what_is_no_run_is_refused(content: bytes | None) -> None:
    """A missing, empty or damaged run.db gets a message, and nothing is drawn."""
    Path("empty").mkdir()
    if content is not None:
        Path("empty/run.db").write_bytes(content)

    ran = runner("report", "empty")

    assert (2, "") == (ran.code, ran.out)
    assert ran.err.startswith(("error[store-missing]", "error[store-damaged]", "error[report]"))
    assert not Path("empty/report.html").exists()


def test_a_run_without_jobs_has_no_report() -> None:
    """A process that died while it took the jobs in leaves a store with nothing in it."""
    with Store(Path("out")):
        pass

    ran = runner("report", "out")

    assert ran.code == 2
    assert "out holds no jobs yet" in ran.err


def test_a_file_that_can_not_be_written_is_named(run_dir: Path) -> None:
    """The path is in the message, and there is no traceback."""
    ran = runner("report", run_dir, "--junit", "nowhere/junit.xml")

    assert ran.code == 2
    assert ran.err.startswith("error[report]: nowhere/junit.xml can't be written")
