"""`runner export`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from runner.cli.console import echo_stderr
from runner.cli.param_types import RUN_DIR
from runner.cli.shared_options import WHERE
from runner.core.lifecycle import State
from runner.core.summary import takes_text
from runner.core.units import format_count, format_size
from runner.core.where import Condition
from runner.errors import UsageError
from runner.export.columns import COLUMNS
from runner.export.selection import ExportOptions, Format
from runner.schema.wording import did_you_mean

_FORMATS = ("videofolder", "webdataset", "parquet")
_SHOW_EVERY_S = 10.0


@click.command("export")
@click.argument("runs", metavar="RUN...", type=RUN_DIR, nargs=-1, required=True)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "dataset_format",
    type=click.Choice(_FORMATS),
    required=True,
    help="Files of videos with their metadata, tar shards, or Parquet files that hold the videos.",
)
@WHERE
@click.option(
    "--verdict",
    type=click.Choice(("keep", "reject")),
    help="Only jobs with this verdict, in verdicts.jsonl or else by checks.",
)
@click.option(
    "--split", metavar="metadata.KEY", help="Divide into splits by this value. [default: all in train]"
)
@click.option("--columns", metavar="NAME,...", help="Only these columns beside the video. [default: all]")
@click.option(
    "--captions",
    type=click.Choice(("txt",)),
    help="Write each caption (metadata.caption, or the prompt) to a text file beside its video.",
)
@click.option(
    "--link",
    type=click.Choice(("copy", "hard")),
    help="Copy the videos of a videofolder, or link to the files of the run. [default: copy]",
)
def command(
    runs: tuple[Path, ...],
    out: Path,
    dataset_format: str,
    where: tuple[Condition, ...],
    verdict: str | None,
    split: str | None,
    columns: str | None,
    captions: str | None,
    link: str | None,
) -> None:
    """
    Make a dataset in the directory OUT from the succeeded jobs of RUN.

    RUN is a run directory, a results file with its assets beside it, or the URL of a bucket that has what a run directory
    has; it may be active. Several are one dataset. Every video is checked against its digest. OUT is there when all of it
    is, and not before. The same command continues an export that was interrupted.
    """
    from runner.api.export import export

    if link is not None and dataset_format != "videofolder":
        raise UsageError(f"--link is for videofolder; {dataset_format} holds the videos in its own files")
    if captions is not None and dataset_format == "parquet":
        raise UsageError("--captions is for files beside videos; the captions of parquet are a column")
    options = ExportOptions(
        format=Format(dataset_format),
        split=split,
        where=where,
        verdict=verdict,
        columns=None if columns is None else _parse_columns(columns),
        use_links=link == "hard",
        captions=captions is not None,
    )
    progress = Progress(is_terminal=sys.stderr.isatty())
    try:
        plan, warnings = export(runs, options, out, progress)
    except KeyboardInterrupt:
        progress.end()
        echo_stderr("interrupted: the same command continues the export")
        raise
    progress.end()
    for warning in warnings:
        echo_stderr(f"warning: {warning}")
    summary = plan.summary
    unfinished = summary.jobs - summary.by_state[State.SUCCEEDED]
    if unfinished:
        echo_stderr(
            f"note: {format_count(unfinished, 'job')} of {summary.jobs:,} did not succeed, and {'is' if unfinished == 1 else 'are'} left out"
        )
    if summary.awaiting_take:
        echo_stderr(f"note: {takes_text(summary.awaiting_take)}; `runner resume` makes the takes")
    videos = format_count(plan.rows, "video")
    parts = ", ".join(f"{name} {size.rows:,}" for name, size in plan.splits.items())
    echo_stderr(f"wrote {out}: {videos}, {format_size(plan.bytes)} ({parts})")


def _parse_columns(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in COLUMNS:
            raise UsageError(
                f"--columns names {name!r}, which is no column",
                hint=did_you_mean(name, COLUMNS) or f"the columns are {', '.join(COLUMNS)}",
            )
    return names


class Progress:
    """
    Shows how far an export is: every second in one line of a terminal, else every ten seconds in a line of a log.

    Args:
        clock: Returns seconds, from any start.
    """

    def __init__(self, *, is_terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_terminal = is_terminal
        self._clock = clock
        self._shown_at = clock()
        self._has_line = False

    def __call__(self, done: int, total: int) -> None:
        """Show the number of videos that are in the dataset, or of jobs that were read, if it is time."""
        now = self._clock()
        if now - self._shown_at < (1.0 if self._is_terminal else _SHOW_EVERY_S):
            return
        self._shown_at = now
        text = f"read {format_count(done, 'job')}"
        if total:
            text = f"exported {done:,} of {format_count(total, 'video')} ({done * 100 // total}%)"
        click.echo(f"\r{text:<60}" if self._is_terminal else text, err=True, nl=not self._is_terminal)
        self._has_line = self._is_terminal

    def end(self) -> None:
        """End the line of a terminal, so that what follows has its own."""
        if self._has_line:
            click.echo("", err=True)
