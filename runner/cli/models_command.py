"""`runner models`: what can be run, as a table; or one model with its parameters."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click
from msgspec import to_builtins

from runner.cli.param_types import MODEL

if TYPE_CHECKING:
    from runner.schema.describe import Description, Parameter

_WIDTH = 80


@click.command("models")
@click.argument("model", required=False, type=MODEL)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(model: str | None, as_json: bool) -> None:
    """List the models that can be run, or one MODEL's parameters with an example."""
    from runner.api import models

    described = models.models() if model is None else models.model(model)
    if as_json:
        click.echo(json.dumps(to_builtins(described), indent=2, ensure_ascii=False))
        return
    lines = _table(described) if model is None else _details(model, described)
    for line in lines:
        click.echo(line)


def _table(documents: Iterable[Description]) -> Iterator[str]:
    from runner.api.models import model

    row = "  {:<28} {:<17} {:<15} {}".format
    yield row("model", "input", "sizes", "seconds")
    for document in documents:
        yield ""
        yield f"{document.title}  [{document.schema}]"
        for name in document.models:
            (own,) = (one for one in model(name) if one.schema == document.schema)
            yield row(name, own.input, " ".join(own.sizes), own.seconds.removeprefix("only ").strip("'"))
        yield f"  document: {document.source}"
    yield ""
    yield "All that one of them takes, with an example: runner models NAME"


def _details(model: str, documents: Iterable[Description]) -> Iterator[str]:
    from runner.api.models import example_job

    yield model
    for document in documents:
        yield ""
        yield f"{document.title}  [{document.schema}]"
        yield from textwrap.wrap(document.text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield f"  document: {document.source}"
        yield ""
        for parameter in document.parameters:
            yield from _parameter(parameter)
        yield ""
        yield "  Under jobs: in a manifest:"
        yield ""
        yield example_job(document)


def _parameter(parameter: Parameter) -> Iterator[str]:
    rule = parameter.rule
    if parameter.default is not None:
        rule += f"; {json.dumps(parameter.default)} by default"
    name = f"  {parameter.name}{' (required)' if parameter.is_required else ''}: "
    yield from textwrap.wrap(f"{name}{rule}", _WIDTH, subsequent_indent="      ")
    yield from textwrap.wrap(
        parameter.description, _WIDTH, initial_indent="      ", subsequent_indent="      "
    )
