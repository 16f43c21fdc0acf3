"""`runner resolve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli.param_types import JOB, RUN_DIR

if TYPE_CHECKING:
    from runner.api.resolve import ResolveResult

WRITTEN_OFF = "written off"


@click.command("resolve")
@click.argument("run_dir", type=RUN_DIR)
@click.argument("jobs", metavar="[JOB_OR_GLOB]...", type=JOB, nargs=-1)
@click.option("--task-id", metavar="ID", help="This task belongs to the one JOB: poll and download it.")
@click.option("--not-submitted", is_flag=True, help="There is no task: make the jobs pending again.")
@click.option("--give-up", is_flag=True, help="Write the jobs off: they become failed.")
@click.option(
    "--from",
    "tasks_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take tasks from a CSV file of job_id,task_id lines: all of them, or none.",
)
@click.option("--json", "as_json", is_flag=True, help="Write what came of it as JSON to stdout.")
def command(
    run_dir: Path,
    jobs: tuple[str, ...],
    task_id: str | None,
    not_submitted: bool,
    give_up: bool,
    tasks_file: Path | None,
    as_json: bool,
) -> int:
    """
    Settle the jobs in RUN_DIR whose submission is in doubt.

    Look in the account first: a job that was submitted and is called not submitted is paid for twice. Jobs are
    named by their ids, or by patterns as the shell matches file names (in quotes). Nothing is sent; `runner resume`
    goes on. Where one job is refused, none is settled.
    """
    from runner.api.resolve import Resolution, read_tasks, resolve_as, resolve_tasks
    from runner.core.wire import task_id_error

    chosen = [task_id is not None, not_submitted, give_up, tasks_file is not None]
    if sum(chosen) != 1:
        raise click.UsageError("Say one of --task-id ID, --not-submitted, --give-up and --from FILE.")
    if tasks_file is not None:
        if jobs:
            raise click.UsageError("--from FILE names the jobs itself.")
        return _show(
            resolve_tasks(run_dir, read_tasks(tasks_file)), run_dir, "given their tasks", as_json=as_json
        )
    if task_id is not None:
        if len(jobs) != 1:
            raise click.UsageError("--task-id belongs to one JOB; --from FILE takes many.")
        if why := task_id_error(task_id):
            raise click.UsageError(f"--task-id: {why}.")
        return _show(resolve_tasks(run_dir, {jobs[0]: task_id}), run_dir, "given its task", as_json=as_json)
    if not jobs:
        raise click.UsageError("Name the jobs, or a pattern such as 'grass-*'.")
    verdict = Resolution.NOT_SUBMITTED if not_submitted else Resolution.GIVE_UP
    done = "pending again" if not_submitted else WRITTEN_OFF
    return _show(resolve_as(run_dir, jobs, verdict), run_dir, done, as_json=as_json)


def _show(resolved: ResolveResult, run_dir: Path, done: str, *, as_json: bool) -> int:
    from runner.cli.console import echo_stderr, echo_stdout, shell
    from runner.core.sanitize import sanitize_line

    if as_json:
        import json

        refused = [{"job_id": refusal.name, "why": refusal.why} for refusal in resolved.refused]
        echo_stdout(
            json.dumps({"settled": resolved.resolved, "refused": refused, "uncertain": resolved.left})
        )
    for refusal in resolved.refused:
        echo_stderr(sanitize_line(f"{refusal.name} {refusal.why}", max_chars=300), style="red")
    left = f"{resolved.left:,} still in doubt" if resolved.left else "none in doubt any more"
    if resolved.refused:
        count = len(resolved.refused)
        echo_stderr(f"{count:,} refused, so nothing was settled; {left}")
        return 2
    echo_stderr(f"{len(resolved.resolved):,} {done}; {left}")
    if done != WRITTEN_OFF:
        echo_stderr(f"go on with: {shell('runner', 'resume', run_dir)}")
    return 0
