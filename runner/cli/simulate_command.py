"""`runner simulate`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("simulate")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 for any free one."
)
@click.option("--scenario", metavar="NAME|FILE", help="What it plays: a shipped scenario or a file.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    help="Append accepted submissions to this file; a simulator that finds it knows their tasks again.",
)
def command(port: int, scenario: str | None, ledger: Path | None) -> int:
    """
    Serve a simulated gateway on this machine until Ctrl-C: nothing is sent, and nothing costs.

    Its address goes to stdout, and the lines that point a run to it to stderr.
    """
    import asyncio
    import signal

    from runner.api.simulate import serve_simulator
    from runner.errors import UsageError

    async def serve() -> None:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        assert me is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, me.cancel)
        await serve_simulator(scenario, port=port, ledger=ledger, ready=_announce)

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        return 0
    except OSError as error:
        raise UsageError(
            f"the simulator can't listen on port {port}: {error.strerror or error}",
            hint="choose another --port, or leave it out for a free one",
        ) from None
    return 0


def _announce(base_url: str, key: str) -> None:
    from runner.cli.console import echo_stderr

    echo_stderr("a simulated gateway; Ctrl-C ends it. To run against it:")
    echo_stderr(f"  export POWERTOKENS_BASE_URL={base_url}")
    echo_stderr(f"  export POWERTOKENS_API_KEY={key}")
    click.echo(base_url)
