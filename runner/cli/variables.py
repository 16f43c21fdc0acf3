"""The option `--var NAME=VALUE` of every command that reads a manifest."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_NAME = re.compile(r"[^\s{}]+")


def _read(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", ctx, param)
        variables[name] = value
    return variables


def variable_option(decorated: _Decorated) -> _Decorated:
    """Add the option; the command gets it as ``variables``, a mapping of texts."""
    return click.option(
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_read,
        help="Set a variable of the manifest, over its own `vars`. May be given several times.",
    )(decorated)
