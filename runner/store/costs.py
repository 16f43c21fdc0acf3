"""Costs of attempts in ``run.db``: rows, queries, and what changes between runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from runner.core.budget import next_cost
from runner.core.cost import Cost, CostState, Spend
from runner.core.lifecycle import State
from runner.core.merge_attempts import unite_costs
from runner.core.model import Asset, AssetKind, Attempt, Job, JobRecord
from runner.core.prices import Unit
from runner.jsontext import loads
from runner.store.rows import BulkStatement, Row, insert_rows
from runner.store.work_list import JobFilter

SCHEMA = """
CREATE TABLE IF NOT EXISTS costs (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    currency TEXT NOT NULL,
    reserved INTEGER NOT NULL,
    unit TEXT NOT NULL,
    rate TEXT NOT NULL,
    has_input INTEGER NOT NULL,
    state TEXT NOT NULL,
    settled INTEGER,
    basis TEXT NOT NULL,
    PRIMARY KEY (seq, number)
) WITHOUT ROWID;
"""
"""What each attempt costs, in billionths; the row is written in the commit of the attempt's intent."""

SAVE_COSTS = BulkStatement("INSERT OR REPLACE INTO costs VALUES ", 11)

LEDGER_DUE = "ledger_due"
"""Key of the mark that costs were changed outside of a run, and the ledger does not know it yet."""

_STATES = {state.value: state for state in CostState}
_UNITS = {unit.value: unit for unit in Unit}
_AMOUNT = "coalesce(settled, reserved)"


_UNDER_WAY = frozenset({State.SUBMITTED, State.DOWNLOADING})
"""States in which an open cost stays as it is."""


class CostKeeper(Struct):
    """
    Follows the costs of jobs as they are saved.

    Attributes:
        refunds_failed: Whether tasks that failed count as not charged.
        listener: Gets each job whose cost may have changed since its intent, as it was and as it is; None for nobody.
    """

    refunds_failed: bool = False
    listener: Callable[[Job, Cost, Cost], None] | None = None

    def update(
        self, job: Job, before: Cost, attempt: Attempt | None, assets: Sequence[Asset] | None
    ) -> Row | None:
        """Bring the cost of a job up to date, and return its row if it changed."""
        state = job.state
        if before.state is CostState.RESERVED and state in _UNDER_WAY:
            return None
        if state is State.SUBMITTING:
            return cost_row(job.seq, before)
        after = before
        if state is not State.PENDING or (attempt is not None and before.is_open):
            video_s = None
            for asset in assets or ():
                if asset.kind is AssetKind.VIDEO:
                    video_s = asset.duration_s
            after = next_cost(
                before,
                state,
                outcome=None if attempt is None else attempt.outcome,
                failure=None if job.error is None else job.error.cls,
                usage=job.usage,
                video_s=video_s,
                refunds_failed=self.refunds_failed,
            )
        # A pending job waits for an attempt that has its own cost.
        job.cost = None if state is State.PENDING else after
        if self.listener is not None:
            self.listener(job, before, after)
        return cost_row(job.seq, after) if after is not before else None


def cost_row(seq: int, cost: Cost) -> Row:
    """Return the row of a cost for `SAVE_COSTS`."""
    return (
        seq,
        cost.number,
        cost.at,
        cost.currency,
        cost.reserved,
        cost.unit._value_,
        cost.rate,
        cost.has_input,
        cost.state._value_,
        cost.settled,
        cost.basis,
    )


def read_cost(row: Sequence[Any]) -> Cost:
    """Convert a row of ``costs`` to a cost."""
    _, number, at, currency, reserved, unit, rate, has_input, state, settled, basis = row
    return Cost(
        number=number,
        at=at,
        currency=currency,
        reserved=reserved,
        unit=_UNITS[unit],
        rate=rate,
        has_input=bool(has_input),
        state=_STATES[state],
        settled=settled,
        basis=basis,
    )


def attach_costs(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """Give jobs of earlier processes the costs and the usages of their attempts."""
    by_seq = {job.seq: job for job in jobs}
    seqs = json.dumps(list(by_seq))
    for row in connection.execute(
        "SELECT c.* FROM costs c JOIN jobs j ON c.seq = j.seq AND c.number = j.attempt "
        "WHERE c.seq IN (SELECT value FROM json_each(?))",
        (seqs,),
    ):
        by_seq[row[0]].cost = read_cost(row)
    for seq, usage in connection.execute(
        "SELECT u.seq, u.usage FROM usages u JOIN jobs j ON u.seq = j.seq AND u.number = j.attempt "
        "WHERE u.seq IN (SELECT value FROM json_each(?))",
        (seqs,),
    ):
        by_seq[seq].usage = loads(usage)


def costs_of(connection: sqlite3.Connection, seqs: str) -> dict[int, tuple[Cost, ...]]:
    """Read the costs of some jobs, given as a JSON list of their keys."""
    found: dict[int, tuple[Cost, ...]] = {}
    for row in connection.execute(
        "SELECT * FROM costs WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq, number", (seqs,)
    ):
        seq, cost = row[0], read_cost(row)
        found[seq] = (*found[seq], cost) if seq in found else (cost,)
    return found


def spend(connection: sqlite3.Connection) -> tuple[Spend, ...]:
    """Add up what the attempts of a run cost, by currency."""
    sums: dict[str, dict[str, int]] = {}
    for currency, state, amount in connection.execute(
        f"SELECT currency, state, sum({_AMOUNT}) FROM costs WHERE state != 'released' GROUP BY 1, 2"
    ):
        sums.setdefault(currency, {})[state] = amount
    return tuple(Spend(currency=currency, **by_state) for currency, by_state in sorted(sums.items()))


class LedgerEntry(Struct, frozen=True):
    """
    An attempt as the ledger has it.

    Attributes:
        metadata: The job's, as JSON.
        is_new: Whether the ledger is known not to have it.
    """

    seq: int
    model: str
    metadata: str
    cost: Cost
    is_new: bool = False


def entries(connection: sqlite3.Connection, seqs: Sequence[int] | None = None) -> Iterator[LedgerEntry]:
    """Read the attempts at some jobs, or at all."""
    where: str = ""
    values: tuple[str, ...] = ()
    if seqs is not None:
        where, values = "WHERE c.seq IN (SELECT value FROM json_each(?))", (json.dumps(seqs),)
    for model, metadata, *row in connection.execute(
        f"SELECT j.model, s.metadata, c.* FROM costs c JOIN jobs j USING (seq) JOIN specs s USING (seq) {where}",
        values,
    ):
        yield LedgerEntry(row[0], model, metadata, read_cost(row))


def metadata_of(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, str]:
    """Read the metadata of those of some jobs that have any, as JSON."""
    return dict(
        connection.execute(
            "SELECT seq, metadata FROM specs WHERE seq IN (SELECT value FROM json_each(?)) AND metadata != '{}'",
            (json.dumps(seqs),),
        ).fetchall()
    )


def pending_requests(
    connection: sqlite3.Connection,
    scope: JobFilter,
    *,
    limit: int | None = None,
    states: Sequence[str] = ("pending",),
) -> Iterator[tuple[str, str, str]]:
    """Read the id, the model and the request's text of the jobs to submit, in manifest order."""
    where, values = scope.condition()
    yield from connection.execute(
        "SELECT job_id, model, request FROM jobs JOIN specs USING (seq) "
        f"WHERE state IN ({', '.join('?' * len(states))}) AND NOT is_gone AND specs.task_id IS NULL {where} "
        "ORDER BY idx LIMIT ?",
        (*states, *values, -1 if limit is None else limit),
    )


# Changes between runs, each in its caller's transaction.


def mark_recovered(connection: sqlite3.Connection, state: State) -> None:
    """Keep the costs of attempts that a dead process left in a state, as uncertain; before the jobs are changed."""
    _change(
        connection,
        "state = 'uncertain'",
        "state = 'reserved' AND (seq, number) IN (SELECT seq, attempt FROM jobs WHERE state = ?)",
        (state.value,),
    )


def release(connection: sqlite3.Connection, seq: int, number: int) -> None:
    """Release the cost of an attempt that made no task, as a person says."""
    values = "state = 'released', settled = 0, basis = 'released'"
    _change(connection, values, "seq = ? AND number = ?", (seq, number))


def reopen(connection: sqlite3.Connection, seq: int, number: int) -> None:
    """Keep the cost of an attempt whose task a person found, until it ends."""
    values = "state = 'reserved', settled = NULL, basis = 'reserved'"
    _change(connection, values, "state = 'uncertain' AND seq = ? AND number = ?", (seq, number))


def united(connection: sqlite3.Connection, seq: int, record: JobRecord) -> JobRecord:
    """Return a record of the run's own results with the costs of the attempts that the store knows."""
    known = costs_of(connection, f"[{seq}]").get(seq, ())
    numbers = {attempt.number for attempt in record.attempts}
    return replace(record, costs=unite_costs(known, record.costs, numbers, is_other=True))


def save(connection: sqlite3.Connection, seq: int, costs: Sequence[Cost]) -> None:
    """Save what the attempts at a job cost that another run made."""
    if costs:
        insert_rows(connection, SAVE_COSTS, [cost_row(seq, cost) for cost in costs])
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '1')", (LEDGER_DUE,))


def _change(connection: sqlite3.Connection, values: str, where: str, parameters: tuple[Any, ...]) -> None:
    if connection.execute(f"UPDATE costs SET {values} WHERE {where}", parameters).rowcount:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '1')", (LEDGER_DUE,))
