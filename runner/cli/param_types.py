"""
Types of arguments that a shell can complete: run directories, manifests, job ids, models, classes, states; and `--var`.

Completion must be quick and never fail: every search is limited, and what can't be read is not offered.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from runner.core.filenames import DB_NAME, RESULTS_NAME
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.errors import RunnerError
from runner.schema.catalog import load_catalog
from runner.schema.wording import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _PathType: TypeAlias = click.ParamType[Path]
    _TextType: TypeAlias = click.ParamType[str]
else:
    # In older supported versions of click this type has no parameters.
    _PathType = _TextType = click.ParamType

MAX_OFFERED = 100
"""The most completions of one word."""

_YAML_SUFFIXES = (".yaml", ".yml")
_MANIFEST_SUFFIXES = (*_YAML_SUFFIXES, ".jsonl")


class RunDirectory(_PathType):
    """The path of a run directory."""

    name = "run_dir"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; the command checks whether it is a run directory."""
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer run directories, and other directories with a slash at the end."""
        return _items(_run_directories(incomplete))


class ManifestFile(_PathType):
    """The path of a manifest or a batch file."""

    name = "manifest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; errors of the file are reported with those of its content."""
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer YAML and JSONL files, and directories."""
        return _items(_paths(incomplete, lambda path: path.suffix in _MANIFEST_SUFFIXES))


class JobId(_TextType):
    """The id of a job in the run directory given on the same command line."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id or the pattern."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the ids that begin with the text."""
        # While the value of an option is completed, click leaves the other arguments unparsed.
        first = next(iter(ctx.params.get("run_dirs") or ()), None)
        run_dir = ctx.params.get("run_dir") or first or ctx.params.get("output") or next(iter(ctx.args), None)
        return _items(_job_ids(Path(run_dir), incomplete) if run_dir else ())


class ScenarioName(_TextType):
    """The name of a shipped scenario of the simulator, or the path of a scenario file."""

    name = "scenario"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name or the path; the command checks the scenario."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the names of shipped scenarios, YAML files, and directories."""
        from runner.simulator.scenario_reader import shipped_scenarios

        names = [name for name in shipped_scenarios() if name.startswith(incomplete)]
        return _items(names) + _items(_paths(incomplete, lambda path: path.suffix in _YAML_SUFFIXES))


class LazyChoice(_TextType):
    """
    One of several words, which are loaded only when they are needed.

    Args:
        name: What the words are, for error messages.
        load: Returns the words.
    """

    def __init__(self, name: str, load: Callable[[], Iterable[str]]) -> None:
        self.name = name
        self._load = load

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word, or fail and suggest the nearest one."""
        words = tuple(self._load())
        if value in words:
            return str(value)
        hint = did_you_mean(value, words) or f"choose from {', '.join(words)}."
        raise click.BadParameter(f"unknown {self.name} {value!r}; {hint}", ctx, param)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the words that begin with the text."""
        return _items(word for word in self._load() if word.startswith(incomplete))


RUN_DIR, MANIFEST, JOB, SCENARIO_NAME = RunDirectory(), ManifestFile(), JobId(), ScenarioName()
MODEL = LazyChoice("model", lambda: load_catalog().models)
FAILURE_CLASS = LazyChoice("class", lambda: (cls.value for cls in FailureClass))
STATE = LazyChoice("state", lambda: (state.value for state in State))


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


def _items(words: Iterable[str]) -> list[CompletionItem]:
    # Imported only while a shell completes a line.
    from click.shell_completion import CompletionItem

    with contextlib.suppress(OSError):
        return [CompletionItem(word) for word in islice(words, MAX_OFFERED)]
    return []


def _run_directories(incomplete: str) -> Iterator[str]:
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


def _job_ids(run_dir: Path, incomplete: str) -> list[str]:
    from runner.store import database, query

    with contextlib.suppress(RunnerError), contextlib.closing(database.connect_reader(run_dir)) as connection:
        return query.job_ids_with_prefix(connection, incomplete, limit=MAX_OFFERED)
    return []
