"""`runner schema`."""

from __future__ import annotations

import json

import click

from runner.api.models import schema
from runner.cli.param_types import SCHEMA


@click.command("schema")
@click.argument("name", metavar="[manifest|result|MODEL|SCHEMA]", default="manifest", type=SCHEMA)
def command(name: str) -> None:
    """Print the JSON Schema of the manifest, of a line of the results, or of a model."""
    click.echo(json.dumps(schema(name), indent=2, ensure_ascii=False))
