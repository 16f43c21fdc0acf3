"""`runner rerun` and `runner merge`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from runner.api.options import RunOptions
from runner.cli.console import echo_stderr, echo_stdout
from runner.cli.displays import show_event
from runner.cli.main import InSections
from runner.cli.param_types import RUN_DIR, with_options
from runner.cli.shared_options import (
    ASSETS,
    BOUNDS,
    CLASS,
    JOB,
    PACING,
    REAL_TIME,
    SAMPLE,
    SCENARIO,
    SIMULATE,
    STATUS,
    TRUST,
    WATCHING,
    WHERE,
    local_run,
    pop_display_options,
)
from runner.core.filenames import FAILED_NAME, REPORT_NAME, RESULTS_NAME, SUMMARY_NAME
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.sanitize import command_text
from runner.core.units import format_count
from runner.engine.events import Notice
from runner.errors import UsageError
from runner.jsontext import dumps
from runner.store.transitions import RerunPlan, Selection, rerunnable_states

if TYPE_CHECKING:
    from runner.api.run_result import Callbacks, RunResult
    from runner.cli.shared_options import DisplayOptions


@click.command("rerun", cls=InSections)
@click.argument("source", metavar="RUN_DIR_OR_RESULTS", type=RUN_DIR)
@with_options(STATUS, CLASS)
@click.option(
    "--verdict",
    type=click.Choice(("reject",)),
    help="Only jobs that succeeded and were rejected, in verdicts.jsonl or by checks: a new take of each is paid for, "
    "and the old one is kept beside it.",
)
@click.option("--new-seed", is_flag=True, help="With --verdict: give requests that name a seed another one.")
@with_options(JOB, WHERE, SAMPLE)
@click.option(
    "-o", "--output", metavar="DIR", type=RUN_DIR, help="Run directory for a rerun from a results file."
)
@click.option(
    "--into",
    "home",
    metavar="RUN_DIR",
    type=RUN_DIR,
    help="Bring the results of a rerun elsewhere home to the run that it began from: unite the attempts, and copy the "
    "files. Nothing is sent.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@with_options(SIMULATE, REAL_TIME, SCENARIO, ASSETS, TRUST, BOUNDS, PACING, WATCHING)
@click.pass_context
def rerun_command(
    ctx: click.Context,
    /,
    source: Path,
    states: tuple[str, ...],
    classes: tuple[str, ...],
    verdict: str | None,
    new_seed: bool,
    output: Path | None,
    home: Path | None,
    dry_run: bool,
    **values: Any,
) -> int:
    """
    Rerun the jobs in RUN_DIR_OR_RESULTS that did not succeed.

    Undelivered videos are downloaded, and timed-out and lost tasks are polled again, free of charge. Failed and
    pending jobs are submitted, and every submission is paid for. Jobs whose tasks are still lost, and those that
    were refused by moderation or as invalid, are skipped unless --class names them. Uncertain jobs need
    `runner resolve`.

    With a results file, a new run directory is created that knows the tasks of the old run.
    """
    # Which shard of a journal it is depends on the job.
    source = local_run(ctx, None, source)
    require_results(source)
    if home is not None:
        return _merge_rerun(source, home)
    display_options, job = pop_display_options(values), values.pop("job")
    options = RunOptions(**values)
    if verdict is not None:
        if states or classes or output is not None or source.is_file():
            raise UsageError(
                "--verdict chooses among the jobs of a run directory that succeeded",
                hint="name the run directory, without --status, --class and -o",
            )
        work = _new_takes(source, job, options, new_seed=new_seed)
    elif new_seed:
        raise UsageError("--new-seed is for jobs that --verdict reject chooses", hint="add --verdict reject")
    else:
        work = _unsuccessful(source, _selection(states, classes, job), output, options)
    if dry_run:
        return _show(work.plan(), work.run_dir, display_options)
    return _run(work, options, display_options)


class _Work(NamedTuple):
    """
    What a rerun does.

    Attributes:
        plan: Returns what would be done.
        start: Does it, as `runner.api.rerun.rerun` with the run directory and the selection.
    """

    run_dir: Path
    plan: Callable[[], RerunPlan]
    start: Callable[..., Coroutine[Any, Any, RunResult]]


def _new_takes(run_dir: Path, job: str | None, options: RunOptions, *, new_seed: bool) -> _Work:
    from runner.api.rerun import plan_retake, retake

    return _Work(
        run_dir, lambda: plan_retake(run_dir, job, options), partial(retake, run_dir, job, new_seed=new_seed)
    )


def _unsuccessful(source: Path, selection: Selection, output: Path | None, options: RunOptions) -> _Work:
    """Return the rerun of a run directory in place, or of results in a directory of their own."""
    from runner.api import config, rerun, rerun_from_results, run_dir, run_facts

    def announce(where: Path, gateway: str, gateway_source: str | None) -> None:
        show_event(run_facts.run_dir_notice(where))
        config.announce_gateway(gateway, gateway_source, show_event, where=str(source))

    old = None if output is not None and source.is_file() else rerun_from_results.run_dir_of(source)
    if old is None:
        results = rerun_from_results.open_source(source, output, options)

        def plan_results() -> RerunPlan:
            announce(results.run_dir, results.gateway, results.gateway_source)
            planned = rerun_from_results.plan_results(results, selection, show_event, options)
            return asyncio.run(planned)

        start = partial(rerun_from_results.rerun_results, results, selection)
        return _Work(results.run_dir, plan_results, start)
    if output is not None:
        run_dir.require_run(old)
        raise UsageError(
            f"a run directory is rerun in place, so -o can't be used with {source}",
            hint=f"leave out -o, or start a new run from the results: {command_text('runner', 'rerun', old / RESULTS_NAME, '-o', output)}",
        )

    def plan() -> RerunPlan:
        announce(old, *run_dir.planned_gateway(old, options))
        return rerun.plan_rerun(old, selection, options)

    return _Work(old, plan, partial(rerun.rerun, old, selection))


def require_results(source: Path) -> None:
    """
    Check that a path may be a run directory or its results, and not another file of a run.

    Raises:
        UsageError: It is another one; the hint has the right one.
    """
    results = source.with_name(RESULTS_NAME)
    if source.name in (REPORT_NAME, SUMMARY_NAME) or source.suffix in (".html", ".xml"):
        raise UsageError(
            f"{source} is a report", hint=f"rerun its results: {command_text('runner', 'rerun', results)}"
        )
    if source.name == FAILED_NAME or source.suffix in (".yaml", ".yml"):
        raise UsageError(
            f"{source} is a manifest",
            hint=f"run it: {command_text('runner', 'run', source)}; or rerun the results beside it: "
            f"{command_text('runner', 'rerun', results)}",
        )


def _merge_rerun(source: Path, home: Path) -> int:
    from runner.api import merge_rerun, run_dir

    merged = merge_rerun.merge_rerun(source / RESULTS_NAME if source.is_dir() else source, home)
    for line in merge_rerun.merged_lines(merged, home):
        echo_stdout(line)
    if merged.missing:
        resume = command_text("runner", "resume", home, *run_dir.continue_options(home))
        echo_stderr(f"continue with: {resume}")
    return 0


def _selection(states: tuple[str, ...], classes: tuple[str, ...], job: str | None) -> Selection:
    selected = frozenset(State(state) for state in states)
    if other := selected - rerunnable_states():
        raise UsageError(
            f"jobs that are {min(other).label} can't be rerun; --status takes {', '.join(sorted(rerunnable_states()))}",
            hint="resolve uncertain jobs with: runner resolve DIR" if State.UNCERTAIN in other else None,
        )
    return Selection(selected, frozenset(FailureClass(cls) for cls in classes), job)


def _run(work: _Work, options: RunOptions, display_options: DisplayOptions) -> int:
    from runner.cli.run_session import run_and_report

    def start(callbacks: Callbacks) -> Coroutine[Any, Any, RunResult]:
        def show_plan(plan: RerunPlan) -> None:
            for line in plan_lines(plan, work.run_dir):
                callbacks.observe(Notice("plan", line))

        return work.start(options=options, confirm=show_plan, callbacks=callbacks)

    return run_and_report(start, options, display_options, title=work.run_dir.name)


def _show(plan: RerunPlan, run_dir: Path, display_options: DisplayOptions) -> int:
    if display_options.as_json:
        values = {
            "to_submit": plan.to_submit,
            "to_poll": plan.to_poll,
            "to_download": plan.to_download,
            "left_alone": plan.left_alone or {},
        }
        echo_stdout(dumps(values).decode())
        return 0
    for line in plan_lines(plan, run_dir):
        echo_stdout(line)
    return 0


def plan_lines(plan: RerunPlan, run_dir: Path) -> Iterator[str]:
    """
    Describe what a rerun does, and which jobs it skips and why.

    >>> from runner.store.transitions import RerunPlan
    >>> for line in plan_lines(RerunPlan(12, 1, 0, {"moderation": 2}), Path("output/kittens")):
    ...     print(line)
    rerun of output/kittens: 13 jobs
    submit 12: new, paid attempts
    poll 1: free of charge
    skip 2 moderation: would be refused again; to submit them anyway, add --class moderation
    """
    total = plan.to_submit + plan.to_poll + plan.to_download
    yield f"rerun of {run_dir}: {format_count(total, 'job')}" if total else f"{run_dir}: nothing to rerun"
    if plan.to_submit:
        most = f", at most {plan.cost}" if plan.cost is not None and plan.cost.sums else ""
        yield f"submit {plan.to_submit:,}: new, paid attempts{most}"
    if plan.to_poll:
        yield f"poll {plan.to_poll:,}: free of charge"
    if plan.to_download:
        yield f"download {plan.to_download:,}: free of charge"
    for cls, count in (plan.left_alone or {}).items():
        if cls == FailureClass.UNCERTAIN_SUBMIT and plan.given_up:
            yield f"skip {plan.given_up:,} {cls}: given up, and may be paid for; {_SUBMIT_ANYWAY} {cls}"
            count -= plan.given_up
        if count:
            yield f"skip {count:,} {cls}: {_SKIP_REASONS.get(cls, 'not selected')}"


_SUBMIT_ANYWAY = "to submit them anyway, add --class"
_SKIP_REASONS: Mapping[str, str] = {
    FailureClass.UNCERTAIN_SUBMIT: "may be paid for; resolve them with `runner resolve`",
    FailureClass.LOST: f"may be paid for; {_SUBMIT_ANYWAY} {FailureClass.LOST}",
    FailureClass.MODERATION: f"would be refused again; {_SUBMIT_ANYWAY} {FailureClass.MODERATION}",
    FailureClass.INVALID_REQUEST: f"would be refused again; {_SUBMIT_ANYWAY} {FailureClass.INVALID_REQUEST}",
}


@click.command("merge")
@click.argument("out", type=RUN_DIR)
@click.argument("run_dirs", metavar="(DIR...|URL)", type=RUN_DIR, nargs=-1, required=True)
@click.option("--partial", is_flag=True, help="Merge what there is, even if shards are missing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def merge_command(out: Path, run_dirs: tuple[Path, ...], partial: bool, as_json: bool) -> int:
    """
    Make the run directory OUT of the directories of all shards of a run, or of what is in its journal at URL.

    OUT is a run like any other, and continues what the shards left. From then on the shards themselves can't be run any more.
    Videos get a second name by hard links where that is possible, else they are copied. Nothing is sent.
    """
    from runner.api import merge, run_dir
    from runner.cli.journal_argument import merge_sources

    with merge_sources(run_dirs) as sources:
        merged = merge.merge(out, sources, is_partial=partial, on_progress=echo_stderr)
    for path in merged.lost_files[:10]:
        echo_stderr(f"missing in its shard: {path}", style="yellow")
    if merged.lost_files:
        count = format_count(len(merged.lost_files), "file")
        verify = command_text("runner", "resume", out, "--verify", *run_dir.continue_options(out))
        echo_stderr(f"{count} missing: download again with {verify}", style="yellow")
    echo_stderr(f"merged {format_count(merged.summary.jobs, 'job')} into {out}/")
    if as_json:
        echo_stdout(json.dumps(merge.merge_summary(merged)))
    return 0
