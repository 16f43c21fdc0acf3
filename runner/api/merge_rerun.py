"""
Merge the results of a rerun on another machine into the run that it began from.

Attempts are united, the files of jobs that succeeded there are copied and checked against their digests, and nothing is
sent. What was paid for and has no whole file here becomes undelivered, so that `resume` downloads it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from runner.api.config import run_environment
from runner.api.journals import journal_of
from runner.api.outputs import Outputs
from runner.api.run_dir import require_facts, require_run
from runner.api.run_facts import RunFacts
from runner.api.run_ledger import settle_ledger
from runner.assets.publish import is_complete, is_uploaded
from runner.core.filenames import PART_SUFFIX, asset_path
from runner.core.lifecycle import Event, State, advance
from runner.core.merge_attempts import unite
from runner.core.model import Asset, Failure, FailureClass, JobRecord
from runner.core.units import format_count
from runner.disk import sync_folder, write_error
from runner.errors import LedgerError, UsageError
from runner.objects import Objects
from runner.results.inline_media import replace_inline_media
from runner.results.reader import open_results
from runner.store import query
from runner.store.store import Store
from runner.store.transitions import recover, replace_job


class MergedRerun(Struct, frozen=True):
    """
    What a rerun added to its run.

    Attributes:
        changed: Ids of the jobs that got further elsewhere.
        files: How many files were copied.
        missing: Ids of jobs that succeeded elsewhere and whose files are not there, or were changed.
        unknown: Ids that the run does not have, or has with another request.
    """

    changed: tuple[str, ...]
    files: int
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def merge_rerun(results: Path, run_dir: Path) -> MergedRerun:
    """
    Unite a results file, and the files beside it, with a run.

    Raises:
        ResultsError: The results can't be read.
        RunDirError: The directory is not a run's, in use, or can't be used.
        UsageError: The results are those of the run itself, or none of their jobs is one of the run.
    """
    require_run(run_dir)
    if results.resolve().parent == run_dir.resolve():
        raise UsageError(f"{results} belongs to {run_dir} itself", hint="name the results of the rerun")
    changed, missing, unknown, files, known = [], [], [], 0, 0
    with Store(run_dir, journal=journal_of(run_dir)) as store:
        with store.transaction() as connection:
            recover(connection, at=time.time())
        facts = require_facts(store.reader, run_dir)
        objects = Objects(run_environment(facts))
        for other in (result.record for result in open_results(results)):
            found = query.job(store.reader, other.job_id, waiting_since=0.0)
            home = next(query.records(store.reader, [found.seq]), None) if found else None
            if found is None or home is None or not _is_same(home, other):
                unknown.append(other.job_id)
                continue
            known += 1
            united = unite(home, other)
            record = united.record
            if united.is_other:
                changed.append(other.job_id)
                if other.assets and not home.attempts:
                    # A process that dies here must not leave files of a job that was never submitted: run.db would
                    # look older than its directory.
                    early = replace(_undelivered(record, results), assets=())
                    with store.transaction() as connection:
                        replace_job(connection, found.seq, early, attempt=united.attempt)
                whole = tuple(_assets(other, results.parent, run_dir, facts, objects))
                files += sum(asset.url is None for asset in whole)
                if len(whole) < len(other.assets):
                    missing.append(other.job_id)
                    record = _undelivered(record, results)
                if other.request.get("seed") != home.request.get("seed"):
                    whole = tuple(replace(asset, request=other.request) for asset in whole)
                record = replace(record, assets=whole)
            if united.is_other or len(record.attempts) > len(home.attempts):
                with store.transaction() as connection:
                    replace_job(connection, found.seq, record, attempt=united.attempt)
        if not known:
            raise UsageError(
                f"no job of {results} is a job of {run_dir}", hint="name the run that the rerun began from"
            )
        with suppress(LedgerError):
            # Otherwise the run's next start does so.
            settle_ledger(store, facts.settings)
        with closing(Outputs(store, facts)) as outputs:
            outputs.finish(now_at=time.time())
    return MergedRerun(tuple(changed), files, tuple(missing), tuple(unknown))


def _assets(
    record: JobRecord, folder: Path, run_dir: Path, facts: RunFacts, objects: Objects
) -> Iterator[Asset]:
    """Fetch the assets of a job, and yield them as the run calls them, without those that are not whole."""
    for asset in record.assets:
        found = _fetch(asset, folder, run_dir, record.job_id, facts)
        if found := found or _uploaded(asset, record.job_id, facts, objects):
            yield found


def _is_same(home: JobRecord, other: JobRecord) -> bool:
    """Return whether two runs have the same job; its seed may have been changed for another take."""
    requests = [replace_inline_media({**record.request, "seed": None}) for record in (home, other)]
    return bool(requests[0] == requests[1])


def _fetch(asset: Asset, source: Path, run_dir: Path, job_id: str, facts: RunFacts) -> Asset | None:
    """Copy a file to where the run has it, durably; return None if it is missing or was changed."""
    relative = PurePosixPath(asset.path)
    if relative.is_absolute() or ".." in relative.parts or not is_complete(str(source / relative), asset):
        return None
    path = asset_path(job_id, asset.kind, relative.suffix, sharded=facts.origin.sharded)
    final = run_dir / path
    part = final.with_name(f"{final.name}{PART_SUFFIX}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with (source / relative).open("rb") as original, part.open("wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        os.replace(part, final)
        sync_folder(final.parent)
    except OSError as error:
        raise write_error(error, final) from None
    copied = replace(asset, path=path)
    return copied if is_complete(str(final), copied) else None


def _uploaded(asset: Asset, job_id: str, facts: RunFacts, objects: Objects) -> Asset | None:
    """Return an asset that is in an object store, as the run calls it; None if it is missing there, or was changed."""
    if not is_uploaded(objects, asset):
        return None
    path = asset_path(job_id, asset.kind, PurePosixPath(asset.path).suffix, sharded=facts.origin.sharded)
    return replace(asset, path=path)


def _undelivered(record: JobRecord, results: Path) -> JobRecord:
    failure = Failure(FailureClass.DOWNLOAD_FAILED, f"its file was not whole beside {results}")
    state = advance(record.state, Event.FILES_LOST) if record.state is State.SUCCEEDED else record.state
    return replace(record, state=state, error=failure)


def merged_lines(merged: MergedRerun, run_dir: Path) -> Iterator[str]:
    """Describe what a rerun added to its run, for people."""
    further, files = format_count(len(merged.changed), "job"), format_count(merged.files, "file")
    yield f"{run_dir}: {further} got further in the rerun; {files} copied"
    if merged.missing:
        yield f"  without a whole file, to download again, free of charge: {format_count(len(merged.missing), 'job')}"
    if merged.unknown:
        unknown = format_count(len(merged.unknown), "job")
        yield f"  left out, because they are not jobs of this run: {unknown}, such as {merged.unknown[0]!r}"
