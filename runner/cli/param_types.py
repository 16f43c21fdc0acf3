"""
How parameters are read: types that a shell can complete (run directories, manifests, job ids, models, classes, states),
callbacks of options, and `--var`.

Completion must be quick and never fail: every search is limited, and what can't be read is not offered.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from runner.core.filenames import DB_NAME, RESULTS_NAME
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.errors import RunnerError
from runner.schema.catalog import load_catalog
from runner.schema.wording import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _AnyType: TypeAlias = click.ParamType[Any]
else:
    # In older supported versions of click this type has no parameters.
    _AnyType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_OFFERED = 100
"""The most completions of one word."""

_YAML_SUFFIXES = (".yaml", ".yml")
_MANIFEST_SUFFIXES = (*_YAML_SUFFIXES, ".jsonl")


class Completed(_AnyType):
    """
    A path or a text of which a shell completes the beginning; the command checks it.

    Args:
        name: What it is, for error messages.
        convert: Makes the value of the text.
        complete: Yields what may be meant, given the context and the beginning.
    """

    def __init__(
        self,
        name: str,
        convert: Callable[[str], Any],
        complete: Callable[[click.Context, str], Iterable[str]],
    ) -> None:
        self.name = name
        self._convert = convert
        self._complete = complete

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value."""
        return self._convert(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer what may be meant."""
        # Imported only while a shell completes a line.
        from click.shell_completion import CompletionItem

        with contextlib.suppress(OSError):
            return [CompletionItem(word) for word in islice(self._complete(ctx, incomplete), MAX_OFFERED)]
        return []


class LazyChoice(Completed):
    """
    One of several words, which are loaded only when they are needed.

    Args:
        load: Returns the words.
    """

    def __init__(self, name: str, load: Callable[[], Iterable[str]]) -> None:
        super().__init__(
            name, str, lambda _ctx, incomplete: (word for word in load() if word.startswith(incomplete))
        )
        self._load = load

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, or fail and suggest the nearest one."""
        words = tuple(self._load())
        if value in words:
            return str(value)
        hint = did_you_mean(value, words) or f"choose from {', '.join(words)}."
        raise click.BadParameter(f"unknown {self.name} {value!r}; {hint}", ctx, param)


def parsed_by(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return the callback of an option whose text is parsed by a function; its ValueError is a usage error."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(read(text) for text in value)
            return read(value) if isinstance(value, str) else value
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def with_options(*groups: Any) -> Callable[[Command], Command]:
    """Add options and groups of options to a command, in this order."""
    flat = [option for group in groups for option in (group if isinstance(group, tuple) else (group,))]

    def decorate(command: Command) -> Command:
        for option in reversed(flat):
            command = option(command)
        return command

    return decorate


def _read_variables(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[^\s{}]+", name):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", ctx, param)
        variables[name] = value
    return variables


VARIABLE = click.option(
    "--var",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_read_variables,
    help="Set a variable, overriding the manifest's `vars`. May be given several times.",
)
"""The command receives it as ``var``, a mapping of texts."""


def _run_directories(_ctx: click.Context, incomplete: str) -> Iterator[str]:
    for path in _paths(incomplete, lambda _path: False):
        is_run = any((Path(path) / name).is_file() for name in (DB_NAME, RESULTS_NAME))
        yield path.rstrip("/") if is_run else path


def _paths(incomplete: str, is_offered: Callable[[Path], bool]) -> Iterator[str]:
    """List the matching files of one folder that are to be offered, and its folders with a slash at the end."""
    folder_text, slash, start = incomplete.rpartition("/")
    folder = Path(folder_text + slash) if slash else Path()
    for path in sorted(folder.expanduser().iterdir()):
        if not path.name.startswith(start) or (path.name.startswith(".") and not start):
            continue
        if path.is_dir():
            yield f"{folder_text}{slash}{path.name}/"
        elif is_offered(path):
            yield f"{folder_text}{slash}{path.name}"


def _manifests(_ctx: click.Context, incomplete: str) -> Iterator[str]:
    return _paths(incomplete, lambda path: path.suffix in _MANIFEST_SUFFIXES)


def _scenarios(_ctx: click.Context, incomplete: str) -> Iterator[str]:
    from runner.simulator.scenario_reader import shipped_scenarios

    yield from (name for name in shipped_scenarios() if name.startswith(incomplete))
    yield from _paths(incomplete, lambda path: path.suffix in _YAML_SUFFIXES)


def _job_ids(ctx: click.Context, incomplete: str) -> list[str]:
    # While the value of an option is completed, click leaves the other arguments unparsed.
    first = next(iter(ctx.params.get("run_dirs") or ()), None)
    run_dir = ctx.params.get("run_dir") or first or ctx.params.get("output") or next(iter(ctx.args), None)
    if not run_dir:
        return []
    from runner.store import database, query

    with contextlib.suppress(RunnerError), database.reading(Path(run_dir)) as reader:
        return query.job_ids_with_prefix(reader, incomplete, limit=MAX_OFFERED)
    return []


RUN_DIR = Completed("run_dir", Path, _run_directories)
MANIFEST = Completed("manifest", Path, _manifests)
JOB = Completed("job", str, _job_ids)
SCENARIO_NAME = Completed("scenario", str, _scenarios)
MODEL = LazyChoice("model", lambda: load_catalog().models)
FAILURE_CLASS = LazyChoice("class", lambda: (cls.value for cls in FailureClass))
STATE = LazyChoice("state", lambda: (state.value for state in State))
