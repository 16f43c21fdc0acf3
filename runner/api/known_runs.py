"""
Which runs a manifest has had on this machine, so that a second one does not begin by mistake and pay for all again.

They are kept in the user's state folder, a file for each manifest. That only helps: a run directory is complete
without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Set
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from runner.api.run_facts import default_run_dir
from runner.core.filenames import DB_NAME
from runner.core.sharding import Shard
from runner.errors import RunDirError, RunnerError
from runner.state_dir import read_state, state_folder, write_state
from runner.store import query
from runner.store.database import connect_reader

_MAX_RUNS = 100
"""Of one manifest."""
_MAX_MANIFESTS, _MANIFESTS_TO_SPARE = 1000, 100
_PREFIX = "runs-"


class KnownRun(Struct, frozen=True):
    """
    A run of a manifest.

    Attributes:
        run_dir: Absolute.
        name: What tells it from the others of its series.
        series: See `series_of`.
    """

    run_dir: str
    name: str
    series: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether its directory was moved or deleted."""
        return not (Path(self.run_dir) / DB_NAME).exists()


def known_run(run_dir: Path, name: str, series: str | None, shard: Shard | None = None) -> KnownRun:
    """
    Return what is kept of a run; its directory tells it from the others of its series if ``-o`` has the date.

    The shards of a run are a series: none is begun again by another, but by a run of another number of shards.
    """
    path = str(run_dir.resolve())
    own = path if series is not None and os.path.isabs(series) else name
    if shard is None:
        return KnownRun(path, own, series)
    return KnownRun(path, f"{own} shard {shard}", f"{series or name} in {shard.count} shards")


def require_continued(manifest: Path, run: KnownRun, confirm: Callable[[str], bool]) -> None:
    """
    Check that a run is not a second one of its manifest, or is to be one.

    A run that has paid for nothing does not count, and neither does another one of the same series. One whose
    directory is gone counts: it may have been moved.

    Args:
        confirm: Asks whether to begin all the same; gets the question.

    Raises:
        RunDirError: The manifest has been run elsewhere.
    """
    elsewhere = runs_elsewhere(manifest, run)
    if not elsewhere:
        return
    known = elsewhere[-1]
    if known.is_gone:
        what = f"{manifest} was run in {known.run_dir}, which has been moved or deleted"
        hint = "if it was moved, name its place with -o; to start over, add --new"
    else:
        what = f"{manifest} was run in {known.run_dir}"
        hint = f"to continue there: -o {known.run_dir}; to start over, add --new"
    if not confirm(f"{what}. Begin a new run in {run.run_dir}, and pay for its jobs again?"):
        raise RunDirError(f"{what}; a new run in {run.run_dir} would pay for its jobs again", hint=hint)


def runs_elsewhere(manifest: Path, run: KnownRun) -> tuple[KnownRun, ...]:
    """Return the runs of a manifest that a run would pay for again, the newest last; none if it is no new run."""
    if not run.is_gone:
        return ()
    return tuple(known for known in _read(manifest) if _is_again(known, run) and _has_paid(known))


def remember(manifest: Path, run: KnownRun) -> None:
    """Add a run to those of its manifest, as the newest one; those whose directories are gone are dropped."""
    others = [known for known in _read(manifest) if known.run_dir != run.run_dir and not known.is_gone]
    write_state(_name(manifest), msgspec.to_builtins([*others, run][-_MAX_RUNS:]))
    with suppress(OSError):
        _forget_oldest(state_folder())


def runs_of(manifest: Path) -> tuple[KnownRun, ...]:
    """Return the runs that a manifest has had, the newest last."""
    return tuple(_read(manifest))


def newest_run(here: Path) -> Path | None:
    """
    Return the directory of the run that was worked on last; None if no run is known.

    The runs in the folder ``output`` that manifests in the folder ``here`` would use come before all others that
    manifests have had on this machine.
    """
    beside = default_run_dir(here / "manifest.yaml", "run", simulate=False).parent
    own = {path.parent for path in beside.glob(f"*/{DB_NAME}")} if beside.is_dir() else set()
    return _newest(own) or _newest(set(_known_dirs()))


def _known_dirs() -> Iterator[Path]:
    with suppress(OSError):
        for path in state_folder().glob(f"{_PREFIX}*.json"):
            yield from (Path(run.run_dir) for run in _read_name(path.stem))


def _newest(run_dirs: Set[Path]) -> Path | None:
    worked_on_at = {run_dir: at for run_dir in run_dirs if (at := _worked_on_at(run_dir)) is not None}
    return max(worked_on_at, key=worked_on_at.__getitem__, default=None)


def _worked_on_at(run_dir: Path) -> float | None:
    times = []
    for name in (DB_NAME, f"{DB_NAME}-wal"):
        with suppress(OSError):
            times.append((run_dir / name).stat().st_mtime)
    return max(times, default=None)


def _is_again(known: KnownRun, run: KnownRun) -> bool:
    if known.run_dir == run.run_dir or known.name == run.name:
        return True
    return known.series is None or known.series != run.series


def _has_paid(known: KnownRun) -> bool:
    if known.is_gone:
        return True
    try:
        with closing(connect_reader(Path(known.run_dir))) as reader:
            return query.has_attempts(reader)
    except RunnerError:
        return True


def _read(manifest: Path) -> Iterator[KnownRun]:
    return _read_name(_name(manifest))


def _read_name(name: str) -> Iterator[KnownRun]:
    with suppress(msgspec.ValidationError):
        yield from msgspec.convert(read_state(name) or [], type=list[KnownRun])


def _name(manifest: Path) -> str:
    return _PREFIX + sha256(os.fsencode(manifest.resolve())).hexdigest()[:32]


def _forget_oldest(folder: Path) -> None:
    names = [name for name in os.listdir(folder) if name.startswith(_PREFIX) and name.endswith(".json")]
    # Not one at a time: then every run would look at the times of all.
    if len(names) > _MAX_MANIFESTS + _MANIFESTS_TO_SPARE:
        paths = [folder / name for name in names]
        for path in sorted(paths, key=lambda path: path.stat().st_mtime)[:-_MAX_MANIFESTS]:
            path.unlink(missing_ok=True)
