"""`runner doctor`: is everything fit for a run? Costs nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from msgspec import to_builtins

from runner.cli.console import echo_stdout, wants_color
from runner.cli.param_types import MANIFEST

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@click.argument("manifest", required=False, type=MANIFEST)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="output",
    help="Where run directories are made.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--base-url", help="The gateway's address, over the manifest's.")
@click.option("--env-file", type=click.Path(path_type=Path), help="A file of variables, in place of .env.")
def command(
    manifest: Path | None, output: Path, as_json: bool, base_url: str | None, env_file: Path | None
) -> int:
    """
    Check the key, the gateway, the clock, the disk and this machine, and say what to do about each.

    The only request is a free one. The exit code is 0 where a run can work, warnings or not, else 1.
    """
    from runner.api.doctor import CheckVerdict, doctor
    from runner.api.options import RunOptions

    checks = []
    for check in doctor(manifest, output=output, options=RunOptions(base_url=base_url, env_file=env_file)):
        checks.append(check)
        if not as_json:
            word = click.style(f"{check.verdict:<8}", fg=_COLOURS[check.verdict])
            click.echo(f"{word} ", nl=False, color=wants_color(sys.stdout))
            echo_stdout(check.message)
            if check.hint:
                echo_stdout(f"         {check.hint}")
    if as_json:
        click.echo(json.dumps(to_builtins(checks), indent=2))
    return 1 if any(check.verdict is CheckVerdict.PROBLEM for check in checks) else 0
