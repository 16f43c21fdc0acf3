"""`runner simulate`."""

from __future__ import annotations

from pathlib import Path

import click

from runner.cli.console import echo_stderr
from runner.cli.shared_options import PORT, SCENARIO
from runner.cli.signals import serve_until_signal


@click.command("simulate")
@PORT
@SCENARIO
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    help="Append accepted submissions to this file, and restore their tasks from it at the next start.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    help="Charge by this price table; the ledger shows what each submission was charged.",
)
def command(port: int, scenario: str | None, ledger: Path | None, prices: Path | None) -> int:
    """
    Serve a simulated gateway on this machine until Ctrl-C: nothing is sent and nothing is billed.

    Its URL is printed to stdout, and the environment variables for a run against it to stderr.
    """
    from runner.api.simulate import serve_simulator

    serve_until_signal(
        serve_simulator(scenario, port=port, ledger=ledger, prices=prices, ready=_print_usage), port
    )
    return 0


def _print_usage(base_url: str, key: str) -> None:
    echo_stderr("simulated gateway started; press Ctrl-C to stop it. To use it:")
    echo_stderr(f"  export POWERTOKENS_BASE_URL={base_url}")
    echo_stderr(f"  export POWERTOKENS_API_KEY={key}")
    click.echo(base_url)
