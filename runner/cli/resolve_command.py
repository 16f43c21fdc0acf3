"""`runner resolve`."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.api.resolve import (
    Resolution,
    ResolveResult,
    read_tasks,
    resolve_as,
    resolve_tasks,
    uncertain_jobs,
)
from runner.api.run_dir import continue_options
from runner.cli.console import echo_stderr, echo_stdout
from runner.cli.final_summary import submission_text
from runner.cli.param_types import JOB, RUN_DIR
from runner.cli.shared_options import or_newest_run
from runner.core.lifecycle import State
from runner.core.sanitize import command_text, job_command
from runner.core.units import format_count
from runner.core.wire import task_id_error
from runner.results.formats import utc_text

if TYPE_CHECKING:
    from runner.core.model import JobRecord


@click.command("resolve")
@click.argument("run_dir", required=False, type=RUN_DIR)
@click.argument("jobs", metavar="[JOB_OR_GLOB]...", type=JOB, nargs=-1)
@click.option("--task-id", metavar="ID", help="Id of the task of JOB: it will be polled and downloaded.")
@click.option("--not-submitted", is_flag=True, help="No task exists: the jobs become pending again.")
@click.option("--give-up", is_flag=True, help="Stop looking for a task: the jobs become failed.")
@click.option(
    "--from",
    "tasks_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read task ids from a CSV file with job_id,task_id lines.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON to stdout.")
@click.pass_context
def resolve_command(
    ctx: click.Context,
    run_dir: Path | None,
    jobs: tuple[str, ...],
    task_id: str | None,
    not_submitted: bool,
    give_up: bool,
    tasks_file: Path | None,
    as_json: bool,
) -> int:
    """
    Resolve jobs in RUN_DIR that are uncertain: their submission got no clear answer.

    Look for their tasks in your account first: a job that was submitted and is resolved with --not-submitted is
    paid for twice. Without JOB and other options, the uncertain jobs are listed, and printed to stdout as the CSV that
    --from takes once the tasks are filled in; without RUN_DIR, those of the newest run. Jobs are given by id, or by a pattern in quotes such as 'sky-*'. If one of them can't be
    resolved, none is. Nothing is sent; continue with `runner resume`.
    """
    # Which shard of a journal it is depends on the jobs.
    run_dir = or_newest_run(ctx, None, run_dir)
    if not jobs and not (task_id or not_submitted or give_up or tasks_file):
        return _list(list(uncertain_jobs(run_dir)), run_dir, as_json=as_json)
    if sum((task_id is not None, not_submitted, give_up, tasks_file is not None)) != 1:
        raise click.UsageError("Use exactly one of --task-id, --not-submitted, --give-up and --from.")
    if tasks_file is not None:
        if jobs:
            raise click.UsageError("--from can't be used with JOB arguments; the file names the jobs.")
        result, state = resolve_tasks(run_dir, read_tasks(tasks_file)), State.SUBMITTED
    elif task_id is not None:
        if len(jobs) != 1:
            raise click.UsageError("--task-id needs exactly one JOB; for several jobs use --from.")
        if error := task_id_error(task_id):
            raise click.UsageError(f"--task-id: {error}.")
        result, state = resolve_tasks(run_dir, {jobs[0]: task_id}), State.SUBMITTED
    elif not jobs:
        raise click.UsageError("Name at least one JOB, or a pattern such as 'sky-*'.")
    elif not_submitted:
        result, state = resolve_as(run_dir, jobs, Resolution.NOT_SUBMITTED), State.PENDING
    else:
        result, state = resolve_as(run_dir, jobs, Resolution.GIVE_UP), State.FAILED
    return _show(result, run_dir, state, as_json=as_json)


def _list(records: list[JobRecord], run_dir: Path, *, as_json: bool) -> int:
    if as_json:
        jobs = [_listed(record) for record in records]
        echo_stdout(json.dumps({"settled": [], "refused": [], "uncertain": len(jobs), "jobs": jobs}))
        return 0
    if not records:
        echo_stderr("no uncertain jobs")
        return 0
    for record in records:
        echo_stderr(submission_text(record), max_chars=200)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("job_id", "task_id"), *((record.job_id, "") for record in records)])
    echo_stdout(text.getvalue().removesuffix("\n"))
    resolve = partial(job_command, "resolve", run_dir, records[0].job_id if len(records) == 1 else "JOB")
    echo_stderr("look for each task in your account, then run one of")
    many = command_text("runner", "resolve", run_dir, "--from", "FILE")
    for command, explanation in (
        (resolve("--task-id", "TASK_ID"), "a task exists: poll it and download its video"),
        (resolve("--not-submitted"), "no task exists: submit the job again"),
        (resolve("--give-up"), "mark the job as failed"),
        (many, "many at once: the lines above with the task ids filled in"),
    ):
        echo_stderr(f"  {command}   # {explanation}")
    return 0


def _listed(record: JobRecord) -> dict[str, Any]:
    attempt = record.attempts[-1] if record.attempts else None
    return {
        "job_id": record.job_id,
        "model": record.model,
        "submitted_at": None if attempt is None else utc_text(attempt.submitted_at),
        "key": None if attempt is None else attempt.key,
        "prompt": record.request.get("prompt"),
        "message": None if record.error is None else record.error.message,
    }


def _show(result: ResolveResult, run_dir: Path, state: State, *, as_json: bool) -> int:
    if as_json:
        refused = [{"job_id": refusal.name, "why": refusal.why} for refusal in result.refused]
        values = {"settled": result.resolved, "refused": refused, "uncertain": result.left}
        echo_stdout(json.dumps(values))
    for refusal in result.refused:
        echo_stderr(f"{refusal.name} {refusal.why}", style="red", max_chars=300)
    left = f"{result.left:,} still uncertain" if result.left else "no uncertain jobs left"
    if result.refused:
        echo_stderr(
            f"can't resolve {format_count(len(result.refused), 'job')}, so nothing was changed; {left}"
        )
        return 2
    echo_stderr(f"{format_count(len(result.resolved), 'job')} now {state.label}; {left}")
    if state is not State.FAILED:
        resume = command_text("runner", "resume", run_dir, *continue_options(run_dir))
        echo_stderr(f"continue with: {resume}")
    return 0
