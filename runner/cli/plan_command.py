"""`runner plan`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.api.options import RunOptions
from runner.cli.console import echo_stderr, echo_stdout, show_warning
from runner.cli.displays import show_event
from runner.cli.param_types import MANIFEST, RUN_DIR, VARIABLE
from runner.cli.shared_options import REAL_TIME, SAMPLE, WHERE, with_options
from runner.core.prices import age_text
from runner.core.sanitize import escape_json, sanitize_line
from runner.core.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from runner.api.plan import Plan
    from runner.core.where import Condition


@click.command("plan")
@click.argument("manifest", type=MANIFEST)
@click.option("-o", "--output", metavar="DIR", type=RUN_DIR, help="Run directory, as for `run`.")
@click.option(
    "--show",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Print the first N requests as they would be sent.",
)
@click.option("--simulate", is_flag=True, help="Plan a run with the simulated gateway.")
@REAL_TIME
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show every setting and its source.")
@click.option("--base-url", metavar="URL", help="URL of the gateway; overrides the manifest.")
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="File of variables to read instead of .env."
)
@with_options(WHERE, SAMPLE)
@VARIABLE
def command(
    manifest: Path,
    output: Path | None,
    show: int,
    simulate: bool,
    real_time: bool,
    as_json: bool,
    verbose: bool,
    base_url: str | None,
    env_file: Path | None,
    var: dict[str, str],
    where: tuple[Condition, ...],
    sample: int | None,
) -> None:
    """
    Show what a run of MANIFEST would do now, and why.

    Nothing is sent and nothing is written. Safe to use while a run is active.
    """
    options = RunOptions(
        simulate=simulate,
        real_time=real_time,
        var=var,
        base_url=base_url,
        env_file=env_file,
        where=where,
        sample=sample,
    )
    show_plan(manifest, output, options, show=show, as_json=as_json, is_verbose=verbose)


def show_plan(
    manifest: Path, output: Path | None, options: RunOptions, *, show: int, as_json: bool, is_verbose: bool
) -> None:
    """Print what a run would do now."""
    from runner.api import config, plan, simulate, trust

    planned = plan.plan(
        manifest,
        output=output,
        show=show,
        options=options,
        on_problem=None if as_json else show_warning,
    )
    if as_json:
        click.echo(json.dumps(plan.plan_json(planned)))
        return
    if planned.sources["gateway.base_url"] != "manifest" and not options.simulate:
        trust.warn_unencrypted(planned.settings.base_url or "", show_event)
    settings = config.settings_lines(planned.settings, planned.sources) if is_verbose else ()
    for line in _lines(planned, settings):
        echo_stdout(line)
    if options.simulate and not options.real_time:
        echo_stdout(f"\n{simulate.speed_line(planned.settings)}")
    if planned.elsewhere:
        echo_stderr(
            f"`runner run` asks before it starts, since the manifest was run in {planned.elsewhere[-1]}"
        )
    if planned.compared.changed:
        echo_stderr("`runner run` refuses to start because of the changed jobs, unless --on-changed is given")


def _lines(planned: Plan, settings: Iterable[str]) -> Iterator[str]:
    jobs = planned.compared.jobs
    yield f"{planned.run_dir}: {format_count(jobs, 'job')}, {_run_state(planned)}"
    if settings:
        yield ""
        yield from settings
    yield ""
    yield from _groups(planned)
    if planned.settings.reroll and planned.submissions_at_most:
        takes = planned.settings.most_takes
        yield f"  up to {takes} takes of a job (reroll), so at most {planned.submissions_at_most:,} paid submissions"
    if planned.uploads is not None and planned.settings.inputs is not None:
        files, size = format_count(planned.uploads.files, "file"), format_size(planned.uploads.bytes)
        yield f"upload: {files} ({size}) to {planned.settings.inputs.upload}"
    for change in planned.compared.changes:
        yield f"  changed: {change}"
    for job in planned.first:
        yield ""
        yield f"{job.job_id}: {job.action}, {job.why} ({job.place})"
        yield escape_json(json.dumps(job.request, indent=2, ensure_ascii=False))
    yield from _cost(planned)
    yield from _time(planned)


def _run_state(planned: Plan) -> str:
    if planned.holder is not None:
        return f"a run is active ({planned.holder})"
    if all(group.action in ("skip", "done") for group in planned.groups):
        return "nothing to do"
    is_new = planned.compared.new == planned.compared.jobs and not planned.compared.gone
    return "nothing submitted yet" if is_new else "to be continued"


def _groups(planned: Plan) -> Iterator[str]:
    action = None
    for group in planned.groups:
        if group.action is not action:
            action = group.action
            yield f"{group.action}: {planned.count(group.action):,}"
        model = f"  {group.model}" if group.model else ""
        yield f"  {group.jobs:>9,}  {group.why}{model}"


def _cost(planned: Plan) -> Iterator[str]:
    cost = planned.cost
    if not cost.jobs:
        return
    yield ""
    yield "billed:"
    for units in cost.units:
        seconds = f"{units.seconds:,} s" if units.seconds else ""
        chosen = f"{units.open_ended:,} of a length that the model chooses" if units.open_ended else ""
        parts = ", ".join(filter(None, (format_count(units.clips, "clip"), seconds, chosen)))
        yield f"  {units.model}{f' in {units.size}' if units.size else ''}: {parts}"
    for each in cost.sums:
        yield f"cost: {'at most ' if each.expected == each.highest else ''}{each} for {format_count(each.jobs, 'job')}"
    for why, jobs in cost.unknown.items():
        yield f"unknown cost: {format_count(jobs, 'job')}; {sanitize_line(why, max_chars=200)}"
    for table in planned.tables:
        source = sanitize_line(table.source or "a table without a source", max_chars=200)
        yield f"  prices from {source}, {age_text(table.age_days(planned.today))}"
    for budget in planned.budgets:
        most = sum(each.highest for each in cost.sums if each.currency == budget.limit.currency)
        enough = "" if most <= budget.left.amount else ", not enough for all jobs: the run stops early"
        yield f"{budget}{enough}"
    if (canary := planned.settings.canary) is not None:
        yield f"canary: {format_count(canary.jobs, 'job')} first; the others once {canary.succeed} of them have a video"


def _time(planned: Plan) -> Iterator[str]:
    if not planned.estimate.limited_by:
        return
    yield ""
    time = format_duration(planned.estimate.seconds)
    about = "" if planned.estimate.is_known else "at least "
    yield f"estimated time: {about}{time}, limited by {planned.estimate.limited_by}"
    if not planned.estimate.is_known:
        yield "  no job of this run has finished yet, so only the limits are considered"
    for model, mean_generate_s in planned.mean_generate_s.items():
        yield f"  {model}: {format_duration(mean_generate_s)} per video so far"
