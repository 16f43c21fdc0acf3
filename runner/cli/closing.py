"""What is left to do once a run has ended: show it, write it where it is asked for, and tell whom it concerns."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.conduct import Begin, conduct
from runner.cli.console import data, say
from runner.cli.ending import show_ending
from runner.cli.signals import Interrupted
from runner.errors import RunLocked, RunnerError

if TYPE_CHECKING:
    from runner.api.work import Outcome
    from runner.cli.options import Wishes


def carry_out(begin: Begin, wishes: Wishes, *, title: str, scenario: str | None) -> int:
    """Conduct a run, do what is left to do after it, and return the exit code."""
    try:
        outcome = conduct(begin, wishes, title)
    except RunLocked as error:
        if not wishes.skip_locked:
            raise
        say(f"{error.message}; left alone")
        return 0
    except Interrupted as interrupted:
        say("interrupted before any job was taken up; nothing was sent")
        return interrupted.exit_code
    return close(outcome, wishes, scenario=scenario)


def close(outcome: Outcome, wishes: Wishes, *, scenario: str | None = None) -> int:
    """Show how a run ended, write what was asked for, and return the exit code."""
    # A terminal that is gone must not change how the run ended.
    with contextlib.suppress(OSError):
        show_ending(outcome, scenario=scenario, quiet=wishes.quiet)
        _tell_of_others(outcome, quiet=wishes.quiet)
    if wishes.metrics_file is not None:
        _write_metrics(outcome, wishes.metrics_file)
    if wishes.as_json:
        _print_summary(outcome)
    return outcome.exit_code


def _write_metrics(outcome: Outcome, path: Path) -> None:
    from runner.api.work import summary_of
    from runner.report.prometheus import write_metrics

    summary = outcome.summary or summary_of(outcome.run_dir)
    try:
        write_metrics(path, summary, run=outcome.name, exit_code=outcome.exit_code, now_at=time.time())
    except (OSError, RunnerError) as error:
        # The run itself is what it is, whether or not somebody can count it.
        say(f"the metrics could not be written to {path}: {error}", style="yellow")


def _print_summary(outcome: Outcome) -> None:
    from runner import jsontext
    from runner.api.work import outcome_json

    data(jsontext.dumps(outcome_json(outcome)).decode())


def _tell_of_others(outcome: Outcome, *, quiet: bool) -> None:
    """Say what became of older runs, and what went wrong with telling of this one."""
    for trouble in outcome.troubles:
        say(f"not told of the end: {trouble}", style="yellow")
    if outcome.tidied is None:
        return
    for kept in outcome.tidied.kept:
        say(f"kept {kept.run_dir}: {kept.why}", style="yellow")
    if not quiet:
        for run_dir in outcome.tidied.deleted:
            say(f"deleted {run_dir}")
