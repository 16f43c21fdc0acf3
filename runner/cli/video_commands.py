"""`runner report`, `runner review`, `runner check-media` and `runner export`."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli.console import echo_stderr, echo_stdout, open_in_browser, serve_until_signal, shown_if_slow
from runner.cli.displays import show_event
from runner.cli.param_types import RUN_DIR
from runner.cli.shared_options import PORT, RUN_OR_NEWEST, WHERE, as_given
from runner.core.filenames import VERDICTS_NAME
from runner.core.lifecycle import State
from runner.core.sanitize import command_text
from runner.core.summary import takes_text
from runner.core.units import format_count, format_size
from runner.core.where import Condition
from runner.errors import UsageError
from runner.export.columns import COLUMNS
from runner.export.selection import ExportOptions, Format
from runner.jsontext import dumps
from runner.schema.wording import did_you_mean

if TYPE_CHECKING:
    from runner.api.video_checks import CheckResult


_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("report")
@RUN_OR_NEWEST
@click.option("--html", is_flag=True, help="Regenerate report.html; the default if no option is given.")
@click.option("--open", "is_opened", is_flag=True, help="Regenerate report.html, and open it in a browser.")
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    type=_FILE,
    help="Write a flat table to FILE, with a column for each key of metadata and requests.",
)
@click.option("--junit", metavar="FILE", type=_FILE, help="Write JUnit XML to FILE.")
@click.option(
    "--github",
    is_flag=True,
    help="Append Markdown to the file $GITHUB_STEP_SUMMARY, or print it if that is not set.",
)
@click.option(
    "--openai", metavar="FILE", type=_FILE, help="Write JSON lines like the OpenAI batch API to FILE."
)
def report_command(
    run_dir: Path,
    html: bool,
    is_opened: bool,
    csv_file: Path | None,
    junit: Path | None,
    github: bool,
    openai: Path | None,
) -> None:
    """
    Regenerate the report of the run in RUN_DIR, or export it, even while the run is active.

    Without RUN_DIR it is the newest run.
    """
    from runner.api import report

    with shown_if_slow(f"reading {as_given(run_dir)} ..."):
        if html or is_opened or not (csv_file or junit or github or openai):
            report.restore_missing_files(run_dir, now_at=time.time())
            page = report.write_html(run_dir, now_at=time.time())
            echo_stderr(f"wrote {page}")
            if is_opened:
                open_in_browser(page.resolve().as_uri())
        if csv_file is not None:
            report.write_table(run_dir, csv_file)
            echo_stderr(f"wrote {csv_file}")
        if junit is not None:
            report.write_junit(run_dir, junit)
            echo_stderr(f"wrote {junit}")
        if openai is not None:
            report.write_openai(run_dir, openai)
            echo_stderr(f"wrote {openai}")
        summary_file = os.environ.get("GITHUB_STEP_SUMMARY")
        if github and summary_file:
            report.append_step_summary(run_dir, Path(summary_file))
            echo_stderr(f"appended to {summary_file}")
        elif github:
            click.echo(report.markdown(run_dir), nl=False)


@click.command("review")
@RUN_OR_NEWEST
@PORT
@click.option("--open", "is_opened", is_flag=True, help="Open the page in a browser.")
def review_command(run_dir: Path, port: int, is_opened: bool) -> int:
    """
    Serve the report of the run in RUN_DIR on this machine until Ctrl-C, to judge its videos.

    There k keeps the selected clip, and r rejects it. Each verdict is saved in verdicts.jsonl at once; the last
    one of a job counts. The address, which is printed to stdout, holds a secret: whoever knows it can see the videos.
    The run may be active. Without RUN_DIR it is the newest run.
    """
    from runner.api.review import serve_review

    def ready(url: str) -> None:
        echo_stderr(f"verdicts are saved in {run_dir / VERDICTS_NAME}; press Ctrl-C to stop")
        click.echo(url)
        if is_opened:
            open_in_browser(url)

    token = secrets.token_urlsafe(24)
    serve_until_signal(serve_review(run_dir, port=port, token=token, ready=ready), port)
    return 0


@click.command("check-media")
@click.argument("run_dir", metavar="RUN_DIR", type=RUN_DIR)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_media_command(run_dir: Path, as_json: bool) -> int:
    """
    Check the videos of the run in RUN_DIR: black, frozen, silent, length, size, frames per second, near duplicates.

    The checks are those of the manifest, or all if it has none. What they find is written to the results as
    warnings; it changes no job's state, and costs nothing. Needs the extra `media`.
    """
    from runner.api.video_checks import check_media, check_result_json

    result = asyncio.run(check_media(run_dir, observe=show_event))
    if as_json:
        echo_stdout(dumps(check_result_json(result)).decode())
        return 0
    for line in _findings(result):
        echo_stdout(line)
    if result.rejected:
        again = command_text("runner", "rerun", run_dir, "--verdict", "reject")
        echo_stdout(f"rejected: {result.rejected:,}; for a new, paid take of each: {again}")
    return 0


def _findings(result: CheckResult) -> Iterator[str]:
    for job_id, warnings in result.jobs.items():
        for warning in warnings:
            yield f"{job_id}: {warning}"
    found = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(result.failed.items()))
    yield f"{format_count(result.videos, 'video')} checked: {found or 'nothing found'}"


_DATASET_FORMATS = ("videofolder", "webdataset", "parquet")
_SHOW_EVERY_S = 10.0


@click.command("export")
@click.argument("runs", metavar="RUN...", type=RUN_DIR, nargs=-1)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "dataset_format",
    type=click.Choice(_DATASET_FORMATS),
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
def export_command(
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

    if not runs:
        raise click.UsageError(f"Name the directory OUT for the dataset too: {out} is the only argument.")
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
        raise click.exceptions.Exit(130) from None
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
                f"--columns names {name!r}, which is not a column",
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
