"""What a run directory is called, and what its ``run.db`` remembers of the manifest, so that a run continues without it."""

from __future__ import annotations

import os
import sqlite3
from datetime import date
from pathlib import Path

import msgspec
from msgspec import Struct

from runner.core.filenames import DB_NAME
from runner.core.settings import DEFAULT_BASE_URL, SIMULATED, Settings
from runner.core.sharding import Shard
from runner.disk import require_encodable
from runner.engine.events import Notice
from runner.errors import UsageError
from runner.store import query

LEARNED = "learned"
"""Key of the rates that an earlier run found to be allowed."""
SNAPSHOT = "snapshot"
"""Key of a directory that was made to read a journal: the files of its jobs are elsewhere."""
_OUTPUT_NAME = "output"
_DATE = "${date}"
_SETTINGS, _ORIGIN = "settings", "origin"


class AssetStore(Struct, frozen=True):
    """
    Where a run uploads its assets.

    Attributes:
        url: Of an object store, or of a folder in it.
        keeps_local: Whether the files stay in the run directory, too.
    """

    url: str
    keeps_local: bool = False


class RunOrigin(Struct, frozen=True):
    """
    Where a run comes from.

    Attributes:
        manifest: The manifest's absolute path, or None for a run that began from results.
        is_simulated: Whether its jobs went to the simulator; such a run never meets a real gateway.
        sharded: Whether its assets are spread over 256 folders.
        series: What its directory has in common with those of other dates, or other values of a variable; see `series_of`.
        shard: Which shard of the run its directory holds; None for the whole run.
        missing_shards: Shards that were not there when the run was merged, so that their jobs are elsewhere.
        is_real_time: Whether a simulated run has the manifest's rates and waits.
        asset_store: Where its assets are uploaded to; None if they are in its directory alone.
        scenario, env_file: The options of the newest ``run``, the file with its absolute path; None without.
    """

    manifest: str | None
    is_simulated: bool
    sharded: bool
    series: str | None = None
    is_real_time: bool = False
    shard: Shard | None = None
    missing_shards: tuple[int, ...] = ()
    asset_store: AssetStore | None = None
    scenario: str | None = None
    env_file: str | None = None


class RunFacts(Struct, frozen=True):
    """
    What a run remembers of its manifest.

    Attributes:
        settings: With the options of the newest process applied, and without the simulator's speed. They hold names of
            environment variables, never keys.
    """

    settings: Settings
    origin: RunOrigin

    @property
    def gateway(self) -> str:
        """The run's gateway as its results name it: a base URL, or `SIMULATED`."""
        return SIMULATED if self.origin.is_simulated else self.settings.base_url or DEFAULT_BASE_URL

    @property
    def asset_url(self) -> str | None:
        """The URL that assets are uploaded to; None if they are in the run directory alone."""
        return None if self.origin.asset_store is None else self.origin.asset_store.url


def read_facts(reader: sqlite3.Connection) -> RunFacts | None:
    """Read what a run remembers; None if no manifest was ever loaded into its directory."""
    return facts_of(query.meta(reader))


def facts_of(meta: query.Meta) -> RunFacts | None:
    """Return what a run remembers by its `query.meta`; None if no manifest was ever loaded into its directory."""
    settings, origin = meta.get(_SETTINGS), meta.get(_ORIGIN)
    if settings is None or origin is None:
        return None
    return RunFacts(msgspec.json.decode(settings, type=Settings), msgspec.json.decode(origin, type=RunOrigin))


def save_facts(connection: sqlite3.Connection, facts: RunFacts) -> None:
    """Save what a later process needs to continue without the manifest; writes nothing if nothing changed."""
    for key, value in ((_SETTINGS, facts.settings), (_ORIGIN, facts.origin)):
        connection.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
            (key, msgspec.json.encode(value).decode()),
        )


def output_root(source: Path) -> Path:
    """
    Return the folder in whose folder ``output`` the runs of a manifest, or of a results file, are.

    It is the nearest one that has a folder ``output``, from the source's own upwards to the root of its repository; or
    else, and outside of any repository, the source's own.
    """
    start = Path(os.path.abspath(source)).parent
    folders = (start, *start.parents)
    depth = next((n for n, folder in enumerate(folders) if (folder / ".git").exists()), 0)
    return next((folder for folder in folders[: depth + 1] if (folder / _OUTPUT_NAME).is_dir()), start)


def default_run_dir(source: Path, name: str, *, simulate: bool, shard: Shard | None = None) -> Path:
    """
    Return the directory of a run for which none was given: it depends on where its manifest, or results file, is.

    It is ``output/NAME`` in `output_root`. A simulated run has a directory of its own, so that it is never taken for a
    real one, and so has each shard. Below the working directory the path is relative to that.
    """
    name = f"{name}-simulated" if simulate else name
    name = name if shard is None else f"{name}-shard-{shard.index}-of-{shard.count}"
    run_dir = output_root(source) / _OUTPUT_NAME / name
    here = Path.cwd()
    return run_dir.relative_to(here) if run_dir.is_relative_to(here) else run_dir


def command_folder(manifest: str | Path | None) -> Path | None:
    """
    Return where the commands of a manifest are started: in its folder, wherever the program is.

    None for the working directory: if the folder is not on this machine or out of reach, or is a run directory (as that of
    ``failed.yaml``), which the commands were not written for.
    """
    folder = None if manifest is None else Path(manifest).absolute().parent
    if folder is None or not os.path.isdir(folder) or os.path.exists(folder / DB_NAME):
        return None
    return folder


def series_of(name: str | None, output: Path | None) -> str | None:
    """
    Return what the directories of a series have in common: the name, or ``-o``, with its placeholders; None without any.

    >>> series_of("nightly-${date}", None), series_of("kittens", None)
    ('nightly-${date}', None)
    """
    if output is not None and _DATE in str(output):
        return os.path.abspath(output)
    return name if name is not None and "${" in name else None


def expand_date(output: Path, today: date) -> Path:
    """
    Put the date into a run directory's path.

    >>> expand_date(Path("output/nightly-${date}"), date(2026, 11, 21)).as_posix()
    'output/nightly-2026-11-21'

    Raises:
        UsageError: See `require_encodable`.
    """
    run_dir = Path(str(output).replace(_DATE, today.isoformat()))
    require_encodable([run_dir])
    return run_dir


class KnownRun(Struct, frozen=True):
    """
    A run of a manifest.

    Attributes:
        run_dir: Absolute.
        name: What distinguishes it from the others of its series.
        series: See `series_of`.
    """

    run_dir: str
    name: str
    series: str | None = None


def known_run(run_dir: Path, name: str, series: str | None, shard: Shard | None = None) -> KnownRun:
    """
    Return what is kept of a run; its directory distinguishes it from the others of its series if ``-o`` has the date.

    The shards of a run are a series: none is begun again by another, but by a run of another number of shards.
    """
    path = str(run_dir.resolve())
    own = path if series is not None and os.path.isabs(series) else name
    if shard is None:
        return KnownRun(path, own, series)
    return KnownRun(path, f"{own} shard {shard}", f"{series or name} in {shard.count} shards")


def run_dir_notice(run_dir: Path) -> Notice:
    """Return what says where the run is, before anything else."""
    return Notice("run_dir", f"run directory: {run_dir}")


def require_same_kind(origin: RunOrigin, run_dir: Path, *, simulate: bool) -> None:
    """
    Keep real and simulated runs apart.

    Raises:
        UsageError: The directory holds a run of the other kind.
    """
    if origin.is_simulated == simulate:
        return
    held, wanted = ("simulated", "real") if origin.is_simulated else ("real", "simulated")
    raise UsageError(
        f"{run_dir} holds a {held} run, and this would be a {wanted} one",
        hint="choose another run directory with -o" + (", or add --simulate" if held == "simulated" else ""),
    )
