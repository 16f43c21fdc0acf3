"""`runner init`."""

from __future__ import annotations

from pathlib import Path

import click

from runner.api.models import starter_text, write_starter
from runner.cli.console import echo_stderr


@click.command("init")
@click.argument("path", default="manifest.yaml", type=click.Path(path_type=Path, allow_dash=True))
def command(path: Path) -> None:
    """
    Write a commented starter manifest to PATH (default: manifest.yaml), or to stdout if PATH is "-".

    It runs unchanged with --simulate. An existing file is never overwritten.
    """
    if str(path) == "-":
        click.echo(starter_text(), nl=False)
        return
    written = write_starter(path)
    echo_stderr(
        f"wrote {written}, and its schema for editors beside it; try it without a key and free of charge:"
    )
    echo_stderr(f"  runner run {written} --simulate")
