"""A run within its budget: what it submits, when it waits, and why it stops."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.budget import Fit
from runner.core.cost import Cost, CostState
from runner.core.lifecycle import State
from runner.core.model import Job
from runner.core.money import Money, parse_money
from runner.core.outcomes import Polled, RemoteStatus, RemoteTask
from runner.core.prices import Price, PriceTable, Unit
from runner.core.settings import CanaryPolicy, Limits
from runner.core.stop import Stop
from runner.engine.budget import RunBudget
from runner.errors import FileChanged
from runner.schema.catalog import load_catalog
from runner.schema.price_tables import Pricer
from runner.store.work_list import JobFilter
from tests.engine.answers import ACCEPTED, AMBIGUOUS, REJECTED, REMOTE_FAILED, RUNNING, THROTTLED
from tests.engine.fakes import FAST, WALL_AT_0, FakeApi, specs
from tests.engine.harness import EngineHarness

PRICER = Pricer(
    (
        PriceTable(
            checked=date(2026, 11, 20),
            source="",
            currency="USD",
            prices=(
                Price(model="model-a", unit=Unit.VIDEO, price=Decimal(1)),
                Price(model="model-b", unit=Unit.MILLION_TOKENS, price=Decimal(1), most_tokens=2_000_000),
            ),
        ),
    ),
    load_catalog(),
)


def budget(**values: Any) -> RunBudget:
    """Return a budget in dollars; a job of model-a costs 1 USD, one of model-b 2 USD at most."""
    amounts = {key: parse_money(f"{each} USD") for key, each in values.items() if isinstance(each, int)}
    return RunBudget(PRICER, **{"currency": "USD", "wall": lambda: WALL_AT_0, **values, **amounts})


def harness(run_dir: Path, count: int = 10, *, model: str = "model-a", **values: Any) -> EngineHarness:
    """Make a run of some jobs."""
    made = EngineHarness(run_dir, **values)
    made.add_jobs(specs(count, model=model))
    return made


@pytest.mark.parametrize(
    "limit", [{"run": 4}, {"process": 4}, {"run": 9, "process": 4}, {"run": 4, "process": 9}]
)
def test_run_stops_where_the_budget_ends(limit: dict[str, int], tmp_path: Path) -> None:
    """As many jobs are submitted as fit, their videos are fetched, and the others stay pending."""
    run = harness(tmp_path)

    done = run.run(budget=budget(**limit))

    assert ["budget"] == done.stop_reasons
    assert {State.SUCCEEDED: 4, State.PENDING: 6} == {state: n for state, n in done.counts.items() if n}
    assert 4 == sum(run.api.paid().values())
    message = done.engine.stops[0].message
    assert "4.00 USD of 4.00 USD used, 0.00 USD left; the next job may cost 1.00 USD" in message


def test_a_budget_of_exactly_all_jobs_is_enough(tmp_path: Path) -> None:
    """The limit itself may be spent, and a run without pending jobs does not stop."""
    done = harness(tmp_path).run(budget=budget(run=10))

    assert [] == done.stop_reasons
    assert 10 == done.counts[State.SUCCEEDED]


def test_run_waits_for_what_may_come_free(tmp_path: Path) -> None:
    """A job that does not fit now is submitted once another one was settled for less than was reserved."""
    half = Polled(
        RemoteTask(
            (),
            RemoteStatus.SUCCEEDED,
            "done",
            video_urls=("https://cdn.example/v",),
            usage={"total_tokens": 10**6},
        )
    )
    run = harness(
        tmp_path, 3, model="model-b", api=FakeApi(on_poll=lambda task, nth: half if nth else RUNNING)
    )

    done = run.run(budget=budget(run=4))

    assert [] == done.stop_reasons
    assert 3 == done.counts[State.SUCCEEDED]
    assert 3 * 10**9 == done.engine.spend[0].settled


@pytest.mark.parametrize("answer", [THROTTLED, REJECTED])
def test_what_was_not_charged_is_free_again(answer: Any, tmp_path: Path) -> None:
    """A submission that made no task releases its reservation, and another job gets it."""
    api = FakeApi(lambda job, nth: answer if (job, nth) == ("model-a-000", 0) else ACCEPTED)

    done = harness(tmp_path, 5, api=api).run(budget=budget(run=4))

    assert 4 == done.counts[State.SUCCEEDED]
    assert 4 * 10**9 == done.engine.spend[0].settled


@pytest.mark.parametrize(
    ("api", "state", "kept"),
    [
        (FakeApi(lambda job, nth: AMBIGUOUS), State.UNCERTAIN, "uncertain"),
        (FakeApi(on_poll=lambda task, nth: REMOTE_FAILED), State.FAILED, "failed"),
    ],
)
def test_what_may_have_been_charged_is_kept(api: FakeApi, state: State, kept: str, tmp_path: Path) -> None:
    """Uncertain jobs and failed tasks count against the budget, in later processes too, and are shown apart."""
    run = harness(tmp_path, 4, api=api)

    first = run.run(budget=budget(run=2))

    assert 2 == first.counts[state]
    assert 2 * 10**9 == getattr(first.engine.spend[0], kept)
    assert ["budget"] == first.stop_reasons


def test_later_processes_know_what_was_spent(tmp_path: Path) -> None:
    """The budget is that of the run directory, over all processes."""
    run = harness(tmp_path, 4)
    first = run.run(budget=budget(run=3), limit=2)

    second = run.run(budget=budget(run=3, spent=first.engine.spend))

    assert 3 == second.counts[State.SUCCEEDED]
    assert ["budget"] == second.stop_reasons


def test_a_job_that_can_not_be_sent_gives_its_reservation_back(tmp_path: Path) -> None:
    """A local file that changed fails its job before anything is sent, and costs nothing."""

    def render(text: str) -> bytes:
        raise FileChanged("the file is gone")

    run = EngineHarness(tmp_path, render=render)
    file = {"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}
    first, *others = specs(4)
    run.add_jobs([first._replace(request={**first.request, "image": file}), *others])

    done = run.run(budget=budget(run=3))

    assert {State.SUCCEEDED: 3, State.FAILED: 1} == {state: n for state, n in done.counts.items() if n}
    assert 3 * 10**9 == done.engine.spend[0].spent


def test_costs_are_in_the_commit_of_the_intent(tmp_path: Path) -> None:
    """Whenever a job is `submitting` on disk, its reservation is there too."""
    seen: list[tuple[str, str | None]] = []
    run = harness(tmp_path, 2, settings=replace(FAST, limits=Limits(in_flight=1, submit_per_s=10)))

    async def watch(engine: object, store: Any) -> None:
        import asyncio

        while True:
            seen.extend(
                store.reader.execute(
                    "SELECT j.state, c.state FROM jobs j LEFT JOIN costs c ON c.seq = j.seq AND c.number = j.attempt "
                    "WHERE j.state IN ('submitting', 'submitted')"
                ).fetchall()
            )
            await asyncio.sleep(0.02)

    run.run(budget=budget(run=5), meanwhile=watch)

    assert {"reserved"} == {cost for _, cost in seen}
    assert "submitting" in {state for state, _ in seen}


def test_unknown_price_stops_the_run(tmp_path: Path) -> None:
    """A job whose price is not known is not submitted under a budget; an amount for such jobs makes it count."""
    run = harness(tmp_path, 3, model="model-x")

    refused = run.run(budget=budget(run=5))
    counted = run.run(budget=budget(run=2, unknown=1))

    assert ["budget"] == refused.stop_reasons
    assert 3 == refused.counts[State.PENDING]
    assert "not known" in refused.engine.stops[0].message
    assert 2 == counted.counts[State.SUCCEEDED]
    assert {CostState.SETTLED, "assumed"} == {
        each
        for record in counted.records.values()
        for cost in record.costs
        for each in (cost.state, cost.basis)
    }


def test_another_currency_stops_the_run(tmp_path: Path) -> None:
    """Two currencies never add up."""
    done = harness(tmp_path, 3).run(budget=budget(currency="EUR", run=Money(Decimal(5), "EUR")))

    assert ["budget"] == done.stop_reasons
    assert "is in USD, and the budget in EUR" in done.engine.stops[0].message


def test_without_a_budget_costs_are_kept_all_the_same(tmp_path: Path) -> None:
    """Results show what was spent; jobs without a price have no cost."""
    run = harness(tmp_path, 2)
    run.add_jobs([*specs(2), *specs(1, model="model-x", start=5)])

    done = run.run(budget=budget(currency=None))

    assert 3 == done.counts[State.SUCCEEDED]
    assert 2 * 10**9 == done.engine.spend[0].settled
    assert () == done.records["model-x-005"].costs


def test_canaries_first(tmp_path: Path) -> None:
    """Only the first jobs are submitted until enough of them have a video; then all the others."""
    settings = replace(FAST, canary=CanaryPolicy(jobs=3, succeed=2))
    run = harness(tmp_path, 10, settings=settings)

    done = run.run()

    assert 10 == done.counts[State.SUCCEEDED]
    fourth = run.api.posts[3].at
    assert [True] * 2 == [polled < fourth for polled, _, _ in run.api.polls[:2]]


def test_failed_canaries_stop_the_run(tmp_path: Path) -> None:
    """Nothing more is paid for."""
    settings = replace(FAST, canary=CanaryPolicy(jobs=3, succeed=2))
    run = harness(tmp_path, 10, settings=settings, api=FakeApi(on_poll=lambda task, nth: REMOTE_FAILED))

    done = run.run()

    assert ["canary"] == done.stop_reasons
    assert {State.FAILED: 3, State.PENDING: 7} == {state: n for state, n in done.counts.items() if n}


def test_canaries_that_another_process_polls_hold_nothing_back(tmp_path: Path) -> None:
    """A run of some of the jobs does not wait for tasks that it never polls."""
    settings = replace(FAST, canary=CanaryPolicy(jobs=3, succeed=3))
    run = harness(tmp_path, 10, settings=settings, api=FakeApi(on_poll=lambda task, nth: RUNNING))
    run.run(run_s=5.0, drain_s=1.0)
    run.api = FakeApi()

    done = run.run(job_filter=JobFilter(glob="model-a-00[5-9]"))

    assert {State.SUBMITTED: 3, State.SUCCEEDED: 5, State.PENDING: 2} == {
        state: n for state, n in done.counts.items() if n
    }


class Plenty:
    """A day's budget that never ends."""

    is_stopped = False

    def take(self, attempt: tuple[int, int], amount: int, day: str, can_free: int) -> Fit:
        return Fit.FITS

    def put_back(self, attempt: tuple[int, int], amount: int) -> None:
        pass

    def changed(self, job: Job, cost: Cost) -> None:
        pass

    def stop(self) -> None:
        self.is_stopped = True

    def exhausted(self, amount: int) -> Stop:
        raise AssertionError


def test_a_run_that_stops_tells_who_set_money_aside(tmp_path: Path) -> None:
    """What was set aside for jobs that will not be submitted is given back when the run stops, not when it ends."""
    shared = Plenty()

    done = harness(tmp_path, 3).run(budget=budget(run=2, shared=shared))

    assert ["budget"] == done.stop_reasons
    assert shared.is_stopped
