"""
Arguments that a shell can complete: run directories, manifests, job ids, models, classes, states.

Completion must answer at once and never fail, so every search here is bounded, and
what can't be read is simply not offered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _PathType: TypeAlias = click.ParamType[Path]
    _TextType: TypeAlias = click.ParamType[str]
else:
    # Older versions of click that are good enough have no type parameters here.
    _PathType = _TextType = click.ParamType

MOST_OFFERED = 100
"""Of one kind; a longer list helps nobody."""

_MANIFEST_SUFFIXES = (".yaml", ".yml", ".jsonl")


class RunDirectory(_PathType):
    """A directory that a run wrote."""

    name = "run_dir"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Take the path as it is; whether it holds a run is for the command to say."""
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the directories that hold a run, and those on the way to one."""
        return _items(_run_directories(incomplete))


class ManifestFile(_PathType):
    """A manifest, or a batch file."""

    name = "manifest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Take the path as it is; what is wrong with the file is reported with its content."""
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer YAML and JSONL files, and directories."""
        return _items(_paths(incomplete, lambda path: path.suffix in _MANIFEST_SUFFIXES))


class JobName(_TextType):
    """The id of a job of the run directory that the same command line names."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take the id, or the pattern, as it is."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the ids that begin like this, from the run directory on the command line."""
        # Where an option still waits for its value, click leaves the other words unparsed.
        named = ctx.params.get("run_dir") or ctx.params.get("output") or next(iter(ctx.args), None)
        return _items(_job_ids(Path(named), incomplete) if named else ())


class LazyChoice(_TextType):
    """
    One word of a closed list, which a program's completion offers and a wrong word is held against.

    The list is made when it is needed, so that it costs no import before.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def words(self) -> tuple[str, ...]:
        """List the words."""
        return _WORDS[self.name]()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take a word of the list, or fail with the nearest one."""
        words = self.words()
        if value in words:
            return str(value)
        from difflib import get_close_matches

        near = get_close_matches(str(value), words, 1)
        guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(words)}."
        raise click.BadParameter(f"there is no {self.name} {value!r}; {guess}", ctx, param)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the words that begin like this."""
        return _items(word for word in self.words() if word.startswith(incomplete))


def _models() -> tuple[str, ...]:
    from runner.schema.catalog import load_catalog

    return tuple(load_catalog().models)


def _schemas() -> tuple[str, ...]:
    from runner.schema.catalog import load_catalog

    catalog = load_catalog()
    return tuple(dict.fromkeys(("manifest", "result", *catalog.models, *catalog.names)))


def _classes() -> tuple[str, ...]:
    from runner.core.model import FailureClass

    return tuple(cls.value for cls in FailureClass)


def _states() -> tuple[str, ...]:
    from runner.core.lifecycle import State

    return tuple(state.value for state in State)


_WORDS = {"model": _models, "schema": _schemas, "class": _classes, "state": _states}

RUN_DIR, MANIFEST, JOB = RunDirectory(), ManifestFile(), JobName()
MODEL, SCHEMA, CLASS, STATE = (
    LazyChoice("model"),
    LazyChoice("schema"),
    LazyChoice("class"),
    LazyChoice("state"),
)


def _items(words: Iterable[str]) -> list[CompletionItem]:
    # Only a shell that completes a line asks for items, never a command that runs.
    from click.shell_completion import CompletionItem

    with contextlib.suppress(OSError):
        return [CompletionItem(word) for word in islice(words, MOST_OFFERED)]
    return []


def _run_directories(incomplete: str) -> Iterator[str]:
    from runner.core.filenames import DB_NAME, RESULTS_NAME

    for path in _paths(incomplete, lambda _path: False):
        folder = Path(path)
        is_run = (folder / DB_NAME).is_file() or (folder / RESULTS_NAME).is_file()
        yield path.rstrip("/") if is_run else path


def _paths(incomplete: str, wanted: Any) -> Iterator[str]:
    """Walk one folder: what is wanted, and the folders that may hold it, with a slash behind."""
    folder_text, slash, start = incomplete.rpartition("/")
    folder = Path(folder_text + slash) if slash else Path()
    for path in sorted(folder.expanduser().iterdir()):
        if not path.name.startswith(start) or (path.name.startswith(".") and not start):
            continue
        if path.is_dir():
            yield f"{folder_text}{slash}{path.name}/"
        elif wanted(path):
            yield f"{folder_text}{slash}{path.name}"


def _job_ids(run_dir: Path, incomplete: str) -> list[str]:
    from runner.errors import RunnerError
    from runner.store import query
    from runner.store.database import connect_reader

    with contextlib.suppress(RunnerError), contextlib.closing(connect_reader(run_dir)) as connection:
        return query.job_ids_with_prefix(connection, incomplete, limit=MOST_OFFERED)
    return []
