"""
What is remembered for the user outside the run directories: the runs of each manifest, and rates that were allowed.

It is kept in ``$XDG_STATE_HOME/runner``, by default ``~/.local/state/runner``, and only helps: nothing depends on it, so
whatever can't be read counts as absent, and whatever can't be written is not kept.

Because the runs of a manifest are known, a second one does not begin by mistake and pay for all jobs again. Rates are
kept for each gateway and key: a nightly run with a dated name has a new directory each time, and would otherwise learn
the same rates every night.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec

from runner.api.run_facts import LEARNED, KnownRun, default_run_dir, read_facts
from runner.core.filenames import DB_NAME
from runner.core.sanitize import command_text
from runner.engine.events import ignore
from runner.errors import RunDirError, RunnerError, StoreMissing
from runner.store import query
from runner.store.database import reading
from runner.store.freshness import require_database
from runner.store.store import Store

_MAX_RUNS = 100
"""Of one manifest."""
_MAX_MANIFESTS, _MANIFESTS_TO_SPARE = 1000, 100
_PREFIX = "runs-"
_ANSWERS_WITHIN_S = 2.0
"""A disk that does not, such as a network mount whose server is gone, may never answer."""


def require_continued(manifest: Path, run: KnownRun, confirm: Callable[[str], bool]) -> None:
    """
    Check that a run is not a second one of its manifest, or is to be one.

    A run that has paid for nothing does not count, and neither does another one of the same series. One whose
    directory is gone counts: it may have been moved.

    Args:
        confirm: Asks whether to begin all the same; gets the question.

    Raises:
        StoreMissing: It continues in its own directory, whose ``run.db`` is gone: another place is no way out.
        RunDirError: The manifest has been run elsewhere.
    """
    elsewhere = runs_elsewhere(manifest, run)
    if not elsewhere:
        return
    require_database(Path(run.run_dir))
    known = elsewhere[-1]
    if not (seen := last_changes([Path(known.run_dir)])):
        what = f"{manifest} was run in {known.run_dir}, on a disk that does not answer"
        hint = (
            f"to continue there when it does: {command_text('-o', known.run_dir)}; to start over, add --new"
        )
    elif None in seen.values():
        what = f"{manifest} was run in {known.run_dir}, which has been moved or deleted"
        hint = "if it was moved, name its place with -o; to start over, add --new"
    else:
        what = f"{manifest} was run in {known.run_dir}"
        hint = f"to continue there: {command_text('-o', known.run_dir)}; to start over, add --new"
    if not confirm(f"{what}. Begin a new run in {run.run_dir}, and pay for its jobs again?"):
        raise RunDirError(f"{what}; a new run in {run.run_dir} would pay for its jobs again", hint=hint)


def runs_elsewhere(manifest: Path, run: KnownRun) -> tuple[KnownRun, ...]:
    """Return the runs of a manifest that a run would pay for again, the newest last; none if it is not a new run."""
    if os.path.exists(Path(run.run_dir) / DB_NAME):
        return ()
    others = [known for known in _read(manifest) if _is_again(known, run)]
    changes = last_changes(Path(known.run_dir) for known in others)
    return tuple(known for known in others if changes.get(Path(known.run_dir)) is None or _has_paid(known))


def remember(manifest: Path, run: KnownRun) -> None:
    """Add a run to those of its manifest, as the newest one; those whose directories are gone are dropped."""
    others = [known for known in _read(manifest) if known.run_dir != run.run_dir]
    changes = last_changes(Path(known.run_dir) for known in others)
    others = [known for known in others if changes.get(Path(known.run_dir), 0.0) is not None]
    write_state(_name(manifest), msgspec.to_builtins([*others, run][-_MAX_RUNS:]))
    with suppress(OSError):
        _forget_oldest(state_folder())


def runs_of(manifest: Path) -> tuple[KnownRun, ...]:
    """Return the runs that a manifest has had, the newest last."""
    return tuple(_read(manifest))


def newest_run(here: Path, on_silent: Callable[[Path], None] = ignore) -> Path | None:
    """
    Return the directory of the run that was worked on last; None if no run is known.

    The runs in the folder ``output`` that manifests in the folder ``here`` would use come before all others that
    manifests have had on this machine.

    Args:
        on_silent: Gets each directory that was skipped, because its disk does not answer.
    """
    beside = default_run_dir(here / "manifest.yaml", "run", simulate=False).parent
    own = {path.parent for path in beside.glob(f"*/{DB_NAME}")} if beside.is_dir() else set()
    return _newest(last_changes(own, on_silent)) or _newest(last_changes(_known_dirs(), on_silent))


def _known_dirs() -> Iterator[Path]:
    with suppress(OSError):
        for path in state_folder().glob(f"{_PREFIX}*.json"):
            yield from (Path(run.run_dir) for run in _read_name(path.stem))


def _newest(changes: Mapping[Path, float | None]) -> Path | None:
    times = {run_dir: at for run_dir, at in changes.items() if at is not None}
    newest_first = sorted(times, key=times.__getitem__, reverse=True)
    return next((run_dir for run_dir in newest_first if _has_begun(run_dir)), None)


def _has_begun(run_dir: Path) -> bool:
    """Return whether a directory is a run's: one that was refused, or killed while it read the manifest, is none yet."""
    try:
        with reading(run_dir) as reader:
            return read_facts(reader) is not None
    except StoreMissing:
        return False
    except RunnerError:
        # Whoever works on it gets an error that says what is wrong.
        return True


def _changed_at(run_dir: Path) -> float | None:
    times = []
    for name in (DB_NAME, f"{DB_NAME}-wal"):
        with suppress(OSError):
            times.append((run_dir / name).stat().st_mtime)
    return max(times, default=None)


def last_changes(
    run_dirs: Iterable[Path],
    on_silent: Callable[[Path], None] = ignore,
    *,
    changed_at: Callable[[Path], float | None] = _changed_at,
    within_s: float = _ANSWERS_WITHIN_S,
) -> dict[Path, float | None]:
    """
    Return when each run was worked on last, in seconds since 1970; None for a directory that is not a run's.

    Args:
        on_silent: Gets each directory that is not in the result, because its disk does not answer.
        changed_at: Looks at one directory.
        within_s: How long to wait for all answers.
    """
    found: dict[Path, float | None] = {}
    by_folder: dict[Path, list[Path]] = {}
    for run_dir in dict.fromkeys(run_dirs):
        by_folder.setdefault(run_dir.parent, []).append(run_dir)

    def check(members: list[Path]) -> None:
        for run_dir in members:
            found[run_dir] = changed_at(run_dir)

    # A thread that hangs in the kernel does not keep the process from ending.
    threads = [Thread(target=check, args=(members,), daemon=True) for members in by_folder.values()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    answered = dict(found)
    for run_dir in (each for members in by_folder.values() for each in members):
        if run_dir not in answered:
            on_silent(run_dir)
    return answered


def _is_again(known: KnownRun, run: KnownRun) -> bool:
    if known.run_dir == run.run_dir or known.name == run.name:
        return True
    return known.series is None or known.series != run.series


def _has_paid(known: KnownRun) -> bool:
    try:
        with reading(Path(known.run_dir)) as reader:
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


MAX_BYTES = 1 << 20


def state_folder() -> Path:
    """
    Return the folder; it need not exist.

    Raises:
        OSError: The user has no home.
    """
    # A relative path is to be ignored, by the specification.
    configured = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(configured) if os.path.isabs(configured) else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise OSError("the user has no home") from error
    return base / "runner"


def read_state(name: str) -> Any:
    """Return the JSON value kept under a name; None if there is none, or it can't be read."""
    with suppress(OSError, ValueError, RecursionError):
        path = state_folder() / f"{name}.json"
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def write_state(name: str, value: Any) -> None:
    """Keep a JSON value under a name, in place of the one before, if that is possible."""
    with suppress(OSError):
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value)
        if len(text) > MAX_BYTES:
            return
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, folder / f"{name}.json")
        except OSError:
            os.unlink(temporary)
            raise


_NAME = "rates"
_MAX_ACCOUNTS = 100


def read_learned(
    text: str | None,
    gateway: str,
    fingerprints: Iterable[str],
    *,
    submit_per_s: float | None = None,
    is_shard: bool = False,
) -> dict[str, float]:
    """
    Return the rates to start with, by model; under "" for the whole run.

    Args:
        text: What the run directory knows; None if nothing was submitted there yet.
        fingerprints: Of the keys that the run uses.
        is_shard: Whether the run is one of several shards, whose rates say nothing of the account.
        submit_per_s: The rate that the user asks for, which resets what was learned; or None.
    """
    if submit_per_s is not None:
        return {}
    if text is not None:
        return _checked(json.loads(text))
    accounts = None if is_shard else read_state(_NAME)
    return _checked(accounts.get(_account(gateway, fingerprints))) if isinstance(accounts, dict) else {}


def save_learned(
    store: Store,
    rates: Mapping[str, float],
    gateway: str,
    fingerprints: Iterable[str],
    *,
    is_shard: bool = False,
) -> None:
    """
    Keep the rates for the next run; none at all if the configured ones were never refused.

    Raises:
        RunnerError: The store can't be written.
    """
    store.set_meta(LEARNED, json.dumps(rates))
    if is_shard:
        return
    found = read_state(_NAME)
    accounts = found if isinstance(found, dict) else {}
    account = _account(gateway, fingerprints)
    known = accounts.pop(account, None)
    if rates:
        accounts[account] = dict(rates)
    if rates or known is not None:
        write_state(_NAME, dict(list(accounts.items())[-_MAX_ACCOUNTS:]))


def _account(gateway: str, fingerprints: Iterable[str]) -> str:
    return " ".join([gateway, *sorted(fingerprints)])


def _checked(value: Any) -> dict[str, float]:
    """Keep only rates, since anybody may have written the file."""
    if not isinstance(value, dict):
        return {}
    return {
        model: float(per_s)
        for model, per_s in value.items()
        if isinstance(per_s, int | float) and 0 < per_s < float("inf")
    }
