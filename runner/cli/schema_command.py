"""`runner schema`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from runner.api.models import FORMATS, import_schema, schema
from runner.cli.console import echo_stderr
from runner.cli.param_types import LazyChoice
from runner.errors import UsageError
from runner.schema.catalog import load_catalog


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
def command(name: str, file: Path | None, model: str | None, output: Path | None) -> None:
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
