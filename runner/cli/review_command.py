"""`runner review`."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from runner.cli.console import echo_stderr, open_in_browser
from runner.cli.shared_options import PORT, RUN_OR_NEWEST
from runner.cli.signals import serve_until_signal
from runner.core.filenames import VERDICTS_NAME


@click.command("review")
@RUN_OR_NEWEST
@PORT
@click.option("--open", "is_opened", is_flag=True, help="Open the page in a browser.")
def command(run_dir: Path, port: int, is_opened: bool) -> int:
    """
    Serve the report of the run in RUN_DIR on this machine until Ctrl-C, to judge its videos.

    There k keeps the clip that is looked at, and r rejects it. Each verdict is saved in verdicts.jsonl at once; the last
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
