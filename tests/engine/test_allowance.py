"""One run's share of a day's budget, with a real ledger and a real store."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from runner.core.budget import Fit
from runner.core.cost import Cost, CostState
from runner.core.lifecycle import State
from runner.core.model import Job, OnChanged
from runner.core.money import Money
from runner.core.prices import Unit
from runner.core.stop import Stop
from runner.engine.allowance import Allowance
from runner.errors import LedgerLocked
from runner.store.ledger import Exchange, Grant, Ledger, Limits
from runner.store.store import Store
from runner.store.sync import sync
from tests.engine.fakes import WALL_AT_0, specs

UNIT = 10**9
DAY = datetime.fromtimestamp(WALL_AT_0, UTC).date().isoformat()


class BrokenLedger(Ledger):
    """A ledger that breaks when it is told to."""

    is_broken = False

    def exchange(self, run: int, exchange: Exchange, limits: Limits) -> Grant:
        if self.is_broken:
            raise LedgerLocked("locked", hint="end the other process")
        return super().exchange(run, exchange, limits)


class Bench:
    """An allowance of a run in progress, and what it reported."""

    def __init__(self, ledger: BrokenLedger, store: Store, limit: int) -> None:
        run, _ = ledger.open_run("a", "a", "/a")
        limits = Limits(day=Money(Decimal(limit), "USD"))
        self.allowance = Allowance(ledger, run, limits, "USD", store, smaller=lambda left: "")
        self.changed, self.stops = asyncio.Event(), list[Stop]()
        self.allowance.on_change = self.changed.set
        self.allowance.on_stop = self.stops.append

    async def take(self, amount: int) -> Fit:
        """Take an amount, after the ledger was asked if it must be."""
        fit = self.allowance.take(amount * UNIT, DAY, 0)
        if fit is Fit.LATER:
            self.changed.clear()
            await self.changed.wait()
            fit = self.allowance.take(amount * UNIT, DAY, 0)
        return fit


def cost(state: CostState, amount: int, settled: int | None = None) -> Cost:
    """Return the cost of a first attempt."""
    return Cost(
        number=1,
        at=WALL_AT_0,
        currency="USD",
        reserved=amount * UNIT,
        unit=Unit.VIDEO,
        rate="1",
        state=state,
        settled=None if settled is None else settled * UNIT,
    )


def job() -> Job:
    """Return the first job."""
    return Job(seq=1, job_id="model-a-000", index=0, model="model-a", state=State.SUBMITTED)


async def test_take_until_nothing_is_left(tmp_path: Path) -> None:
    """The limit may be used up; then nothing fits unless what is in flight may come free."""
    with closing(BrokenLedger(tmp_path / "spend.db")) as ledger, Store(tmp_path / "run") as store:
        async with store:
            bench = Bench(ledger, store, 3)

            assert [Fit.FITS] * 3 == [await bench.take(1) for _ in range(3)]
            assert Fit.NEVER is await bench.take(1)
            assert Fit.LATER is bench.allowance.take(UNIT, DAY, UNIT)
            stop = bench.allowance.exhausted(UNIT)

            assert "budget.day: 3.00 USD of 3.00 USD used by all runs, 0.00 USD left" in stop.message
            assert "the next day (UTC)" in (stop.hint or "")
            await bench.allowance.close()
    assert 0 == Ledger(tmp_path / "spend.db").used("USD", DAY)


async def test_what_comes_free_can_be_taken(tmp_path: Path) -> None:
    """An attempt that was released, and is durable, makes room; the ledger has what became of the others."""
    with closing(BrokenLedger(tmp_path / "spend.db")) as ledger, Store(tmp_path / "run") as store:
        with store.transaction() as connection:
            sync(connection, specs(1), on_changed=OnChanged.ERROR, at=WALL_AT_0)
        async with store:
            bench = Bench(ledger, store, 3)
            assert Fit.FITS is await bench.take(3)
            bench.allowance.changed(job(), cost(CostState.RESERVED, 3), is_new=True)
            assert Fit.NEVER is await bench.take(1)

            bench.allowance.changed(job(), cost(CostState.SETTLED, 3, settled=1), is_new=False)

            assert Fit.FITS is await bench.take(2)
            assert Fit.NEVER is await bench.take(1)
            await bench.allowance.close()
        assert UNIT == ledger.used("USD", DAY)


async def test_a_ledger_that_breaks_stops_the_run(tmp_path: Path) -> None:
    """Nothing more is granted, the run is told once, and the next process brings the ledger up to date."""
    with closing(BrokenLedger(tmp_path / "spend.db")) as ledger, Store(tmp_path / "run") as store:
        async with store:
            bench = Bench(ledger, store, 300)
            ledger.is_broken = True

            assert Fit.LATER is await bench.take(1)
            assert Fit.LATER is bench.allowance.take(UNIT, DAY, 0)

            (stop,) = bench.stops
            assert ("ledger", 3) == (stop.reason, stop.exit_code)
            await bench.allowance.close()
        assert ledger.open_run("a", "a", "/a")[1]


@pytest.mark.parametrize("amount", [1, 5])
async def test_most_jobs_do_not_wait_for_the_ledger(amount: int, tmp_path: Path) -> None:
    """The share is filled up before it is empty."""
    with closing(BrokenLedger(tmp_path / "spend.db")) as ledger, Store(tmp_path / "run") as store:
        with store.transaction() as connection:
            sync(connection, specs(1000), on_changed=OnChanged.ERROR, at=WALL_AT_0)
        async with store:
            bench = Bench(ledger, store, 1_000_000)
            waits = 0
            for _ in range(1000):
                fit = bench.allowance.take(amount * UNIT, DAY, 0)
                if fit is Fit.LATER:
                    waits += 1
                    assert Fit.FITS is await bench.take(amount)
                await asyncio.sleep(0)
            await bench.allowance.close()

    assert waits <= 1 + 1000 // 256


async def test_no_more_than_what_is_to_be_submitted(tmp_path: Path) -> None:
    """A run of three jobs takes the price of three, however much there is: other runs may need the rest."""
    with closing(BrokenLedger(tmp_path / "spend.db")) as ledger, Store(tmp_path / "run") as store:
        with store.transaction() as connection:
            sync(connection, specs(3), on_changed=OnChanged.ERROR, at=WALL_AT_0)
        async with store:
            bench = Bench(ledger, store, 1_000_000)
            assert [Fit.FITS] * 3 == [await bench.take(2) for _ in range(3)]

            assert 6 * UNIT == ledger.used("USD", DAY)
            # What comes back, as with a new take, is asked for when it is needed.
            assert Fit.FITS is await bench.take(2)
            assert 12 * UNIT == ledger.used("USD", DAY)
            # Four are left, of the fifteen that three jobs of five need.
            assert Fit.FITS is await bench.take(5)
            assert 23 * UNIT == ledger.used("USD", DAY)
            await bench.allowance.close()
