"""`runner status`, `runner jobs` and `runner show`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from runner.api.run_dir import continue_options
from runner.api.run_ledger import budgets_json
from runner.api.status import JobDetails, Status, jobs, status
from runner.api.status import job as read_job
from runner.cli.console import echo_stderr, echo_stdout
from runner.cli.debug_commands import explanation_lines
from runner.cli.param_types import JOB as JOB_ID
from runner.cli.param_types import RUN_DIR, with_options
from runner.cli.shared_options import (
    CLASS,
    JOB,
    RUN_OR_NEWEST,
    STATUS,
    WHERE,
    as_given,
    local_run,
)
from runner.core.explain_answer import explain_answer
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.sanitize import command_text, job_command, sanitize_line
from runner.core.summary import takes_text
from runner.core.units import format_count, format_duration, format_rate, format_size
from runner.results.formats import line_bytes, result_line, utc_text

if TYPE_CHECKING:
    from runner.core.model import Asset, Attempt, Failure, JobRecord
    from runner.core.where import Condition


_WATCH_EVERY_S = 2.0
_MAX_STUCK_LISTED = 10


@click.command("status")
@RUN_OR_NEWEST
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one line every time.")
@click.option("--watch", is_flag=True, help="Update every two seconds until the run is not active any more.")
def status_command(run_dir: Path, as_json: bool, watch: bool) -> None:
    """
    Show the status of the run in RUN_DIR: counts, rates, time left, the limiting setting, stuck tasks.

    Without RUN_DIR it is the newest run.
    """
    drawn = 0
    try:
        while True:
            found = status(run_dir)
            if as_json:
                click.echo(json.dumps(_json(found)))
            else:
                drawn = _draw(list(_status_lines(found)), over=drawn if sys.stdout.isatty() else 0)
            if not watch or found.holder is None:
                return
            time.sleep(_WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


def _draw(lines: list[str], *, over: int) -> int:
    """Print lines over the last ``over`` ones, and return their number."""
    if over:
        click.echo(f"\x1b[{over}A\x1b[J", nl=False)
    for line in lines:
        echo_stdout(line)
    return len(lines)


def _json(found: Status) -> dict[str, object]:
    return {
        "jobs": found.jobs,
        "by_status": {state.value: count for state, count in found.by_state.items()},
        "by_class": dict(found.by_class),
        "running": found.holder is not None,
        "holder": found.holder,
        "run": found.name,
        "submitted_per_min": round(found.submitted_per_s * 60, 2),
        "finished_per_min": round(found.finished_per_s * 60, 2),
        "seconds_left": None if found.seconds_left is None else round(found.seconds_left, 1),
        "binding": found.limited_by,
        "stuck": [asdict(job) for job in found.stuck],
        "lost_files": found.lost_files,
        "not_seen": found.not_seen,
        "cost": [spend.json() for spend in found.spend],
        "awaiting_take": found.awaiting_take,
        "budget": budgets_json(found.budgets),
        "first_submitted_at": utc_text(found.first_submitted_at),
        "last_finished_at": utc_text(found.last_finished_at),
    }


def _status_lines(found: Status) -> Iterator[str]:
    where = as_given(found.run_dir)
    noun = "simulated job" if found.is_simulated else "job"
    yield f"{where}: {format_count(found.jobs, noun)}, {_activity(found)}"
    for state, count in found.by_state.items():
        if count:
            yield f"  {count:>9,}  {state.label}"
    if found.awaiting_take:
        yield f"  {takes_text(found.awaiting_take)}"
    if found.by_class:
        yield "  by failure class:"
    for cls, count in found.by_class.items():
        yield f"  {count:>9,}  {cls}"
    for spend in found.spend:
        yield f"  {spend}{' (simulated)' if found.is_simulated else ''}"
    for budget in found.budgets:
        yield f"  {budget}"
    if found.holder is not None:
        yield from _progress(found)
    if found.by_state[State.UNCERTAIN]:
        resolve = f"{command_text('runner', 'resolve', where)} JOB..."
        yield f"look for the tasks of uncertain jobs in your account, then: {resolve}"
    if found.lost_files:
        files = format_count(len(found.lost_files), "file")
        verify = ("runner", "resume", where, "--verify", *continue_options(found.run_dir))
        yield f"missing, or of another size: {files}, for example {sanitize_line(found.lost_files[0], max_chars=200)}"
        yield f"download again, free of charge: {command_text(*verify)}"
    if found.not_seen is not None:
        yield f"not looked for in the object store: the uploaded files ({found.not_seen})"
    if found.holder is None and found.left:
        resume = command_text("runner", "resume", where, *continue_options(found.run_dir))
        yield f"continue with: {resume}"


def _activity(found: Status) -> str:
    if found.holder is not None:
        return f"active ({found.holder})"
    return "not active" if found.left else "nothing left to do"


def _progress(found: Status) -> Iterator[str]:
    submitted, finished = (
        format_rate(per_s) if per_s else "0/min" for per_s in (found.submitted_per_s, found.finished_per_s)
    )
    yield f"  submitted {submitted}, finished {finished} (last 10 minutes)"
    left = "not known yet" if found.seconds_left is None else format_duration(found.seconds_left)
    yield f"  time left: {left}" + (f"; limited by {found.limited_by}" if found.limited_by else "")
    if found.stuck:
        yield f"  taking more than three times as long as usual: {format_count(len(found.stuck), 'task')}"
    for job in found.stuck[:_MAX_STUCK_LISTED]:
        yield f"    {job.job_id}: {format_duration(job.age_s)} (usually {format_duration(job.median_s)} for {job.model})"


_ID_CHARS = 40
_DETAIL_CHARS, _LEAST_DETAIL_CHARS = 100, 20
_ALIGNED = 100
"""The number of jobs by which the columns of a list are as wide as they are."""


@click.command("jobs")
@RUN_OR_NEWEST
@with_options(STATUS, CLASS, JOB, WHERE)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON for each job, as in results.jsonl."
)
def jobs_command(
    run_dir: Path,
    states: tuple[str, ...],
    classes: tuple[str, ...],
    job: str | None,
    where: tuple[Condition, ...],
    as_json: bool,
) -> None:
    """
    List the jobs of the run in RUN_DIR, in manifest order, even while the run is active.

    Without RUN_DIR it is the newest run. Each line has the job's id, state, model, and what became of it.
    """
    found = jobs(
        run_dir,
        states=frozenset(map(State, states)),
        classes=frozenset(map(FailureClass, classes)),
        glob=job,
        where=where,
    )
    if as_json:
        for record in found.records:
            click.echo(line_bytes(record, run=found.run, gateway=found.gateway).decode(), nl=False)
        return
    count, width = 0, get_terminal_size().columns if sys.stdout.isatty() else None
    for count, line in enumerate(job_lines(found.records, width), 1):  # noqa: B007
        echo_stdout(line)
    show = f"; details of one: {command_text('runner', 'show', as_given(run_dir))} JOB" if count else ""
    echo_stderr(f"{format_count(count, 'job')}{show}")


def job_lines(records: Iterable[JobRecord], width: int | None = None) -> Iterator[str]:
    """Format each job as a line, in columns that fit the first jobs, and cut to a terminal's width if there is one."""
    others = iter(records)
    first = list(islice(others, _ALIGNED))
    id_width = min(_ID_CHARS, max((len(record.job_id) for record in first), default=0))
    model_width = max((len(record.model) for record in first), default=0)
    for record in chain(first, others):
        job_id = sanitize_line(record.job_id, max_chars=_ID_CHARS)
        start = f"{job_id:<{id_width}}  {record.state.label:<11}  {record.model:<{model_width}}  "
        space = _DETAIL_CHARS if width is None else max(_LEAST_DETAIL_CHARS, width - len(start))
        yield (start + sanitize_line("; ".join(_job_details(record)), max_chars=space)).rstrip()


def _job_details(record: JobRecord) -> Iterator[str]:
    if record.error is not None:
        yield f"{record.error.cls}: {record.error.message}"
    elif record.assets:
        yield record.assets[0].url or record.assets[0].path
    elif record.task_id is not None:
        yield f"task {record.task_id}"
    if record.generate_s is not None:
        yield f"generated in {format_duration(record.generate_s)}"
    if len(record.attempts) > 1:
        yield format_count(len(record.attempts), "attempt")


@click.command("show")
@click.argument("run_dir", type=RUN_DIR, callback=local_run)
@click.argument("job", type=JOB_ID)
@click.option("--json", "as_json", is_flag=True, help="Print the job as its line in results.jsonl.")
@click.option(
    "--answer",
    "wants_answer",
    is_flag=True,
    help="Show the API's last answer about the job that was not understood, and how it is read.",
)
def show_command(run_dir: Path, job: str, as_json: bool, wants_answer: bool) -> int:
    """Show JOB of the run in RUN_DIR with all its attempts, files and warnings, even while the run is active."""
    details = read_job(run_dir, job)
    if wants_answer:
        return _show_answer(details)
    if as_json:
        click.echo(line_bytes(details.record, run=details.run, gateway=details.gateway).decode(), nl=False)
        return 0
    for line in _attempt_lines(details, run_dir):
        echo_stdout(line)
    return 0


def _show_answer(details: JobDetails) -> int:
    if not details.answers:
        echo_stderr(
            "every answer about this job was understood, and answers that are understood are not kept"
        )
        return 1
    number = max(details.answers)
    attempt = next((attempt for attempt in details.record.attempts if attempt.number == number), None)
    text = details.answers[number]
    echo_stdout(text)
    http_status = 200 if attempt is None or attempt.http_status is None else attempt.http_status
    explanation = explain_answer(text.encode("utf-8", "surrogateescape"), http_status=http_status)
    echo_stderr(f"the last such answer, of attempt {number}; it is read like this:")
    for line in explanation_lines(explanation):
        echo_stderr(line)
    return 0


def _attempt_lines(details: JobDetails, run_dir: Path) -> Iterator[str]:
    record = details.record
    yield f"{record.job_id}: {record.state.label}"
    yield f"  run: {details.run}, {details.gateway}"
    yield f"  defined in: {record.source}" if record.source.file else "  defined in: not known"
    yield f"  model: {record.model}, schema {record.schema}"
    request = result_line(record, run=details.run, gateway=details.gateway)["request"]
    yield f"  request: {json.dumps(request, ensure_ascii=False)}"
    if record.metadata:
        yield f"  metadata: {json.dumps(dict(record.metadata), ensure_ascii=False)}"
    yield from _task(record)
    for attempt in record.attempts:
        yield _attempt(attempt)
    for asset in record.assets:
        yield _asset(asset, run_dir)
    if record.usage:
        yield f"  usage: {json.dumps(dict(record.usage), ensure_ascii=False)}"
    for warning in record.warnings:
        yield f"  warning: {warning}"
    if record.error is not None:
        yield f"  error: {_error(record.error)}"
    if details.answers:
        show = job_command("show", run_dir, record.job_id, "--answer")
        yield f"  an answer was not understood; to see it: {show}"


def _task(record: JobRecord) -> Iterator[str]:
    if record.task_id is None:
        return
    status = f", last status {record.remote_status!r}" if record.remote_status else ""
    yield f"  task: {record.task_id}{status}, {format_count(record.polls, 'poll')}"
    if record.generate_s is not None:
        download = (
            "" if record.download_s is None else f", downloaded in {format_duration(record.download_s)}"
        )
        yield f"  generated in {format_duration(record.generate_s)}{download}"


def _attempt(attempt: Attempt) -> str:
    parts = [f"sent {utc_text(attempt.submitted_at)}", attempt.outcome]
    if attempt.http_status is not None:
        parts.append(f"HTTP {attempt.http_status}")
    if attempt.task_id is not None:
        parts.append(f"task {attempt.task_id}")
    if attempt.key is not None:
        parts.append(f"key {attempt.key}")
    if attempt.error is not None:
        parts.append(_error(attempt.error))
    return f"  attempt {attempt.number}: {', '.join(parts)}"


def _asset(asset: Asset, run_dir: Path) -> str:
    shape = "" if asset.width is None else f", {asset.width}x{asset.height}"
    duration = "" if asset.duration_s is None else f", {asset.duration_s:g} s"
    return f"  {asset.kind.value.replace('_', ' ')}: {asset.url or run_dir / asset.path}, {format_size(asset.bytes)}{shape}{duration}"


def _error(error: Failure) -> str:
    code = f" (code {error.code})" if error.code else ""
    request = f", request id {error.request_id}" if error.request_id else ""
    return f"{error.cls}: {error.message}{code}{request}"
