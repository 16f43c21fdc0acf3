"""
Make one run directory of the shards of a run.

The shards are marked as merged first, durably, so that none of them continues beside the directory that takes over their
jobs. Everything is built beside that directory and gets its name when it is complete; a merge that was interrupted starts
over.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api.journals import journal_of
from runner.api.outputs import Outputs
from runner.api.run_dir import require_run
from runner.api.run_facts import RunFacts, known_run, read_facts, save_facts
from runner.api.run_ledger import REPLACED, TOKEN, ledger_path, settle_ledger
from runner.api.state_dir import remember
from runner.core.filenames import DB_NAME, VERDICTS_NAME
from runner.core.sanitize import command_text
from runner.core.sharding import Shard
from runner.core.summary import Summary
from runner.core.units import format_count
from runner.disk import sync_folder, write_error
from runner.errors import LedgerError, RunDirError, StoreMissing, UsageError
from runner.store import files, query
from runner.store.database import reading
from runner.store.local_view import copy_rows
from runner.store.lock import RETIRED, RunLock
from runner.store.store import Store
from runner.store.transitions import recover

_MAX_NAMED = 5


class MergedRun(Struct, frozen=True):
    """
    A run directory that was made of shards.

    Attributes:
        summary: Of the whole run.
        missing: Shards that were not there.
        lost_files: Assets that their shard's directory no longer had.
    """

    run_dir: Path
    summary: Summary
    missing: tuple[Shard, ...]
    lost_files: tuple[str, ...]


class _Source(Struct, frozen=True):
    run_dir: Path
    facts: RunFacts
    shard: Shard
    token: str | None


def merge(
    out: Path,
    run_dirs: Sequence[Path],
    *,
    is_partial: bool = False,
    on_progress: Callable[[str], None] = lambda text: None,
) -> MergedRun:
    """
    Merge shards into one run directory, which from then on is the run; the shards' directories stay as they are.

    Args:
        out: The directory; it must not exist, or be empty.
        run_dirs: The directories of all shards, in any order.
        is_partial: Whether shards may be missing. Then the directory never takes in a manifest.

    Raises:
        UsageError: The directories are not the shards of one run.
        RunDirError: One of them, or the directory to write, can't be used.
    """
    sources = [_read_source(run_dir, out) for run_dir in dict.fromkeys(map(Path.absolute, run_dirs))]
    missing = _check_sources(sources, is_partial=is_partial)
    facts = _merged_facts(sources, missing)
    work = out.absolute().with_name(f".{out.name}.merging")
    with _disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
        with RunLock(work, hint="wait for that merge, and continue with what it made"):
            try:
                summary, lost = _merge(out, work / "run", sources, facts, on_progress)
            finally:
                # Last the lock: a process that creates it again may build here at once.
                shutil.rmtree(work / "run", ignore_errors=True)
                shutil.rmtree(work, ignore_errors=True)
    _settle(out, facts)
    if facts.origin.manifest is not None and not facts.origin.is_simulated:
        remember(Path(facts.origin.manifest), known_run(out, facts.settings.name, None))
    return MergedRun(out, summary, missing, tuple(lost))


def _merge(
    out: Path,
    building: Path,
    sources: Sequence[_Source],
    facts: RunFacts,
    on_progress: Callable[[str], None],
) -> tuple[Summary, list[str]]:
    """Build the merged run in a directory that nobody else uses, and give it its name; return which files are lost."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunDirError(f"{out} exists already", hint="name a new directory for the merged run")
    for source in sources:
        _retire(source.run_dir, out)
    shutil.rmtree(building, ignore_errors=True)
    lost: list[str] = []
    with Store(building) as store:
        for number, source in enumerate(sources, 1):
            on_progress(f"merging shard {source.shard} ({number} of {len(sources)})")
            copy_rows(store, source.run_dir / DB_NAME)
            lost += _link_assets(source.run_dir, building)
        with store.transaction() as connection:
            save_facts(connection, facts)
            _save_replaced(connection, sources)
        with closing(Outputs(store, facts)) as outputs:
            summary = outputs.finish(now_at=time.time())
    sync_folder(building)
    for source in sources:
        _require_retired(source.run_dir, out)
    os.rename(building, out.absolute())
    sync_folder(out.absolute().parent)
    return summary, lost


def _read_source(run_dir: Path, out: Path) -> _Source:
    require_run(run_dir)
    with reading(run_dir) as reader:
        facts, token = read_facts(reader), query.meta(reader).get(TOKEN)
        _require_not_merged(reader, run_dir, out)
    if facts is None:
        raise StoreMissing(f"{run_dir} holds no run yet", hint="name the directories of the shards")
    if facts.origin.shard is None:
        raise UsageError(f"{run_dir} is not a shard of a run", hint="name the directories of the shards")
    return _Source(run_dir, facts, facts.origin.shard, token)


def _require_not_merged(reader: sqlite3.Connection, run_dir: Path, out: Path) -> None:
    retired = query.meta(reader).get(RETIRED)
    if retired is not None and Path(retired) != out.absolute() and _has_jobs_of(reader, Path(retired)):
        raise RunDirError(
            f"{run_dir} was merged into {retired}",
            hint=f"continue there: {command_text('runner', 'resume', retired)}",
        )


def _has_jobs_of(shard: sqlite3.Connection, merged: Path) -> bool:
    """Return whether a merge was completed: after one that was killed, another run may have got its directory."""
    if not (merged / DB_NAME).exists():
        return False
    first = next(query.job_ids(shard), "")
    with reading(merged) as reader:
        return query.job_ids_with_prefix(reader, first, limit=1) == [first]


def _require_retired(run_dir: Path, out: Path) -> None:
    """Check that no merge into another directory has begun since: of two, only the later one makes a run."""
    with reading(run_dir) as reader:
        into = query.meta(reader).get(RETIRED)
    if into != str(out.absolute()):
        raise RunDirError(f"{run_dir} is being merged into {into}", hint="wait for that merge")


def _check_sources(sources: Sequence[_Source], *, is_partial: bool) -> tuple[Shard, ...]:
    """Check that directories are the shards of one run, each once; return those that are missing."""
    if not sources:
        raise UsageError("name the directories of the shards", hint="runner merge OUT DIR...")
    first = sources[0]
    by_index: dict[int, _Source] = {}
    for source in sources:
        for what, own, other in (
            ("the run", first.facts.settings.name, source.facts.settings.name),
            ("the gateway", first.facts.gateway, source.facts.gateway),
            ("a number of shards of", first.shard.count, source.shard.count),
        ):
            if own != other:
                raise UsageError(
                    f"{first.run_dir} has {what} {own}, and {source.run_dir} has {what} {other}"
                    + _jobs_in_both(first, source),
                    hint="merge the shards of one run",
                )
        if (twin := by_index.setdefault(source.shard.index, source)) is not source:
            raise UsageError(
                f"{twin.run_dir} and {source.run_dir} are both shard {source.shard}"
                + _jobs_in_both(twin, source),
                hint="merge the one that the run used; what only the other one has was paid for as well",
            )
    missing = tuple(
        Shard(index, first.shard.count) for index in range(first.shard.count) if index not in by_index
    )
    if missing and not is_partial:
        raise UsageError(
            f"{format_count(len(missing), 'shard')} of {first.shard.count} missing: "
            + ", ".join(map(str, missing[:_MAX_NAMED])),
            hint="name their directories too, or add --partial to merge what there is",
        )
    return missing


def _jobs_in_both(one: _Source, other: _Source) -> str:
    """Name jobs that two directories have, which may have been paid for in both."""
    with reading(one.run_dir) as reader, reading(other.run_dir) as second:
        known = set(query.job_ids(second))
        both = list(islice((job_id for job_id in query.job_ids(reader) if job_id in known), _MAX_NAMED + 1))
    if not both:
        return ""
    named = ", ".join(map(repr, both[:_MAX_NAMED]))
    return f"; jobs that both have: {named}{' and more' if len(both) > _MAX_NAMED else ''}"


def _retire(run_dir: Path, out: Path) -> None:
    """Close a shard's directory permanently; what a dead process left in it becomes uncertain first."""
    into = str(out.absolute())
    with reading(run_dir) as reader:
        is_retired = RETIRED in query.meta(reader)
    journal = None if is_retired else journal_of(run_dir)
    may_have_copies = not is_retired and journal is None
    if journal is not None and journal.read().successor == into:
        # A log that is closed is not opened again.
        journal = None
    with Store(run_dir, journal=journal, may_be_retired=True) as store:
        if may_have_copies:
            store.note_place()
            store.require_only()
        _require_not_merged(store.reader, run_dir, out)
        with store.transaction() as connection:
            recover(connection, at=time.time())
        if journal is not None:
            journal.retire(into)
        with store.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (RETIRED, into))


def _merged_facts(sources: Sequence[_Source], missing: Sequence[Shard]) -> RunFacts:
    newest = max(sources, key=lambda source: (source.run_dir / DB_NAME).stat().st_mtime).facts
    missing_indexes = tuple(shard.index for shard in missing)
    return replace(
        newest, origin=replace(newest.origin, shard=None, series=None, missing_shards=missing_indexes)
    )


def _save_replaced(connection: sqlite3.Connection, sources: Sequence[_Source]) -> None:
    """Keep how the ledger knows the shards: what they spent is the merged run's now, and is not to count twice."""
    tokens = [source.token for source in sources if source.token is not None]
    if tokens:
        connection.execute("INSERT INTO meta VALUES (?, ?)", (REPLACED, json.dumps(tokens)))


def _settle(out: Path, facts: RunFacts) -> None:
    """Tell the ledger that the shards are one run now, if it is on this machine; else the run's next start does so."""
    budget = facts.settings.budget
    if budget is None or not ledger_path(budget, out).is_file():
        return
    with suppress(LedgerError), Store(out) as store:
        settle_ledger(store, facts.settings)


def _link_assets(source: Path, target: Path) -> Iterator[str]:
    """Give the files of a shard a second name below the target, or copy them; yield those that are not there."""
    with reading(source) as reader:
        paths, uploaded = list(files.asset_sizes(reader)), set(files.all_uploaded(reader))
    folders = {target}
    for path in paths:
        new = target / path
        new.parent.mkdir(parents=True, exist_ok=True)
        folders.update((new.parent, new.parent.parent))
        try:
            os.link(source / path, new)
        except FileNotFoundError:
            if path not in uploaded:
                yield path
        except OSError:
            _copy(source / path, new)
    if (source / VERDICTS_NAME).exists():
        with open(target / VERDICTS_NAME, "ab") as verdicts:
            verdicts.write((source / VERDICTS_NAME).read_bytes())
            verdicts.flush()
            os.fsync(verdicts.fileno())
    for folder in folders:
        sync_folder(folder)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as read, open(target, "xb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(error, error.filename or path) from error


def merge_summary(merged: MergedRun) -> Mapping[str, object]:
    """Return what a merge made, as JSON."""
    return {
        "run_dir": str(merged.run_dir),
        "jobs": merged.summary.jobs,
        "missing_shards": [shard.index for shard in merged.missing],
        "lost_files": list(merged.lost_files),
    }
