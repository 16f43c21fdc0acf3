"""`runner init`, `runner models` and `runner schema`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import to_builtins

from runner.api import models
from runner.api.models import FORMATS, import_schema, schema, starter_text, write_starter
from runner.cli.console import echo_stderr
from runner.cli.param_types import MODEL, LazyChoice
from runner.core.sanitize import command_text
from runner.errors import UsageError
from runner.schema.catalog import load_catalog

if TYPE_CHECKING:
    from runner.api.models import Description, Parameter


@click.command("init")
@click.argument("path", default="manifest.yaml", type=click.Path(path_type=Path, allow_dash=True))
def init_command(path: Path) -> None:
    """
    Write a commented starter manifest to PATH (default: manifest.yaml), or to stdout if PATH is "-".

    It runs unchanged with --simulate. An existing file is never overwritten.
    """
    if str(path) == "-":
        click.echo(starter_text(), nl=False)
        return
    written = write_starter(path)
    echo_stderr(
        f"wrote {written}, and its schema for editors beside it; try it without a key and free of charge:"
    )
    echo_stderr(f"  {command_text('runner', 'run', written, '--simulate')}")


_WIDTH = 80


@click.command("models")
@click.argument("model", required=False, type=MODEL)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models_command(model: str | None, as_json: bool) -> None:
    """List the available models, or show the parameters of MODEL with an example."""
    documents = models.models() if model is None else models.model(model)
    if as_json:
        click.echo(json.dumps(to_builtins(documents), indent=2, ensure_ascii=False))
        return
    if model is None:
        lines = _table(documents, models.model)
    else:
        lines = _model_details(model, ((document, models.example_job(document)) for document in documents))
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


def _model_details(model: str, documents: Iterable[tuple[Description, str]]) -> Iterator[str]:
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


def _names() -> Iterable[str]:
    catalog = load_catalog()
    return dict.fromkeys((*FORMATS, "import", *catalog.models, *catalog.names))


@click.command("schema")
@click.argument(
    "name",
    metavar="[manifest|prices|result|scenario|MODEL|SCHEMA|import]",
    default="manifest",
    type=LazyChoice("schema", _names),
)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME", help="With import: the only model that the schema is for.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="With import: write to this file."
)
def schema_command(name: str, file: Path | None, model: str | None, output: Path | None) -> None:
    """
    Print the JSON Schema of the manifest, of a price table, of a line of the results, of a scenario, or of a model.

    "runner schema import FILE" derives a schema from an OpenAPI page of the vendor, for a manifest's "schemas".
    """
    if name != "import":
        if file or model or output:
            raise UsageError("FILE, --model and --output belong to 'runner schema import'")
        click.echo(json.dumps(schema(name), indent=2, ensure_ascii=False))
        return
    if file is None:
        raise UsageError("which OpenAPI page?", hint="runner schema import FILE")
    text = json.dumps(import_schema(file, model), indent=2, ensure_ascii=False)
    if output is None:
        click.echo(text)
        return
    try:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(f"{text}\n")
    except OSError as error:
        raise UsageError(f"{output} can't be written: {error.strerror}") from error
    echo_stderr(f"wrote {output}; in a manifest: schemas: [{output}]")
