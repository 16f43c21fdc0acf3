"""List the jobs of a run, or read one with all its attempts, even while the run is active."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct

from runner.api.job_choice import ids_to_compare, require_known_names
from runner.api.run_facts import read_facts
from runner.core.filenames import DB_NAME
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.where import Condition
from runner.errors import UsageError
from runner.schema.wording import did_you_mean
from runner.store import query
from runner.store.database import connect_reader, translated


class RunJobs(Struct, frozen=True):
    """
    Jobs of a run.

    Attributes:
        run: The name of the run.
        gateway: As result lines have it.
    """

    run: str
    gateway: str
    records: Iterable[JobRecord]


class JobDetails(Struct, frozen=True):
    """
    One job of a run.

    Attributes:
        answers: The answers that were not understood, or their start, by the number of the attempt.
    """

    run: str
    gateway: str
    record: JobRecord
    answers: Mapping[int, str]


def jobs(
    run_dir: Path,
    *,
    states: Collection[State] = (),
    classes: Collection[FailureClass] = (),
    glob: str | None = None,
    where: Sequence[Condition] = (),
) -> RunJobs:
    """
    Find jobs of a run, in manifest order.

    Args:
        states: Only jobs in one of these; all if it is empty.
        classes: Only jobs with one of these failure classes; all if it is empty.
        glob: Only jobs whose id matches.
        where: Only jobs that meet all these conditions.

    Raises:
        StoreMissing: The directory is no run directory.
        RunDirError: Its ``run.db`` can't be read.
        UsageError: While they are read: a condition names what no job of the run has.
    """
    name, gateway = _facts(run_dir)

    def found() -> Iterator[JobRecord]:
        with closing(connect_reader(run_dir)) as connection, translated(run_dir / DB_NAME):
            records = query.records_in(connection, frozenset(states)) if states else query.records(connection)
            is_empty = True
            for record in records:
                if classes and (record.error is None or record.error.cls not in classes):
                    continue
                if glob is not None and not fnmatchcase(record.job_id, glob):
                    continue
                if all(condition.matches(record) for condition in where):
                    is_empty = False
                    yield record
            if is_empty and where:
                require_known_names(where, query.records(connection))

    return RunJobs(name, gateway, found())


def job(run_dir: Path, job_id: str) -> JobDetails:
    """
    Read one job of a run.

    Raises:
        UsageError: The run has no such job; the hint has the nearest id.
        StoreMissing: The directory is no run directory.
        RunDirError: Its ``run.db`` can't be read.
    """
    name, gateway = _facts(run_dir)
    with closing(connect_reader(run_dir)) as connection, translated(run_dir / DB_NAME):
        found = query.job(connection, job_id, waiting_since=0.0)
        if found is None:
            raise UsageError(
                f"{run_dir} has no job {job_id!r}",
                hint=did_you_mean(job_id, ids_to_compare(connection)) or "list them with: runner jobs",
            )
        (record,) = query.records(connection, [found.seq])
        return JobDetails(name, gateway, record, query.answers(connection, job_id))


def _facts(run_dir: Path) -> tuple[str, str]:
    with closing(connect_reader(run_dir)) as connection, translated(run_dir / DB_NAME):
        facts = read_facts(connection)
    return (run_dir.name, "") if facts is None else (facts.settings.name, facts.gateway)
