"""What CI services and monitoring read of a run holds for any text, and within their bounds."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.summary import summarize
from runner.report.github import step_summary
from runner.report.junit import write_junit
from runner.report.prometheus import metrics_text, write_metrics
from tests.results.records import AT, HOSTILE, succeeded, unsuccessful

JOBS = [
    succeeded("sky"),
    unsuccessful("grass", State.FAILED, FailureClass.MODERATION, "refused"),
    unsuccessful("doubt", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, "reset"),
    replace(succeeded("later"), state=State.PENDING, assets=(), generate_s=None),
]


def hostile_jobs():
    return [
        unsuccessful(text, State.FAILED, FailureClass.INTERNAL, text, model=text, task_id=text)
        for text in HOSTILE
    ]


def test_junit_counts_and_cases(tmp_path):
    """Failed jobs are failures, those with something left to do are errors, unsent ones are skipped."""
    path = tmp_path / "junit.xml"

    write_junit(path, JOBS, summarize(JOBS), run="kittens")

    (suite,) = ElementTree.parse(path).getroot()
    assert {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}.items() <= suite.attrib.items()
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"], ["skipped"]]
    assert suite[1][0].attrib == {"type": "moderation", "message": "refused"}
    assert suite[0].attrib["time"] == "95.500"


def test_junit_holds_hostile_text(tmp_path):
    """Characters that XML does not have, and markup in messages, leave the file well-formed."""
    path = tmp_path / "junit.xml"

    write_junit(path, hostile_jobs(), summarize(hostile_jobs()), run=HOSTILE[0])

    (suite,) = ElementTree.parse(path).getroot()
    assert len(suite) == len(HOSTILE)
    assert suite[0].attrib["name"] == HOSTILE[0]


def test_step_summary_says_what_to_do():
    """The summary has the counts, each class of failure with its advice, and the jobs behind it."""
    text = step_summary(summarize(JOBS), [job for job in JOBS if job.error], run="kittens")

    assert "1 of 4 jobs succeeded." in text
    assert re.search(r"\| `moderation` \| 1 \| Moderation refused the prompt or a picture", text)
    assert "| doubt | wan2&#46;7-i2v | uncertain | uncertain&#95;submit&#58; reset |" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_step_summary_shows_hostile_text_as_text(hostile):
    """No prompt or message becomes markup, a link, a mention or another row."""
    jobs = [unsuccessful(hostile, State.FAILED, FailureClass.INTERNAL, hostile)]

    text = step_summary(summarize(jobs), jobs, run=hostile)

    rows = [line for line in text.splitlines() if line.startswith("| ") and "internal" in line]
    assert len(rows) == 2
    assert len(re.findall(r"(?<!&#)\|", rows[1])) == 5
    assert not re.search(r"<(?!/?details|/?summary)|www\.|://|@|\*\*|\]\(", text)


def test_step_summary_fits():
    """However many jobs failed, however they are named, the summary is under what GitHub shows."""
    jobs = [
        unsuccessful(
            "<" * 5000 + str(place),
            State.FAILED,
            FailureClass.INTERNAL,
            "&" * 500,
            model=f"{'猫' * 300}{place}",
        )
        for place in range(2000)
    ]

    assert len(step_summary(summarize(jobs), jobs, run="kittens").encode()) < 1 << 20


def test_metrics():
    """Metrics are gauges by state, class and model, with the name of the run."""
    text = metrics_text(summarize(JOBS), run="kittens", exit_code=4, now_at=AT)

    assert 'runner_run_jobs{run="kittens",state="succeeded"} 1\n' in text
    assert 'runner_run_jobs{run="kittens",state="timed_out"} 0\n' in text
    assert 'runner_run_failures{run="kittens",class="moderation"} 1\n' in text
    assert 'runner_run_generate_seconds{run="kittens",quantile="0.9"} 93.1\n' in text
    assert 'runner_run_exit_code{run="kittens"} 4\n' in text


def test_metrics_are_read_by_the_client_of_prometheus(tmp_path):
    """A reader that nobody here wrote reads the file, whatever run and models are called."""
    parser = pytest.importorskip("prometheus_client.parser")
    path = tmp_path / "runner.prom"

    write_metrics(path, summarize(hostile_jobs()), run='a "b"\\\nc', exit_code=1, now_at=AT)

    families = {family.name: family for family in parser.text_string_to_metric_families(path.read_text())}
    assert families["runner_run_exit_code"].samples[0].labels == {"run": 'a "b"\\\nc'}
    assert {sample.labels["model"] for sample in families["runner_run_model_jobs"].samples} == set(HOSTILE)
