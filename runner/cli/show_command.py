"""`runner show`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.api.jobs import JobDetails
from runner.api.jobs import job as read_job
from runner.cli.console import command_text, echo_stderr, echo_stdout
from runner.cli.explain_command import explanation_lines
from runner.cli.param_types import JOB, RUN_DIR
from runner.cli.shared_options import local_run
from runner.core.explain_answer import explain_answer
from runner.core.units import format_count, format_duration, format_size
from runner.results.formats import line_bytes, result_line, utc_text

if TYPE_CHECKING:
    from runner.core.model import Asset, Attempt, Failure, JobRecord


@click.command("show")
@click.argument("run_dir", type=RUN_DIR, callback=local_run)
@click.argument("job", type=JOB)
@click.option("--json", "as_json", is_flag=True, help="Print the job as its line in results.jsonl.")
@click.option(
    "--answer",
    "wants_answer",
    is_flag=True,
    help="Show the API's last answer about the job that was not understood, and how it is read.",
)
def command(run_dir: Path, job: str, as_json: bool, wants_answer: bool) -> int:
    """Show JOB of the run in RUN_DIR with all its attempts, files and warnings, even while the run is active."""
    details = read_job(run_dir, job)
    if wants_answer:
        return _show_answer(details)
    if as_json:
        click.echo(line_bytes(details.record, run=details.run, gateway=details.gateway).decode(), nl=False)
        return 0
    for line in _lines(details, run_dir):
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


def _lines(details: JobDetails, run_dir: Path) -> Iterator[str]:
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
        show = command_text("runner", "show", run_dir, record.job_id, "--answer")
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
