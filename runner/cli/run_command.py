"""`runner run`."""

from __future__ import annotations

import click


@click.command("run")
@click.argument("manifest")
@click.option("-o", "--output", help="The run directory.")
@click.option("--simulate", is_flag=True, help="Run against the simulator.")
def command(manifest: str, output: str | None, simulate: bool) -> int:
    """Run a manifest."""
    import asyncio
    from pathlib import Path

    from runner.api.run import RunOptions, run

    outcome = asyncio.run(
        run(
            Path(manifest),
            output=None if output is None else Path(output),
            options=RunOptions(simulate=simulate),
            observe=lambda event: click.echo(str(event), err=True),
        )
    )
    return outcome.exit_code
