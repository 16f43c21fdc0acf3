"""`runner explain`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

import click
from msgspec import to_builtins

from runner.cli.console import echo_stdout
from runner.core.explain_answer import Explanation, Reading, explain_answer

_MAX_BYTES = 4 * 1024 * 1024


@click.command("explain")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--status", "http_status", type=click.IntRange(100, 599), default=200, help="HTTP status of a body alone."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: IO[bytes], http_status: int, as_json: bool) -> None:
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
