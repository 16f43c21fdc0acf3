"""`runner run`, `runner resume` and `runner prepare`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.api.options import DEFAULT_OPTIONS, RunOptions, read_shard
from runner.cli.console import echo_stderr, show_warning, shown_if_slow
from runner.cli.main import InSections
from runner.cli.param_types import MANIFEST, RUN_DIR, VARIABLE, parsed_by, with_options
from runner.cli.shared_options import (
    ADOPT_RESULTS,
    ASSETS,
    BOUNDS,
    JOB,
    NEW_AND_CATCH_UP,
    PACING,
    PER_SHARD,
    REAL_TIME,
    RETRY_FAILED,
    SAMPLE,
    SCENARIO,
    SHARD,
    SIMULATE,
    TRUST,
    VERIFY,
    WATCHING,
    WHERE,
    or_newest_run,
    pop_display_options,
)
from runner.core.model import OnChanged
from runner.core.sanitize import command_text
from runner.core.units import format_count

if TYPE_CHECKING:
    from runner.api.run_result import Callbacks, RunResult
    from runner.cli.run_session import StartRun


@click.command("run", cls=InSections)
@click.argument("manifest", type=MANIFEST)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=RUN_DIR,
    help="Run directory; by default output/NAME, with the name of the manifest. ${date} becomes the date in UTC.",
)
@with_options(SIMULATE, REAL_TIME, SCENARIO, JOB, WHERE, SAMPLE, RETRY_FAILED)
@click.option("--skip-invalid", is_flag=True, help="Record invalid jobs as failed, and run the others.")
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@click.option(
    "--on-changed",
    type=click.Choice(list(map(str, OnChanged))),
    default=DEFAULT_OPTIONS.on_changed.value,
    show_default=True,
    callback=parsed_by(OnChanged),
    help="What to do with jobs whose request has changed since they ran: stop with an error, keep their results, or "
    "submit (and pay for) the new request.",
)
@VARIABLE
@click.option(
    "--keep-runs",
    metavar="N",
    type=click.IntRange(min=1),
    help="If the name or -o contains ${date}: at the end, delete all but the newest N runs, except runs with "
    "unfinished or uncertain jobs.",
)
@click.option(
    "--keep-days",
    metavar="N",
    type=click.IntRange(min=0),
    help="Like --keep-runs, but delete all but the runs of the last N days.",
)
@click.option(
    "--shard",
    metavar="I/N|auto",
    callback=parsed_by(read_shard),
    help="Run only this share of the jobs, in a directory of its own and with its part of the limits: I from 0 to N - 1, or auto, "
    "from the variables of Kubernetes, Slurm, Cloud Run, AWS Batch or SkyPilot. N never changes.",
)
@click.option(
    "--journal",
    metavar="URL",
    help="Keep every step of the run in a store as well, so that it outlives this machine: s3://, gs:// or az://BUCKET/PREFIX, "
    "or file:///FOLDER on a shared disk.",
)
@with_options(ASSETS, PER_SHARD)
@click.option(
    "--engine",
    type=click.Choice(["ray"]),
    help="Work on all shards of the run at once on the machines of a Ray cluster, with one rate, one budget and one breaker.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --engine: how many shards are at work at once.",
)
@click.option(
    "--shards",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --engine: how many shards the run has, which never changes; by default as many as workers.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="With --engine: an existing cluster, such as auto; by default one of this machine alone, on loopback.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, as `plan` does, and do nothing.")
@with_options(BOUNDS, NEW_AND_CATCH_UP, ADOPT_RESULTS, PACING, WATCHING)
def run_command(
    manifest: Path,
    output: Path | None,
    dry_run: bool,
    engine: str | None,
    workers: int | None,
    shards: int | None,
    ray_address: str | None,
    **values: Any,
) -> int:
    """
    Run the jobs of MANIFEST, which may be a batch file of JSON lines: submit them and download the videos.

    The same command continues a run that was stopped, and does nothing if all jobs have succeeded. Press Ctrl-C
    once to finish open requests and downloads, or twice to stop now; nothing is lost either way.
    """
    display_options = pop_display_options(values)
    if not values["simulate"] and (values["scenario"] is not None or values["real_time"]):
        raise click.UsageError("--scenario and --real-time need --simulate.")
    if (engine is None) != (workers is None) or (engine is None and (shards or ray_address)):
        raise click.UsageError("--engine ray needs --workers; --shards and --ray-address need --engine ray.")
    options = RunOptions(**values)
    if dry_run:
        from runner.cli.cost_commands import show_plan

        as_json, is_verbose = display_options.as_json, display_options.verbose
        show_plan(manifest, output, options, show=0, as_json=as_json, is_verbose=is_verbose)
        return 0
    from runner.api.run import run
    from runner.cli.run_session import run_and_report

    start: StartRun = partial(run, manifest, output=output, options=options)
    if workers is not None:
        from runner.scale.driver import RayPlan, run_on_ray

        plan = RayPlan(workers=workers, shards=shards, address=ray_address, folder=output)
        start = partial(run_on_ray, manifest, plan=plan, options=options)
    return run_and_report(start, options, display_options, title=manifest.name)


@click.command("resume", cls=InSections)
@click.argument("run_dirs", metavar="[RUN_DIR]...", type=RUN_DIR, nargs=-1, callback=or_newest_run)
@with_options(
    SHARD,
    JOB,
    WHERE,
    SAMPLE,
    RETRY_FAILED,
    VERIFY,
    ASSETS,
    TRUST,
    BOUNDS,
    ADOPT_RESULTS,
    PACING,
    SCENARIO,
    WATCHING,
)
def resume_command(run_dirs: tuple[Path, ...], **values: Any) -> int:
    """
    Continue the run in RUN_DIR without its manifest; or those in several directories, one after the other.

    Without RUN_DIR it is the newest run. Pending jobs are submitted, submitted jobs are polled and downloaded, and no job is submitted twice. A
    simulated run stays simulated. The settings are those of the last run, unless options here override them.
    """
    from runner.api.run import resume
    from runner.cli.run_session import run_and_report, run_each_and_report

    display_options = pop_display_options(values)
    options = RunOptions(**values)
    started_at = time.monotonic()

    async def start(run_dir: Path, callbacks: Callbacks) -> RunResult:
        return await resume(run_dir, callbacks, options=options.after(time.monotonic() - started_at))

    if len(run_dirs) == 1:
        return run_and_report(partial(start, run_dirs[0]), options, display_options, title=run_dirs[0].name)
    if options.limit is not None or options.max_cost is not None:
        raise click.UsageError("--limit and --max-cost can't be used with several directories.")
    starts = {str(run_dir): partial(start, run_dir) for run_dir in run_dirs}
    return run_each_and_report(starts, options, display_options)


@click.command("prepare")
@click.argument("manifest", type=MANIFEST)
@click.option("--journal", metavar="URL", required=True, help="Where the journal of the run is kept.")
@click.option(
    "--shards",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many shards the run has; their number never changes.",
)
@with_options(ASSETS, PER_SHARD)
@click.option("--simulate", is_flag=True, help="For a run with a simulated gateway.")
@VARIABLE
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="File of variables to read instead of .env."
)
def prepare_command(
    manifest: Path,
    journal: str,
    shards: int,
    assets: str | None,
    keep_local: bool,
    per_shard: bool,
    simulate: bool,
    var: dict[str, str],
    env_file: Path | None,
) -> None:
    """
    Put the jobs of MANIFEST, and the local files that they name, into a journal, so that other machines need neither.

    Each machine then runs its shard with `runner resume URL --shard I/N`. Nothing is submitted here.
    """
    from runner.api.manifest_jobs import prepare

    options = RunOptions(
        simulate=simulate,
        assets=assets,
        keep_local=keep_local,
        per_shard=per_shard,
        var=var,
        env_file=env_file,
    )
    with shown_if_slow(f"checking {manifest} ..."):
        done = prepare(manifest, journal, shards, options=options, on_problem=show_warning)
    for index, jobs in enumerate(done.jobs):
        what = "has begun, and was left as it is" if jobs is None else format_count(jobs, "job")
        echo_stderr(f"shard {index}/{shards}: {what}")
    if done.files:
        echo_stderr(f"{format_count(done.files, 'local file')} in the journal")
    echo_stderr(f"start each shard with: {command_text('runner', 'resume', journal)} --shard I/{shards}")
