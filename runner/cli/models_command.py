"""`runner models`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click
from msgspec import to_builtins

from runner.api import models
from runner.cli.param_types import MODEL

if TYPE_CHECKING:
    from runner.schema.describe import Description, Parameter

_WIDTH = 80


@click.command("models")
@click.argument("model", required=False, type=MODEL)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str | None, as_json: bool) -> None:
    """List the available models, or show the parameters of MODEL with an example."""
    documents = models.models() if model is None else models.model(model)
    if as_json:
        click.echo(json.dumps(to_builtins(documents), indent=2, ensure_ascii=False))
        return
    if model is None:
        lines = _table(documents, models.model)
    else:
        lines = _details(model, ((document, models.example_job(document)) for document in documents))
    for line in lines:
        click.echo(line)


def _table(
    documents: Iterable[Description], describe: Callable[[str], Iterable[Description]]
) -> Iterator[str]:
    row = "  {:<33} {:<8} {:<18} {}".format
    yield row("model", "input", "sizes", "seconds")
    for document in documents:
        yield ""
        yield f"{document.title}  [{document.schema}]"
        for name in document.models:
            (own,) = (one for one in describe(name) if one.schema == document.schema)
            yield row(name, own.input, " ".join(own.sizes), own.seconds.removeprefix("only ").strip("'"))
        yield f"  document: {document.source}"
    yield ""
    yield "To show the parameters of a model with an example: runner models MODEL"


def _details(model: str, documents: Iterable[tuple[Description, str]]) -> Iterator[str]:
    yield model
    for document, example in documents:
        yield ""
        yield f"{document.title}  [{document.schema}]"
        yield from textwrap.wrap(document.text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield f"  document: {document.source}"
        yield ""
        for parameter in document.parameters:
            yield from _parameter(parameter)
        yield ""
        yield "  In a manifest, under jobs:"
        yield ""
        yield example


def _parameter(parameter: Parameter) -> Iterator[str]:
    rule = parameter.rule
    if parameter.default is not None:
        rule += f"; default: {json.dumps(parameter.default)}"
    name = f"  {parameter.name}{' (required)' if parameter.is_required else ''}: "
    yield from textwrap.wrap(f"{name}{rule}", _WIDTH, subsequent_indent="      ")
    yield from textwrap.wrap(
        parameter.description, _WIDTH, initial_indent="      ", subsequent_indent="      "
    )
