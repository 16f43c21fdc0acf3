"""`runner report`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from runner.cli.console import echo_stderr, open_in_browser
from runner.cli.shared_options import RUN_OR_NEWEST

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
def command(
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
