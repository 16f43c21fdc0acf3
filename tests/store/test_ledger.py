"""The ledger: limits that hold over runs and crashes, sums, and files that can't be used."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runner.core.cost import Cost, CostState
from runner.core.money import Money
from runner.core.prices import Unit
from runner.errors import LedgerDamaged, LedgerError, LedgerLocked, LedgerTooNew, UsageError
from runner.store.costs import LedgerEntry
from runner.store.ledger import FORMAT, Exchange, Ledger, LedgerLimits
from runner.store.ledger_report import held, open_to_read, spent_by

DAY, NEXT_DAY = "2026-11-26", "2026-11-27"
UNIT = 10**9


def money(amount: int) -> Money:
    """Return an amount in dollars."""
    return Money(Decimal(amount), "USD")


def entry(
    seq: int, amount: int, state: CostState = CostState.SETTLED, *, day: str = DAY, metadata: str = "{}"
) -> LedgerEntry:
    """Return an attempt that cost a number of dollars."""
    is_open = state in (CostState.RESERVED, CostState.UNCERTAIN)
    cost = Cost(
        number=1,
        at=datetime.fromisoformat(f"{day}T12:00Z").timestamp(),
        currency="USD",
        reserved=amount * UNIT,
        unit=Unit.VIDEO,
        rate="1",
        state=state,
        settled=None if is_open else amount * UNIT,
    )
    return LedgerEntry(seq, "m", metadata, cost)


def take(ledger: Ledger, run: int, need: int, limits: LedgerLimits, *, day: str = DAY, ask: int = 0) -> int:
    """Ask for an allowance, and return what was granted in dollars."""
    exchange = Exchange(day=day, currency="USD", need=need * UNIT, ask=ask * UNIT)
    return ledger.exchange(run, exchange, limits).amount // UNIT


def test_day_and_month_hold_over_all_runs(tmp_path: Path) -> None:
    """What one run holds or has spent, another can't; the next day has a budget of its own, within the month's."""
    limits = LedgerLimits(day=money(10), month=money(15))
    with closing(Ledger(tmp_path / "spend.db")) as ledger:
        first, _ = ledger.open_run("a", "a", "/a")
        second, _ = ledger.open_run("b", "b", "/b")

        assert [6, 0, 4, 0] == [
            take(ledger, first, 6, limits),
            take(ledger, second, 5, limits),
            take(ledger, second, 4, limits),
            take(ledger, first, 1, limits),
        ]
        assert [0, 5] == [take(ledger, first, need, limits, day=NEXT_DAY) for need in (6, 5)]


def test_a_process_whose_run_goes_on_elsewhere_gives_nothing_back(tmp_path: Path) -> None:
    """What it held was dropped when its successor began, which has an allowance of its own under the same name."""
    limits = LedgerLimits(day=money(3))
    with closing(Ledger(tmp_path / "spend.db")) as old, closing(Ledger(tmp_path / "spend.db")) as new:
        run, _ = old.open_run("a", "a", "/a")
        assert 3 == take(old, run, 3, limits)
        assert (run, True) == new.open_run("a", "a", "/b")
        new.sync_run(run, [])
        assert 3 == take(new, run, 3, limits)

        with pytest.raises(LedgerError, match="/b continues with the run"):
            old.exchange(run, Exchange(give_back={DAY: 3 * UNIT}, currency="USD"), limits)
        with pytest.raises(LedgerError):
            old.close_run(run, [])
        assert (3 * UNIT, (run, True)) == (new.used("USD", DAY), new.open_run("a", "a", "/b"))


def test_a_run_gets_at_most_an_eighth_ahead(tmp_path: Path) -> None:
    """An allowance for later jobs leaves room for other runs."""
    with closing(Ledger(tmp_path / "spend.db")) as ledger:
        run, _ = ledger.open_run("a", "a", "/a")

        assert 10 == take(ledger, run, 1, LedgerLimits(day=money(80)), ask=500)
        assert 500 == take(ledger, run, 1, LedgerLimits(), ask=500)


def test_a_settled_attempt_leaves_the_allowance(tmp_path: Path) -> None:
    """What it cost counts, and the rest of its reservation is free for all."""
    limits = LedgerLimits(day=money(10))
    with closing(Ledger(tmp_path / "spend.db")) as ledger:
        run, _ = ledger.open_run("a", "a", "/a")
        take(ledger, run, 10, limits)
        ledger.exchange(
            run, Exchange(entries=[entry(1, 4)], give_back={DAY: 10 * UNIT}, currency="USD"), limits
        )

        assert 4 * UNIT == ledger.used("USD", DAY)
        assert 6 == take(ledger, run, 6, limits)


def test_a_dead_process_is_too_careful_until_its_run_starts_again(tmp_path: Path) -> None:
    """Its allowance counts; the next process of the run replaces all of it by what the run's database says."""
    limits = LedgerLimits(day=money(10))
    with closing(Ledger(tmp_path / "spend.db")) as ledger:
        run, is_new = ledger.open_run("a", "a", "/a")
        take(ledger, run, 9, limits)
        other, _ = ledger.open_run("b", "b", "/b")
        assert 0 == take(ledger, other, 2, limits)

        again, is_due = ledger.open_run("a", "a", "/elsewhere")
        ledger.sync_run(again, [entry(1, 3), entry(2, 2, CostState.UNCERTAIN)])

        assert (run, True, True) == (again, is_new, is_due)
        assert 5 * UNIT == ledger.used("USD", DAY)
        ledger.close_run(again, [])
        assert not ledger.open_run("a", "a", "/a")[1]


def test_sums(tmp_path: Path) -> None:
    """By day, model, run and tag, with what is uncertain and what failed apart; a released attempt is none."""
    path = tmp_path / "spend.db"
    with closing(Ledger(path)) as ledger:
        run, _ = ledger.open_run("a", "kittens", "/a")
        ledger.sync_run(
            run,
            [
                entry(1, 3, metadata='{"split": "train", "caption": "' + "x" * 500 + '"}'),
                entry(2, 2, CostState.UNCERTAIN, metadata='{"split": "test"}'),
                entry(3, 1, CostState.FAILED, day=NEXT_DAY, metadata='{"split": "train"}'),
                entry(4, 9, CostState.RELEASED),
                entry(5, 4, CostState.RESERVED),
                entry(90_000, 1, metadata='{"split": 7}'),
                entry(90_001, 1, metadata='{"split": "7"}'),
            ],
        )
        take(ledger, run, 7, LedgerLimits())
    with open_to_read(path) as ledger:
        assert [(DAY, 5, 7, 4), (NEXT_DAY, 1, 1, 0)] == [
            (row.name, row.attempts, row.spend.spent // UNIT, row.spend.reserved // UNIT)
            for row in spent_by(ledger, "day")
        ]
        assert [("m", 6)] == [(row.name, row.attempts) for row in spent_by(ledger, "model")]
        assert [("kittens", 8)] == [(row.name, row.spend.spent // UNIT) for row in spent_by(ledger, "run")]
        assert [("7", 2), ("", 4), ("test", 2), ("train", 4)] == [
            (row.name, (row.spend.spent + row.spend.reserved) // UNIT)
            for row in spent_by(ledger, "tag:split")
        ]
        assert [(NEXT_DAY, 1)] == [
            (row.name, row.attempts) for row in spent_by(ledger, "day", since=NEXT_DAY)
        ]
        assert {"USD": 7 * UNIT} == held(ledger)


def test_locked(tmp_path: Path) -> None:
    """Another process that keeps the lock is an error that says so, and nothing was changed."""
    path = tmp_path / "spend.db"
    with closing(Ledger(path, lock_wait_s=0.05)) as ledger, closing(sqlite3.connect(path)) as other:
        run, _ = ledger.open_run("a", "a", "/a")
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(LedgerLocked, match="locked by another process") as caught:
            take(ledger, run, 1, LedgerLimits())

        assert 3 == caught.value.exit_code
        other.rollback()
        assert 1 == take(ledger, run, 1, LedgerLimits())


@pytest.mark.parametrize("content", [b"not a database at all, and longer than a header" * 20, b"short"])
def test_damaged(content: bytes, tmp_path: Path) -> None:
    """A file that is not a database is refused, and left as it is."""
    path = tmp_path / "spend.db"
    path.write_bytes(content)

    with pytest.raises(LedgerDamaged, match="left as it is"):
        Ledger(path)

    assert content == path.read_bytes()


def test_database_of_another_program(tmp_path: Path) -> None:
    """Nothing is written into a database that is not a ledger."""
    path = tmp_path / "spend.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")

    with pytest.raises(LedgerDamaged, match="not a ledger"):
        Ledger(path)


def test_newer(tmp_path: Path) -> None:
    """A ledger of a later version is not touched."""
    path = tmp_path / "spend.db"
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {FORMAT + 1}")

    with pytest.raises(LedgerTooNew, match="upgrade runner|format 2"):
        Ledger(path)


def test_what_can_not_be_created_or_read(tmp_path: Path) -> None:
    """A file in the place of the folder, and a ledger that is not there, are clear errors."""
    (tmp_path / "file").write_text("")

    with pytest.raises(LedgerError, match="can't be created"):
        Ledger(tmp_path / "file" / "spend.db")
    with pytest.raises(UsageError, match="there is no ledger"):
        open_to_read(tmp_path / "none.db")


def test_full_disk(tmp_path: Path) -> None:
    """A write that finds no room says so, and the ledger stays whole."""
    path = tmp_path / "spend.db"
    with closing(Ledger(path)) as ledger:
        run, _ = ledger.open_run("a", "a", "/a")
        with ledger.reading() as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(LedgerError, match="no space left"):
            ledger.sync_run(run, [entry(n, 1, metadata=f'{{"tag": "{n:080}"}}') for n in range(500)])

        assert 0 == ledger.used("USD", DAY)


class Runs(RuleBasedStateMachine):
    """
    Two runs that share a day's budget: each reserves, settles, dies and starts again at any moment.

    ``attempts`` is what their databases say; a process dies between any two of its writes.
    """

    LIMIT = 20

    @initialize()
    def start(self) -> None:
        self.ledger = Ledger(Path(":memory:"))
        self.keys: dict[str, int] = {}
        self.left: dict[str, int] = {}
        self.attempts: dict[str, dict[int, Cost]] = defaultdict(dict)
        self.written: dict[str, dict[int, CostState]] = defaultdict(dict)
        for name in ("a", "b"):
            self.open(name)

    @rule(name=st.sampled_from("ab"))
    def open(self, name: str) -> None:
        """A process starts, after the last one died or ended."""
        key, is_due = self.ledger.open_run(name, name, name)
        self.keys[name], self.left[name] = key, 0
        if is_due:
            self.ledger.sync_run(key, self.entries(name, self.attempts[name]))
        self.written[name] = {seq: cost.state for seq, cost in self.attempts[name].items()}

    @rule(name=st.sampled_from("ab"), price=st.integers(1, 5), ask=st.integers(0, 30), dies=st.booleans())
    def submit(self, name: str, price: int, ask: int, dies: bool) -> None:
        """Reserve in the ledger if need be, then with the intent; or die in between."""
        limits = LedgerLimits(day=money(self.LIMIT))
        if self.left[name] < price:
            self.left[name] += take(self.ledger, self.keys[name], price - self.left[name], limits, ask=ask)
        if dies:
            self.open(name)
        elif self.left[name] >= price:
            self.left[name] -= price
            self.attempts[name][len(self.attempts[name])] = entry(0, price, CostState.RESERVED).cost

    @rule(
        name=st.sampled_from("ab"),
        share=st.integers(0, 5),
        state=st.sampled_from([CostState.SETTLED, CostState.RELEASED, CostState.UNCERTAIN, CostState.FAILED]),
        dies=st.booleans(),
        data=st.data(),
    )
    def end(self, name: str, share: int, state: CostState, dies: bool, data: st.DataObject) -> None:
        """An attempt ends in the run's database, and then in the ledger; or the process dies in between."""
        open_ = [seq for seq, cost in self.attempts[name].items() if cost.is_open]
        if not open_:
            return
        seq = data.draw(st.sampled_from(open_))
        cost = self.attempts[name][seq]
        settled = {CostState.RELEASED: 0, CostState.UNCERTAIN: None}.get(state, cost.reserved * share // 5)
        self.attempts[name][seq] = Cost(
            **{
                field: getattr(cost, field)
                for field in ("number", "at", "currency", "reserved", "unit", "rate")
            },
            state=state,
            settled=settled,
        )
        if dies:
            self.open(name)
            return
        is_new = seq not in self.written[name]
        self.written[name][seq] = state
        give_back = {DAY: cost.reserved} if is_new else {}
        changed = {seq: self.attempts[name][seq]}
        exchange = Exchange(entries=list(self.entries(name, changed)), give_back=give_back, currency="USD")
        self.ledger.exchange(self.keys[name], exchange, LedgerLimits(day=money(self.LIMIT)))

    @rule(name=st.sampled_from("ab"))
    def close(self, name: str) -> None:
        """A process ends in good order, and the next one starts: at rest the ledger is what the attempts add up to."""
        self.ledger.close_run(self.keys[name], self.entries(name, self.attempts[name]))
        with self.ledger.reading() as connection:
            (amount,) = connection.execute(
                "SELECT coalesce(sum(amount), 0) FROM totals WHERE run = ?", (self.keys[name],)
            ).fetchone()
        assert amount == sum(cost.amount for cost in self.attempts[name].values())
        assert not self.ledger.open_run(name, name, name)[1]
        self.left[name] = 0
        self.written[name] = {seq: cost.state for seq, cost in self.attempts[name].items()}

    @invariant()
    def never_over(self) -> None:
        """What was reserved and settled fits into the day's budget, by the databases and by the ledger."""
        truth = sum(cost.amount for run in self.attempts.values() for cost in run.values())

        assert truth <= self.ledger.used("USD", DAY) <= self.LIMIT * UNIT

    @staticmethod
    def entries(name: str, attempts: dict[int, Cost]) -> list[LedgerEntry]:
        return [LedgerEntry(seq, "m", "{}", cost) for seq, cost in attempts.items()]

    def teardown(self) -> None:
        self.ledger.close()


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
