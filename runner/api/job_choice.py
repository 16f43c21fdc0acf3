"""Which jobs `--where` and `--sample` choose, and in a plan `--job` and `--retry-failed` too."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from runner.api.options import RunOptions
from runner.core.lifecycle import State
from runner.core.model import JobRecord, JobSpec, OnChanged
from runner.core.sanitize import command_text, sanitize_line
from runner.core.sharding import Sample
from runner.core.where import Condition, UnknownNameFinder
from runner.errors import UsageError
from runner.schema.wording import did_you_mean
from runner.store import query
from runner.store.sync import SyncReport
from runner.store.transitions import Selection, select_for_rerun
from runner.store.work_list import LOST_WITH_TASK, is_match

_MAX_IDS_COMPARED = 5000


def chosen_ids(connection: sqlite3.Connection, options: RunOptions) -> tuple[str, ...] | None:
    """
    Return the ids of the jobs of a run that its options choose, with `--job` too; None if they choose all.

    Raises:
        UsageError: They choose none, though all jobs are there.
    """
    if not _is_choice(options):
        return None
    ids = _choose(query.records(connection), options)
    if not ids and options.shard is None:
        # One shard of many may have none.
        raise nothing_chosen(options.where, query.records(connection))
    return ids


def narrowed(connection: sqlite3.Connection, selection: Selection, options: RunOptions) -> Selection:
    """
    Return a selection of jobs to rerun without those that `--where` and `--sample` do not choose.

    Raises:
        UsageError: No job of the run meets the conditions, which is probably a mistake in them.
    """
    if not _is_choice(options):
        return selection
    select_for_rerun(connection, selection)
    seqs = [seq for (seq,) in connection.execute("SELECT seq FROM selected")]
    return replace(selection, ids=chosen_among(connection, seqs, options))


def chosen_among(
    connection: sqlite3.Connection, seqs: Sequence[int], options: RunOptions
) -> tuple[str, ...] | None:
    """
    Return the ids of those of some jobs, given by their keys, that `--where` and `--sample` choose; None for all.

    Raises:
        UsageError: No job of the run meets the conditions, which is probably a mistake in them.
    """
    if not _is_choice(options):
        return None
    ids = _choose(query.records(connection, seqs), options)
    if seqs and not ids:
        chosen_ids(connection, options)
    elif not seqs:
        require_known_names(options.where, query.records(connection))
    return ids


class ChosenJobs:
    """
    The jobs of a plan that its options choose.

    Args:
        each: Gets them, as from `compare`; those of a sample only with `report`.
        gone: Gets jobs that left the manifest, if the options choose all jobs.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        options: RunOptions,
        each: Callable[[JobSpec, str, State | None], None],
        gone: Callable[[State], None],
    ) -> None:
        self._connection = connection
        self._options = options
        self._gone = gone
        self._where = options.where
        self._is_choice = _is_choice(options) or options.job is not None
        self._is_matched = options.job is None
        self._is_met = False
        self._ids: list[str] = []
        self._sample = (
            None
            if options.sample is None
            else Sample[tuple[JobSpec, str, State | None, bool]](options.sample)
        )
        self._each = each
        self._counts: Counter[str] = Counter()
        self._names = UnknownNameFinder(options.where)

    def add(self, spec: JobSpec, word: str, state: State | None) -> None:
        """Take a job of the manifest, how it compares with the run's, and the state of that."""
        glob = self._options.job
        is_matched = glob is None or is_match(self._connection, spec.job_id, glob)
        self._is_matched = self._is_matched or is_matched
        if not is_matched and len(self._ids) < _MAX_IDS_COMPARED:
            self._ids.append(spec.job_id)
        if self._where:
            is_kept = word == "same" or (word == "changed" and self._options.on_changed is OnChanged.KEEP)
            record = _as_record(spec, state if is_kept and state else State.PENDING)
            self._names.add(record)
            if not _meets(record, self._where):
                return
        self._is_met = True
        if self._sample is not None:
            self._sample.add(spec.job_id, (spec, word, state, is_matched))
        elif is_matched:
            self._take(spec, word, state)

    def gone(self, state: State) -> None:
        """Take a job that left the manifest."""
        if not self._is_choice:
            self._gone(state)

    def report(self, compared: SyncReport) -> SyncReport:
        """
        Return what `compare` found, of the chosen jobs alone.

        Raises:
            UsageError: There are none.
        """
        if not self._is_choice:
            return compared
        for spec, word, state, is_matched in self._sample or ():
            if is_matched:
                self._take(spec, word, state)
        counts = self._counts
        if self._options.job is not None and not self._is_matched:
            raise no_match(self._options.job, self._ids)
        if compared.jobs and not self._is_met:
            raise _nothing_chosen(self._options.where, self._names)
        new, replaced, changed = counts["new"], counts["replaced"], counts["changed"]
        return SyncReport(new, counts.total() - new - replaced - changed, replaced, changed)

    def _take(self, spec: JobSpec, word: str, state: State | None) -> None:
        self._counts[word] += 1
        self._each(spec, word, state)


def _as_record(spec: JobSpec, state: State) -> JobRecord:
    """Return a job of the manifest as the run will know it."""
    return JobRecord(
        spec.job_id, spec.index, spec.model, spec.schema, spec.request, spec.digest, spec.metadata, state
    )


def _meets(record: JobRecord, conditions: Sequence[Condition]) -> bool:
    return all(condition.matches(record) for condition in conditions)


def _is_choice(options: RunOptions) -> bool:
    return bool(options.where) or options.sample is not None


def _choose(records: Iterable[JobRecord], options: RunOptions) -> tuple[str, ...]:
    found = (record.job_id for record in records if not record.is_gone and _meets(record, options.where))
    if options.sample is None:
        return tuple(found)
    sample = Sample[str](options.sample)
    for job_id in found:
        sample.add(job_id, job_id)
    return tuple(sample)


def require_known_names(conditions: Sequence[Condition], records: Iterable[JobRecord]) -> None:
    """
    Check that conditions which no job meets ask for something that jobs have.

    Args:
        records: All jobs of the run.

    Raises:
        UsageError: No job has a value of this name; the hint has the nearest one.
    """
    names = _looked_up(conditions, records)
    if names.unknown is not None:
        raise _nothing_chosen(conditions, names)


def nothing_chosen(conditions: Sequence[Condition], records: Iterable[JobRecord]) -> UsageError:
    """Return the error for conditions that no job of a run meets."""
    return _nothing_chosen(conditions, _looked_up(conditions, records))


def _looked_up(conditions: Sequence[Condition], records: Iterable[JobRecord]) -> UnknownNameFinder:
    names = UnknownNameFinder(conditions)
    for record in records:
        names.add(record)
        if names.unknown is None:
            break
    return names


def _nothing_chosen(conditions: Sequence[Condition], names: UnknownNameFinder) -> UsageError:
    hint = None
    if names.unknown is not None:
        name, known = names.unknown
        such = f"they have {sanitize_line(', '.join(sorted(known)), max_chars=300)}"
        hint = f"no job has {name[:60]!r}; {did_you_mean(name, known) or such}"
    written = " ".join(
        command_text("--where", f"{each.name}{each.operator}{each.value}") for each in conditions
    )
    return UsageError(f"no job of the run meets {written}", hint=hint)


def no_match(glob: str, some: Sequence[str]) -> UsageError:
    """Return the error for a `--job` that matches none; the hint has the nearest of some ids."""
    such = f"the ids are such as {', '.join(map(repr, some[:3]))}" if some else None
    return UsageError(f"no job of the run matches --job {glob!r}", hint=did_you_mean(glob, some) or such)


def ids_to_compare(connection: sqlite3.Connection) -> list[str]:
    """Return ids of the run's jobs, among which a mistyped one is looked for; of a large run only the first."""
    return query.job_ids_with_prefix(connection, "", limit=_MAX_IDS_COMPARED)


def failed_to_retry(connection: sqlite3.Connection, glob: str | None) -> frozenset[str]:
    """Return the ids of the failed jobs that a rerun submits again, and so does `--retry-failed`."""
    select_for_rerun(connection, Selection(states=frozenset({State.FAILED}), glob=glob))
    rows = connection.execute(f"SELECT job_id FROM selected JOIN jobs USING (seq) WHERE NOT {LOST_WITH_TASK}")
    return frozenset(job_id for (job_id,) in rows)
