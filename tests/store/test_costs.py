"""Costs of attempts between runs: after a crash, and after what people say."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from msgspec.structs import replace

from runner.core.cost import Cost, CostState
from runner.core.lifecycle import State
from runner.core.model import Attempt, OnChanged
from runner.core.prices import Unit
from runner.store import costs, query
from runner.store.database import reading
from runner.store.rows import insert_rows
from runner.store.store import Store
from runner.store.sync import sync
from runner.store.transitions import adopt_records, attach_task, mark_not_submitted, recover, write_off
from tests.engine.fakes import specs
from tests.results.records import succeeded

COST = Cost(number=1, at=0.0, currency="USD", reserved=5, unit=Unit.VIDEO, rate="1")
JOB = "model-a-000"


def submitting(connection: sqlite3.Connection) -> None:
    """Add a job that a process left between intent and answer, with its reservation."""
    sync(connection, specs(1), on_changed=OnChanged.ERROR, at=0.0)
    connection.execute("UPDATE jobs SET state = 'submitting', attempt = 1")
    connection.execute("INSERT INTO attempts VALUES (1, 1, 0.0, 'pending', NULL, NULL, NULL, NULL)")
    insert_rows(connection, costs.SAVE_COSTS, [costs.cost_row(1, COST)])


def state_of(store: Store) -> tuple[State, CostState]:
    """Return the states of the job and of its cost."""
    (record,) = query.records(store.reader)
    return record.state, record.costs[0].state


def test_a_crash_keeps_the_cost_as_uncertain(tmp_path: Path) -> None:
    """Nobody knows whether it was charged, and the ledger is to be told."""
    with Store(tmp_path) as store:
        with store.transaction() as connection:
            submitting(connection)
            recover(connection, at=1.0)

        assert (State.UNCERTAIN, CostState.UNCERTAIN) == state_of(store)
        assert query.meta(store.reader).get(costs.LEDGER_DUE) is not None


def test_what_people_say_of_an_uncertain_job(tmp_path: Path) -> None:
    """No task releases it, a task keeps it until that ends, and a job that is given up stays of unknown charge."""
    for name, act, expected in (
        ("released", mark_not_submitted, (State.PENDING, CostState.RELEASED)),
        (
            "attached",
            lambda c, job: attach_task(c, job, "task_1", at=2.0),
            (State.SUBMITTED, CostState.RESERVED),
        ),
        ("given up", write_off, (State.FAILED, CostState.UNCERTAIN)),
    ):
        with Store(tmp_path / name) as store:
            with store.transaction() as connection:
                submitting(connection)
                recover(connection, at=1.0)
                act(connection, JOB)

            assert expected == state_of(store)


def test_costs_that_only_the_results_know(tmp_path: Path) -> None:
    """What is taken over from the results with a later attempt is what that attempt cost alone."""
    line = replace(
        succeeded(JOB),
        attempts=(Attempt(1, 0.0, "accepted", "task_1"), Attempt(2, 9.0, "accepted", "task_2")),
        costs=(replace(COST, number=2, reserved=10, state=CostState.SETTLED, settled=7),),
    )
    with Store(tmp_path) as store:
        with store.transaction() as connection:
            submitting(connection)
            assert 1 == adopt_records(connection, [line], at=1.0)

        assert {1: (COST, replace(line.costs[0], reserved=5, settled=2))} == costs.costs_of(
            store.reader, "[1]"
        )
        assert query.meta(store.reader).get(costs.LEDGER_DUE) is not None


def test_a_database_of_an_earlier_version_has_no_costs(tmp_path: Path) -> None:
    """It is read as it is, and gets the table when a run opens it."""
    with Store(tmp_path) as store, store.transaction() as connection:
        sync(connection, specs(1), on_changed=OnChanged.ERROR, at=0.0)
        connection.execute("DROP TABLE costs")
    with reading(tmp_path) as reader:
        assert () == costs.spend(reader)
        assert {} == costs.costs_of(reader, "[1]")
    with Store(tmp_path) as store:
        assert () == costs.spend(store.reader)
        assert store.reader.execute("SELECT * FROM main.costs").fetchall() == []
