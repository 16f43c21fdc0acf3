"""`runner doctor`, `runner explain` and `runner simulate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
from msgspec import to_builtins

from runner.api.options import RunOptions
from runner.api.simulate import serve_simulator
from runner.cli.console import echo_stderr, echo_stdout, serve_until_signal
from runner.cli.param_types import MANIFEST
from runner.cli.shared_options import PORT, SCENARIO
from runner.core.explain_answer import Explanation, Reading, explain_answer

_WRONG_INPUT = {"manifest", "env-file"}
"""Checks of what the command line names."""
_VERDICT_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


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
def doctor_command(
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
            echo_stdout(
                f" {check.message}", head=f"{check.verdict:<8}", head_style=_VERDICT_COLORS[check.verdict]
            )
            if check.hint:
                echo_stdout(f"         {check.hint}")
    if as_json:
        click.echo(json.dumps(to_builtins(checks), indent=2))
    problems = {check.name for check in checks if check.verdict is CheckVerdict.PROBLEM}
    return 2 if problems & _WRONG_INPUT else int(bool(problems))


_MAX_BYTES = 4 * 1024 * 1024


@click.command("explain")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--status",
    "http_status",
    metavar="CODE",
    type=click.IntRange(100, 599),
    default=200,
    help="HTTP status of a body alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain_command(file: IO[bytes], http_status: int, as_json: bool) -> None:
    """
    Show how an answer of the API is read, and what a run would do with it.

    FILE has the answer's body, or the whole HTTP response with its head; - reads standard input.
    """
    explanation = explain_answer(file.read(_MAX_BYTES), http_status=http_status)
    if as_json:
        click.echo(json.dumps(to_builtins(explanation), ensure_ascii=False))
        return
    for line in explanation_lines(explanation):
        echo_stdout(line)


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Describe how an answer is read, for people."""
    yield f"HTTP status: {explanation.http_status}"
    yield _found("id", explanation.id, explanation)
    state = explanation.state and f"{explanation.state} ({explanation.status or 'no status word'})"
    yield _found("state", state, explanation, place="status")
    yield _found("asset", ", ".join(explanation.asset) or None, explanation)
    if explanation.last_frame:
        yield _found("last_frame", ", ".join(explanation.last_frame), explanation)
    yield from _reading("to a submission", explanation.submission)
    yield from _reading("to a query", explanation.query)


def _found(name: str, value: str | None, explanation: Explanation, *, place: str | None = None) -> str:
    where = explanation.places.get(place or name)
    return f"{name.replace('_', ' ')}: {value or 'none'}" + (f", from {where}" if value and where else "")


def _reading(what: str, reading: Reading) -> Iterator[str]:
    yield f"as an answer {what}: {reading.outcome}" + (f", class {reading.cls}" if reading.cls else "")
    if reading.message:
        yield f"  because: {reading.message}" + (f" (code {reading.code})" if reading.code else "")
    yield f"  then: {reading.then}"


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
def simulate_command(port: int, scenario: str | None, ledger: Path | None, prices: Path | None) -> int:
    """
    Serve a simulated gateway on this machine until Ctrl-C: nothing is sent and nothing is billed.

    Its URL is printed to stdout, and the environment variables for a run against it to stderr.
    """
    serve_until_signal(
        serve_simulator(scenario, port=port, ledger=ledger, prices=prices, ready=_print_usage), port
    )
    return 0


def _print_usage(base_url: str, key: str) -> None:
    echo_stderr("simulated gateway started; press Ctrl-C to stop it. To use it:")
    echo_stderr(f"  export POWERTOKENS_BASE_URL={base_url}")
    echo_stderr(f"  export POWERTOKENS_API_KEY={key}")
    click.echo(base_url)
