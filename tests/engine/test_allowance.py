"""One run's share of a day's budget, with a real ledger and a real store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
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
from runner.core.stop import Stop, StopReason
from runner.engine.allowance import Allowance
from runner.errors import LedgerError, LedgerLocked
from runner.store.costs import LedgerEntry
from runner.store.database import connect_reader
from runner.store.ledger import Exchange, Grant, Ledger, LedgerLimits
from runner.store.store import Store
from runner.store.sync import sync
from tests.engine.fakes import WALL_AT_0, specs

UNIT = 10**9
DAY = datetime.fromtimestamp(WALL_AT_0, UTC).date().isoformat()


class BrokenLedger(Ledger):
    """A ledger that breaks when it is told to, and counts what it is asked."""

    is_broken = False
    exchanges = 0
    before_exchange: Callable[[], None] | None = None

    def exchange(self, run: int, exchange: Exchange, limits: LedgerLimits) -> Grant:
        self.exchanges += 1
        if self.before_exchange is not None and exchange.entries:
            self.before_exchange()
        if self.is_broken:
            raise LedgerLocked("locked", hint="end the other process")
        return super().exchange(run, exchange, limits)

    def close_run(self, run: int, entries: Iterable[LedgerEntry]) -> None:
        if self.is_broken:
            raise LedgerError("no space left", hint="free some space")
        super().close_run(run, entries)


class Bench:
    """An allowance of a run in progress, and what it reported."""

    def __init__(self, ledger: BrokenLedger, store: Store, limit: int, name: str = "a") -> None:
        run, _ = ledger.open_run(name, name, f"/{name}")
        limits = LedgerLimits(day=Money(Decimal(limit), "USD"))
        self.allowance = Allowance(ledger, run, limits, "USD", store, smaller=lambda left: "")
        self.ledger, self.store = ledger, store
        self.changed, self.stops = asyncio.Event(), list[Stop]()
        self.allowance.on_change = self.changed.set
        self.allowance.on_stop = self.stops.append

    async def take(self, amount: int, seq: int = 1) -> Fit:
        """Take an amount for a job, after the ledger was asked if it must be."""
        fit = self.allowance.take((seq, 1), amount * UNIT, DAY, 0)
        if fit is Fit.LATER:
            self.changed.clear()
            await self.changed.wait()
            fit = self.allowance.take((seq, 1), amount * UNIT, DAY, 0)
        return fit


@asynccontextmanager
async def opened(folder: Path, limit: int, *, jobs: int = 1, name: str = "a") -> AsyncIterator[Bench]:
    """Open a run of some jobs, the ledger, and the run's allowance."""
    with closing(BrokenLedger(folder / "spend.db")) as ledger, Store(folder / name) as store:
        with store.transaction() as connection:
            sync(connection, specs(jobs), on_changed=OnChanged.ERROR, at=WALL_AT_0)
        async with store:
            bench = Bench(ledger, store, limit, name)
            yield bench
            await bench.allowance.close()


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


def job(seq: int = 1) -> Job:
    """Return a job, by default the first one."""
    return Job(seq=seq, job_id=f"model-a-{seq - 1:03}", index=0, model="model-a", state=State.SUBMITTED)


async def test_take_until_nothing_is_left(tmp_path: Path) -> None:
    """The limit may be used up; then nothing fits unless what is in flight may come free."""
    async with opened(tmp_path, 3) as bench:
        assert [Fit.FITS] * 3 == [await bench.take(1) for _ in range(3)]
        assert Fit.NEVER is await bench.take(1)
        assert Fit.LATER is bench.allowance.take((2, 1), UNIT, DAY, UNIT)
        stop = bench.allowance.exhausted(UNIT)

        assert "budget.day: 3.00 USD of 3.00 USD used by all runs, 0.00 USD left" in stop.message
        assert "the next day (UTC)" in (stop.hint or "")
    assert 0 == Ledger(tmp_path / "spend.db").used("USD", DAY)


async def test_what_comes_free_can_be_taken(tmp_path: Path) -> None:
    """An attempt that was released, and is durable, makes room; the ledger has what became of the others."""
    async with opened(tmp_path, 3) as bench:
        assert Fit.FITS is await bench.take(3)
        assert Fit.NEVER is await bench.take(1)

        bench.allowance.changed(job(), cost(CostState.SETTLED, 3, settled=1))

        assert Fit.FITS is await bench.take(2, seq=2)
        assert Fit.NEVER is await bench.take(1, seq=3)
    assert UNIT == Ledger(tmp_path / "spend.db").used("USD", DAY)


async def test_a_ledger_that_breaks_stops_the_run(tmp_path: Path) -> None:
    """Nothing more is granted, the run is told once, and the next process brings the ledger up to date."""
    async with opened(tmp_path, 300) as bench:
        bench.ledger.is_broken = True

        assert Fit.LATER is await bench.take(1)
        assert Fit.LATER is bench.allowance.take((2, 1), UNIT, DAY, 0)

        (stop,) = bench.stops
        assert ("ledger", 3) == (stop.reason, stop.exit_code)
    assert Ledger(tmp_path / "spend.db").open_run("a", "a", "/a")[1]


async def test_a_ledger_that_breaks_at_the_end_is_reported(tmp_path: Path) -> None:
    """A full disk says what the ledger does not know, and the next process brings it up to date."""
    async with opened(tmp_path, 300) as bench:
        assert Fit.FITS is await bench.take(1)
        bench.ledger.is_broken = True

        await bench.allowance.close()

        (stop,) = bench.stops
        assert ("ledger", 3) == (stop.reason, stop.exit_code)
        assert f"no space left; until the run is continued, what it spent is only in {tmp_path / 'a'}" == (
            stop.message
        )
        assert "free some space" == stop.hint
    assert Ledger(tmp_path / "spend.db").open_run("a", "a", "/a")[1]


@pytest.mark.parametrize("table", ["jobs", "costs"])
async def test_a_run_that_can_not_be_read_stops(table: str, tmp_path: Path) -> None:
    """Nobody waits forever for a ledger that can't be told what the run has, and the end of the run goes on."""
    async with opened(tmp_path, 3) as bench:
        bench.store._connection.execute(f"DROP TABLE {table}")
        async with asyncio.timeout(10):
            await bench.take(1)
    (stop,) = bench.stops

    assert StopReason.STORE is stop.reason


@pytest.mark.parametrize("amount", [1, 5])
async def test_most_jobs_do_not_wait_for_the_ledger(amount: int, tmp_path: Path) -> None:
    """The share is filled up before it is empty."""
    async with opened(tmp_path, 1_000_000, jobs=1000) as bench:
        waits = 0
        for _ in range(1000):
            fit = bench.allowance.take((1, 1), amount * UNIT, DAY, 0)
            if fit is Fit.LATER:
                waits += 1
                assert Fit.FITS is await bench.take(amount)
            await asyncio.sleep(0)

    assert waits <= 1 + 1000 // 256
    assert bench.ledger.exchanges <= 8


async def test_a_stop_gives_back_what_is_not_needed(tmp_path: Path) -> None:
    """Others can have what a stopped run will not submit, while its jobs in flight continue."""
    async with opened(tmp_path, 1_000_000, jobs=100) as bench:
        assert Fit.FITS is await bench.take(1)
        assert 100 * UNIT == bench.ledger.used("USD", DAY)
        bench.changed.clear()

        bench.allowance.stop()

        await bench.changed.wait()
        assert UNIT == bench.ledger.used("USD", DAY)
        assert Fit.LATER is bench.allowance.take((2, 1), UNIT, DAY, 0)


async def test_what_comes_free_while_the_ledger_answers(tmp_path: Path) -> None:
    """A refusal is not final if an attempt was released in the meantime."""
    async with opened(tmp_path, 3) as bench:
        assert Fit.FITS is await bench.take(3)
        bench.changed.clear()

        assert Fit.LATER is bench.allowance.take((2, 1), UNIT, DAY, 3 * UNIT)
        await asyncio.sleep(0)
        bench.allowance.changed(job(), cost(CostState.SETTLED, 3, settled=1))
        await bench.changed.wait()

        assert Fit.FITS is await bench.take(2)


async def test_the_ledger_learns_only_what_is_durable(tmp_path: Path) -> None:
    """What an attempt settled for is in the run's database before the ledger frees the rest of its reservation."""
    durable: list[str] = []
    async with opened(tmp_path, 300) as bench:
        bench.store.costs.listener = lambda saved, before, after: bench.allowance.changed(saved, after)
        bench.ledger.before_exchange = lambda: durable.extend(
            state for (state,) in connect_reader(tmp_path / "a").execute("SELECT state FROM costs")
        )
        assert Fit.FITS is await bench.take(3)
        submitted = job()
        submitted.cost, submitted.state = cost(CostState.RESERVED, 3), State.SUBMITTING
        await bench.store.durable(bench.store.save(submitted))
        submitted.state = State.SUCCEEDED
        bench.changed.clear()

        bench.store.save(submitted)
        bench.allowance.stop()
        await bench.changed.wait()

        assert [CostState.SETTLED] == durable


@pytest.mark.parametrize("seed", range(3))
async def test_what_runs_take_is_in_the_ledger_first(seed: int, tmp_path: Path) -> None:
    """Whatever two runs take and settle, another process sees at least that much, and no more than the limit."""
    rng, limit = random.Random(seed), 600
    async with (
        opened(tmp_path, limit, jobs=400, name="a") as first,
        opened(tmp_path, limit, jobs=400, name="b") as second,
    ):
        spent, open_ = 0, list[tuple[Bench, int, int]]()
        with closing(Ledger(tmp_path / "spend.db")) as seen:
            for seq in range(1, 401):
                bench, price = rng.choice([first, second]), rng.randint(1, 3)
                if Fit.FITS is await bench.take(price, seq):
                    spent += price
                    open_.append((bench, seq, price))
                if open_ and rng.random() < 0.3:
                    bench, ended, price = open_.pop(rng.randrange(len(open_)))
                    settled = rng.randint(0, price)
                    change = cost(CostState.SETTLED, price, settled=settled)
                    bench.allowance.changed(job(ended), change)
                    spent -= price - settled
                assert spent * UNIT <= seen.used("USD", DAY) <= limit * UNIT
        assert spent > limit // 2


async def test_no_more_than_what_is_to_be_submitted(tmp_path: Path) -> None:
    """A run of three jobs takes the price of three, however much there is: other runs may need the rest."""
    async with opened(tmp_path, 1_000_000, jobs=3) as bench:
        assert [Fit.FITS] * 3 == [await bench.take(2) for _ in range(3)]

        assert 6 * UNIT == bench.ledger.used("USD", DAY)
        # What comes back, as with a new take, is asked for when it is needed.
        assert Fit.FITS is await bench.take(2)
        assert 12 * UNIT == bench.ledger.used("USD", DAY)
        # Four are left, of the fifteen that three jobs of five need.
        assert Fit.FITS is await bench.take(5)
        assert 23 * UNIT == bench.ledger.used("USD", DAY)
