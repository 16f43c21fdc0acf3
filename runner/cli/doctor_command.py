"""`runner doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from msgspec import to_builtins

from runner.api.options import RunOptions
from runner.cli.console import echo_stdout
from runner.cli.param_types import MANIFEST

_WRONG_INPUT = {"manifest", "env-file"}
"""Checks of what the command line names."""
_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@click.argument("manifest", required=False, type=MANIFEST)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    show_default=True,
    help="Directory in which run directories are created.",
)
@click.option("--journal", metavar="URL", help="Also check whether a journal can be kept at this URL.")
@click.option("--assets", metavar="URL", help="Also check whether videos can be uploaded to this URL.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--base-url", metavar="URL", help="URL of the gateway; overrides the manifest.")
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="File of variables to read instead of .env."
)
def command(
    manifest: Path | None,
    output: Path | None,
    journal: str | None,
    assets: str | None,
    as_json: bool,
    base_url: str | None,
    env_file: Path | None,
) -> int:
    """
    Check the key, the gateway, the clock, the disk and this machine, and show how to fix problems.

    Nothing is submitted and nothing is billed. The exit code is 0 without a problem, 2 if the manifest or the file of
    variables can't be used, as everywhere, and 1 with any other problem.
    """
    from runner.api.doctor import CheckVerdict, doctor

    checks = []
    options = RunOptions(base_url=base_url, env_file=env_file, journal=journal, assets=assets)
    for check in doctor(manifest, output=output, options=options):
        checks.append(check)
        if not as_json:
            echo_stdout(f" {check.message}", head=f"{check.verdict:<8}", head_style=_COLORS[check.verdict])
            if check.hint:
                echo_stdout(f"         {check.hint}")
    if as_json:
        click.echo(json.dumps(to_builtins(checks), indent=2))
    problems = {check.name for check in checks if check.verdict is CheckVerdict.PROBLEM}
    return 2 if problems & _WRONG_INPUT else int(bool(problems))
