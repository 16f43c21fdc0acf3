"""The files for CI services and monitoring are valid whatever text a run contains, and fit their limits."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from runner.core.cost import Spend
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord, Verdicts
from runner.core.summary import summarize
from runner.engine.events import Snapshot
from runner.report.csv_table import MAX_KEYS, TooManyKeys, write_csv
from runner.report.junit import write_junit
from runner.report.prometheus import write_live_metrics, write_metrics
from runner.report.step_summary import step_summary
from tests.results.records import AT, HOSTILE, succeeded, unsuccessful

JOBS = [
    succeeded("sky"),
    unsuccessful("grass", State.FAILED, FailureClass.MODERATION, "refused"),
    unsuccessful("unclear", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, "reset"),
    replace(succeeded("later"), state=State.PENDING, assets=(), generate_s=None),
]


def hostile_jobs() -> list[JobRecord]:
    return [
        unsuccessful(text, State.FAILED, FailureClass.INTERNAL, text, model=text, task_id=text)
        for text in HOSTILE
    ]


def test_junit_counts_and_cases(tmp_path: Path) -> None:
    """Failed jobs are failures, those with something left to do are errors, pending ones are skipped."""
    path = tmp_path / "junit.xml"

    write_junit(path, JOBS, summarize(JOBS), run="kittens")

    (suite,) = ElementTree.parse(path).getroot()
    assert {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}.items() <= suite.attrib.items()
    assert [[], ["failure"], ["error"], ["skipped"]] == [[child.tag for child in case] for case in suite]
    assert {"type": "moderation", "message": "refused"} == suite[1][0].attrib
    assert "95.500" == suite[0].attrib["time"]


def test_junit_with_hostile_text(tmp_path: Path) -> None:
    """Characters that XML does not allow, and markup in messages, leave the file well-formed."""
    path = tmp_path / "junit.xml"

    write_junit(path, hostile_jobs(), summarize(hostile_jobs()), run=HOSTILE[0])

    (suite,) = ElementTree.parse(path).getroot()
    assert len(HOSTILE) == len(suite)
    assert HOSTILE[0] == suite[0].attrib["name"]


def test_step_summary() -> None:
    """The summary has the counts, each failure class with advice, and the jobs that failed."""
    text = step_summary(summarize(JOBS), [job for job in JOBS if job.error], run="kittens")

    assert "1 of 4 jobs succeeded." in text
    assert re.search(r"\| `moderation` \| 1 \| Moderation refused the prompt or a picture", text)
    assert "| unclear | wan2&#46;7-i2v | uncertain | uncertain&#95;submit&#58; reset |" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_step_summary_escapes_hostile_text(hostile: str) -> None:
    """No prompt or message becomes markup, a link, a mention or another row."""
    jobs = [unsuccessful(hostile, State.FAILED, FailureClass.INTERNAL, hostile)]

    text = step_summary(summarize(jobs), jobs, run=hostile)

    rows = [line for line in text.splitlines() if line.startswith("| ") and "internal" in line]
    assert 2 == len(rows)
    assert 5 == len(re.findall(r"(?<!&#)\|", rows[1]))
    assert not re.search(r"<(?!/?details|/?summary)|www\.|://|@|\*\*|\]\(", text)


def test_step_summary_is_under_the_limit_of_github() -> None:
    """However many jobs failed, and whatever their names, the summary is under 1 MiB."""
    jobs = [
        unsuccessful(
            "<" * 5000 + str(n),
            State.FAILED,
            FailureClass.INTERNAL,
            "&" * 500,
            model=f"{'猫' * 300}{n}",
        )
        for n in range(2000)
    ]

    assert len(step_summary(summarize(jobs), jobs, run="kittens").encode()) < 1 << 20


def test_metrics(tmp_path: Path) -> None:
    """Metrics are by state, class and model, labeled with the name of the run."""
    write_metrics(tmp_path / "runner.prom", summarize(JOBS), run="kittens", exit_code=4, now_at=AT)

    text = (tmp_path / "runner.prom").read_text()
    assert 'runner_run_jobs{run="kittens",state="succeeded"} 1\n' in text
    assert 'runner_run_jobs{run="kittens",state="timed_out"} 0\n' in text
    assert 'runner_run_failures{run="kittens",class="moderation"} 1\n' in text
    assert 'runner_run_generate_seconds{run="kittens",quantile="0.9"} 93.1\n' in text
    assert 'runner_run_exit_code{run="kittens"} 4\n' in text


def test_the_prometheus_client_reads_the_metrics(tmp_path: Path) -> None:
    """The parser of the Prometheus client reads the file, whatever the names of the run and the models."""
    parser = pytest.importorskip("prometheus_client.parser")
    path = tmp_path / "runner.prom"

    write_metrics(path, summarize(hostile_jobs()), run='a "b"\\\nc', exit_code=1, now_at=AT)

    families = {family.name: family for family in parser.text_string_to_metric_families(path.read_text())}
    assert {"run": 'a "b"\\\nc'} == families["runner_run_exit_code"].samples[0].labels
    assert set(HOSTILE) == {sample.labels["model"] for sample in families["runner_run_model_jobs"].samples}


def test_metrics_of_an_active_run(tmp_path: Path) -> None:
    """They have the same name for jobs by state, and what only an active run has."""
    snapshot = Snapshot(
        counts={State.SUCCEEDED: 3, State.PENDING: 2},
        downloads=(),
        downloads_waiting=0,
        in_flight=1,
        max_in_flight=8,
        submit_per_s=0.5,
        accepted_per_s=0.25,
        limited_by="",
        is_stopping=False,
        seconds_left=12.3,
        spend=(Spend(currency="USD", settled=2_500_000_000, reserved=10**9),),
    )

    write_live_metrics(tmp_path / "live.prom", snapshot, run="kittens", now_at=AT)

    text = (tmp_path / "live.prom").read_text()
    assert 'runner_run_jobs{run="kittens",state="succeeded"} 3\n' in text
    assert 'runner_run_in_flight{run="kittens"} 1\n' in text
    assert 'runner_run_left_seconds{run="kittens"} 12\n' in text
    assert 'runner_run_cost{run="kittens",currency="USD",state="settled"} 2.50\n' in text
    assert 'runner_run_cost{run="kittens",currency="USD",state="reserved"} 1.00\n' in text


def test_promtool_finds_nothing(tmp_path: Path) -> None:
    """The linter of Prometheus accepts the names, types and texts of all metrics."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    jobs = [*JOBS, *hostile_jobs()]
    write_metrics(tmp_path / "runner.prom", summarize(jobs), run="kittens", exit_code=4, now_at=AT)
    text = (tmp_path / "runner.prom").read_text()
    assert 'runner_run_generate_seconds_count{run="kittens"} 1\n' in text

    found = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)

    assert (0, "") == (found.returncode, found.stdout + found.stderr)


FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\n=1",
    '"=1',
    " =1",
    "＝1",
    "＋1",
    "－1",
    "＠A1",
    "'=1",
)


def csv_rows(path: Path, jobs: list[JobRecord]) -> list[dict[str, str]]:
    verdicts = Verdicts()
    verdicts["sky"] = "reject"
    write_csv(path, lambda: jobs, verdicts)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_no_formulas(tmp_path: Path) -> None:
    """No text from a prompt, the metadata or the API begins as a spreadsheet's formulas do, and numbers stay numbers."""
    jobs = [
        unsuccessful(
            text,
            State.FAILED,
            FailureClass.INTERNAL,
            text,
            model=text,
            task_id=text,
            metadata={"note": text, "seed": -5, "list": [text]},
            request={"prompt": text, "model": text, "style": text},
            warnings=(text,),
        )
        for text in FORMULAS
    ]

    rows = csv_rows(tmp_path / "jobs.csv", jobs)

    columns = (
        "job_id",
        "message",
        "model",
        "prompt",
        "task_id",
        "warnings",
        "metadata.note",
        "request.style",
    )
    assert [[f"'{text}"] * len(columns) for text in FORMULAS] == [
        [row[name] for name in columns] for row in rows
    ]
    assert {"-5"} == {row["metadata.seed"] for row in rows}


def test_csv_with_hostile_text(tmp_path: Path) -> None:
    """Every job has one row, whose long texts are cut, and a key of some of the jobs is a column of all."""
    jobs = [*hostile_jobs(), succeeded("sky", metadata={"split": "test"})]

    rows = csv_rows(tmp_path / "jobs.csv", jobs)

    assert len(HOSTILE) + 1 == len(rows)
    assert max(len(value) for row in rows for value in row.values()) < 32_767
    assert ["test"] == [row["metadata.split"] for row in rows if row["metadata.split"]]
    assert ("assets/sky.mp4", "1048576", "5.0", "reject") == tuple(
        rows[-1][name] for name in ("video", "bytes", "duration_s", "verdict")
    )


def test_csv_has_a_limit_of_columns(tmp_path: Path) -> None:
    """Jobs of which each has keys of its own make no table of a million columns, and no file."""
    jobs = [succeeded(f"job-{n}", metadata={f"key-{n}": n}) for n in range(MAX_KEYS)]

    with pytest.raises(TooManyKeys):
        csv_rows(tmp_path / "jobs.csv", jobs)

    assert [] == list(tmp_path.iterdir())
