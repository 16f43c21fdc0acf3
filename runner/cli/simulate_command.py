"""`runner simulate`."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from runner.cli.console import echo_stderr
from runner.cli.options import SCENARIO
from runner.errors import UsageError


@click.command("simulate")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
@SCENARIO
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    help="Append accepted submissions to this file, and restore their tasks from it at the next start.",
)
def command(port: int, scenario: str | None, ledger: Path | None) -> int:
    """
    Serve a simulated gateway on this machine until Ctrl-C: nothing is sent and nothing is billed.

    Its URL is printed to stdout, and the environment variables for a run against it to stderr.
    """
    import asyncio

    from runner.api.simulate import serve_simulator

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        await serve_simulator(scenario, port=port, ledger=ledger, ready=_print_usage)

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        return 0
    except OSError as error:
        raise UsageError(
            f"the simulator can't listen on port {port}: {error.strerror or error}",
            hint="choose another --port, or leave the option out to use a free one",
        ) from None
    return 0


def _print_usage(base_url: str, key: str) -> None:
    echo_stderr("simulated gateway started; press Ctrl-C to stop it. To use it:")
    echo_stderr(f"  export POWERTOKENS_BASE_URL={base_url}")
    echo_stderr(f"  export POWERTOKENS_API_KEY={key}")
    click.echo(base_url)
