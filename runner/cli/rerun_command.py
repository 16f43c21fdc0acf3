"""`runner rerun`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.options import (
    BOUNDS,
    JOB,
    PACING,
    SCENARIO,
    SIMULATE,
    WATCHING,
    pop_display_options,
    run_options,
    with_options,
)
from runner.cli.param_types import CLASS, RUN_DIR, STATE
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.engine.events import Notice, Observer

if TYPE_CHECKING:
    from runner.api.execute import RunResult
    from runner.api.options import RunOptions
    from runner.api.rerun_from_results import RerunSource
    from runner.cli.options import DisplayOptions
    from runner.cli.run_session import RunObserver
    from runner.store.transitions import RerunPlan, Selection


@click.command("rerun")
@click.argument("what", metavar="RUN_DIR_OR_RESULTS", type=RUN_DIR)
@click.option("--status", "states", type=STATE, multiple=True, help="Only jobs in this state. Repeatable.")
@click.option(
    "--class",
    "classes",
    type=CLASS,
    multiple=True,
    help="Only jobs that failed like this; also such as are else left alone. Repeatable.",
)
@with_options(JOB)
@click.option(
    "-o", "--output", metavar="DIR", type=RUN_DIR, help="The directory of a run that begins from results."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@with_options(SIMULATE, SCENARIO, BOUNDS, PACING, WATCHING)
def command(
    what: Path,
    states: tuple[str, ...],
    classes: tuple[str, ...],
    output: Path | None,
    dry_run: bool,
    **values: Any,
) -> int:
    """
    Run again what did not succeed in RUN_DIR_OR_RESULTS.

    What is undelivered is downloaded again and what timed out is polled again, free of charge; what failed or is
    pending is submitted, as a new, paid attempt. Left alone, unless --class names them: lost jobs, and those that
    moderation or the API's checks refused. Jobs in doubt wait for `runner resolve`.

    From a results file alone, a new run directory is begun that remembers the tasks of the old one.
    """
    from runner.api.rerun_from_results import open_source, run_dir_of
    from runner.api.run_dir import require_run
    from runner.errors import UsageError

    wishes, job = pop_display_options(values), values.pop("job")
    options = run_options(values)
    selection = _selection(states, classes, job)
    run_dir = None if output is not None and what.is_file() else run_dir_of(what)
    if run_dir is not None:
        if output is not None:
            require_run(run_dir)
            raise UsageError(
                f"{what} is rerun where it is, and -o names another directory",
                hint=f"leave -o out, or begin a new run from its results: {what}/results.jsonl -o {output}",
            )
        return _in_place(run_dir, selection, options, wishes, dry_run=dry_run)
    return _from_results(open_source(what, output, options), selection, options, wishes, dry_run=dry_run)


def _selection(states: tuple[str, ...], classes: tuple[str, ...], job: str | None) -> Selection:
    from runner.errors import UsageError
    from runner.store.transitions import Selection, rerunnable_states

    chosen = frozenset(State(state) for state in states)
    if other := chosen - rerunnable_states():
        hint = "runner resolve settles jobs in doubt" if State.UNCERTAIN in other else None
        raise UsageError(
            f"no rerun takes up jobs that are {sorted(other)[0]}; --status takes {', '.join(sorted(rerunnable_states()))}",
            hint=hint,
        )
    return Selection(chosen, frozenset(FailureClass(cls) for cls in classes), job)


def _in_place(
    run_dir: Path, selection: Selection, options: RunOptions, wishes: DisplayOptions, *, dry_run: bool
) -> int:
    from runner.api.rerun import plan_rerun, rerun

    if dry_run:
        return _show(plan_rerun(run_dir, selection), run_dir, wishes)
    return _carry_out(partial(rerun, run_dir, selection), run_dir, options, wishes)


def _from_results(
    beginning: RerunSource,
    selection: Selection,
    options: RunOptions,
    wishes: DisplayOptions,
    *,
    dry_run: bool,
) -> int:
    import asyncio

    from runner.api.rerun_from_results import plan_results, rerun_results
    from runner.cli.console import echo_stderr, event_line

    run_dir = beginning.run_dir
    if dry_run:
        plan = asyncio.run(plan_results(beginning, selection, lambda event: echo_stderr(event_line(event))))
        return _show(plan, run_dir, wishes)
    return _carry_out(partial(rerun_results, beginning, selection), run_dir, options, wishes)


def _carry_out(
    rerun: Callable[..., Coroutine[Any, Any, RunResult]],
    run_dir: Path,
    options: RunOptions,
    wishes: DisplayOptions,
) -> int:
    from runner.cli.run_session import run_and_report

    def work(watch: RunObserver) -> Coroutine[Any, Any, RunResult]:
        return rerun(
            options=options,
            confirm=_teller(run_dir, watch.event),
            observe=watch.event,
            on_started=watch.started,
        )

    return run_and_report(work, options, wishes, title=run_dir.name)


def _teller(run_dir: Path, observe: Observer) -> Callable[[RerunPlan], None]:
    def tell(plan: RerunPlan) -> None:
        for line in plan_lines(plan, run_dir):
            observe(Notice("plan", line))

    return tell


def _show(plan: RerunPlan, run_dir: Path, wishes: DisplayOptions) -> int:
    from runner import jsontext
    from runner.cli.console import echo_stdout

    if wishes.as_json:
        values = {
            "to_submit": plan.to_submit,
            "to_poll": plan.to_poll,
            "to_download": plan.to_download,
            "left_alone": plan.left_alone or {},
        }
        echo_stdout(jsontext.dumps(values).decode())
        return 0
    for line in plan_lines(plan, run_dir):
        echo_stdout(line)
    return 0


def plan_lines(plan: RerunPlan, run_dir: Path) -> Iterator[str]:
    """
    Say what a rerun does, and what it leaves alone and why.

    >>> from runner.store.transitions import RerunPlan
    >>> for line in plan_lines(RerunPlan(12, 1, 0, {"moderation": 2}), Path("output/kittens")):
    ...     print(line)
    rerun of output/kittens: 13 jobs
    submit 12 again: new attempts, which are paid for
    poll 1 again: free
    leave 2 alone: moderation, would be refused again (--class moderation submits them anyway)
    """
    total = plan.to_submit + plan.to_poll + plan.to_download
    yield (
        f"rerun of {run_dir}: {total:,} {'job' if total == 1 else 'jobs'}"
        if total
        else f"{run_dir}: nothing to rerun"
    )
    if plan.to_submit:
        yield f"submit {plan.to_submit:,} again: new attempts, which are paid for"
    if plan.to_poll:
        yield f"poll {plan.to_poll:,} again: free"
    if plan.to_download:
        yield f"download {plan.to_download:,} again: free"
    for cls, count in (plan.left_alone or {}).items():
        yield f"leave {count:,} alone: {cls}{_WHY.get(cls, ', not selected')}"


_REFUSED = ", would be refused again (--class {} submits them anyway)"
_WHY: Mapping[str, str] = {
    FailureClass.UNCERTAIN_SUBMIT: ", may be paid for already: runner resolve settles them",
    FailureClass.LOST: ", may be paid for already (--class lost submits them anyway)",
    FailureClass.MODERATION: _REFUSED.format(FailureClass.MODERATION),
    FailureClass.INVALID_REQUEST: _REFUSED.format(FailureClass.INVALID_REQUEST),
}
