"""The budget of a run: what may be spent, and the question before money is spent."""

from __future__ import annotations

import glob
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from runner.api.options import RunOptions
from runner.api.run_ledger import open_ledger, register
from runner.core.estimate import CostEstimate, CostEstimateBuilder
from runner.core.lifecycle import State
from runner.core.money import Money, format_money, from_nanos, to_nanos
from runner.core.prices import Quote, utc_day
from runner.core.sanitize import command_text
from runner.core.settings import Budget, Settings
from runner.core.units import format_count
from runner.engine.allowance import Allowance
from runner.engine.budget import RunBudget
from runner.errors import NotConfirmed, UsageError
from runner.jsontext import loads
from runner.schema.price_tables import Pricer, pricer_for, shipped_prices
from runner.store import costs, work_list
from runner.store.ledger import LedgerLimits
from runner.store.store import Store
from runner.store.transitions import Selection, select_for_rerun
from runner.store.work_list import JobFilter
from runner.store.writer import in_thread

if TYPE_CHECKING:
    from runner.engine.governor_client import GovernorClient

_MAX_LOOKED_AT = 10_000
ASK_FROM_JOBS = 20
"""More paid jobs than this are asked about."""
ASK_FROM_COST = 10
"""A higher cost than this, in units of the currency, must be confirmed."""


def pending_cost(
    reader: sqlite3.Connection,
    pricer: Pricer,
    scope: JobFilter,
    *,
    unknown: Money | None = None,
    limit: int | None = None,
    states: tuple[str, ...] = ("pending",),
) -> CostEstimate:
    """
    Return what the jobs that are to be submitted will cost.

    Args:
        states: The states of the jobs to count.
        unknown: What a job without a known price counts as.
        limit: The most jobs to look at.
    """
    day, builder = utc_day(time.time()), CostEstimateBuilder()
    for _, model, text in costs.pending_requests(reader, scope, limit=limit, states=states):
        builder.add(model, *pricer.price(loads(text), day))
    return builder.estimate(unknown)


class Currency(Struct, frozen=True):
    """The currency of a run's budgets, and its limit for one process."""

    name: str | None
    process: Money | None


def currency_of(settings: Settings, options: RunOptions) -> Currency:
    """
    Return the currency of the budgets; None if there is no budget.

    Raises:
        UsageError: ``--max-cost`` has another currency than the budget.
    """
    budget, most = settings.budget, options.max_cost
    if budget is None and most is None:
        return Currency(None, None)
    name = (budget.currency if budget is not None else None) or (settings.prices or shipped_prices()).currency
    if most is not None and most.currency not in ("", name):
        if budget is not None and budget.currency is not None:
            raise UsageError(f"--max-cost {most} has another currency than the budget, {name}")
        name = most.currency
    return Currency(name, None if most is None else Money(most.amount, name))


def check_cost(
    reader: sqlite3.Connection,
    settings: Settings,
    options: RunOptions,
    scope: JobFilter,
    confirm: Callable[[str], bool] | None,
    *,
    is_simulated: bool,
) -> None:
    """
    Refuse what a budget can't hold, and ask before much is paid.

    Args:
        confirm: Asks a question; None if there is nobody to ask.

    Raises:
        UsageError: There is a budget, and jobs have no known price, or one in another currency.
        NotConfirmed: The answer was no.
    """
    is_asked = confirm is not None and not options.yes and not is_simulated
    if not is_asked and settings.budget is None and options.max_cost is None:
        return
    jobs = sum(work_list.pending_by_model(reader, scope).values())
    jobs = jobs if options.limit is None else min(jobs, options.limit)
    currency = currency_of(settings, options).name
    if not jobs:
        return
    pricer = pricer_for(settings)
    unknown = None if settings.budget is None else settings.budget.unknown
    cost = pending_cost(reader, pricer, scope, unknown=unknown, limit=jobs)
    if currency is not None:
        _require_priced(cost, currency, settings.budget)
    if confirm is None or not is_asked:
        return
    takes = settings.max_takes
    if jobs > ASK_FROM_JOBS or any(each.highest * takes > ASK_FROM_COST for each in cost.sums):
        price = f"for at most {cost}" if cost.sums else "of unknown price"
        again = f", and up to {takes} takes of each" if settings.reroll else ""
        if not confirm(f"Submit {format_count(jobs, 'paid job')} {price}{again}?"):
            raise NotConfirmed("not confirmed; nothing was sent")


def _require_priced(cost: CostEstimate, currency: str, budget: Budget | None) -> None:
    if cost.unknown:
        why, jobs = next(iter(cost.unknown.items()))
        needs = "--max-cost counts prices" if budget is None else "there is a budget"
        # A rerun of results on another machine has no manifest.
        hint = "bound the jobs by their number instead, with --limit; or run a manifest that has their price in prices"
        if budget is not None:
            hint = (
                "add it to the manifest's prices, or say what such jobs count as: budget: {unknown: 0.50 USD}"
            )
        raise UsageError(
            f"{needs}, and {_jobs(cost.unknown_jobs, 'has', 'have')} no known price: "
            f"{why} ({format_count(jobs, 'job')}); nothing was submitted",
            hint=hint,
        )
    for each in cost.sums:
        if each.currency != currency:
            raise UsageError(
                f"{_jobs(each.jobs, 'is', 'are')} priced in {each.currency}, and the budget is in {currency}; "
                "nothing was submitted",
                hint=f"write the budget in {each.currency}; nothing is converted",
            )


def _jobs(count: int, one: str, many: str) -> str:
    return f"{format_count(count, 'job')} {one if count == 1 else many}"


@asynccontextmanager
async def open_budget(
    store: Store, settings: Settings, options: RunOptions, scope: JobFilter, governor: GovernorClient | None
) -> AsyncIterator[tuple[RunBudget, Allowance | None]]:
    """
    Open the budget of one process's work on a run, and bring its ledger up to date; before the store's writer starts.

    Args:
        governor: Of a run of which this process works on one shard; it has the budgets of the run and of the command.

    Raises:
        LedgerError: The ledger can't be used; nothing was submitted.
    """
    currency = currency_of(settings, options)
    pricer = pricer_for(settings)
    budget = settings.budget or Budget()

    def smaller(left: int) -> str:
        return smaller_jobs(store.reader, pricer, scope, left, currency.name or "")

    allowance = client = None
    ledger = None
    if settings.budget is not None:
        ledger = await in_thread(open_ledger, settings.budget, store.run_dir, governor)
    try:
        if ledger is not None:
            key = await in_thread(register, ledger, store, settings)
            limits = LedgerLimits(budget.day, budget.month)
            allowance = Allowance(ledger, key, limits, currency.name or "", store, smaller=smaller)
        if governor is not None and currency.name is not None:
            # Nearly all runs are of one process.
            from runner.engine.budget_client import BudgetClient

            client = BudgetClient(governor, currency.name, inner=allowance)
        run_budget = RunBudget(
            pricer,
            currency=currency.name,
            run=budget.run if governor is None else None,
            process=currency.process if governor is None else None,
            unknown=budget.unknown,
            shared=client or allowance,
            spent=costs.spend(store.reader),
            wall=time.time,
            smaller=smaller,
        )
        store.costs.refunds_failed = budget.failed == "refunded"
        store.costs.listener = run_budget.record
        if client is not None:
            client.count(run_budget.account)
        yield run_budget, allowance
    finally:
        store.costs.listener = None
        if client is not None:
            await client.close()
        if ledger is not None:
            ledger.close()


def smaller_jobs(
    reader: sqlite3.Connection, pricer: Pricer, scope: JobFilter, left: int, currency: str
) -> str:
    """Return in words how many of the next pending jobs cost at most `left` billionths; an empty text if none does."""
    day, fitting, first = utc_day(time.time()), 0, ""
    for job_id, _, text in costs.pending_requests(reader, scope, limit=_MAX_LOOKED_AT):
        price = pricer.quote(loads(text), day)
        if isinstance(price, Quote) and price.currency == currency and to_nanos(price.highest) <= left:
            fitting += 1
            first = first or job_id
    if not fitting:
        return ""
    jobs = format_count(fitting, "pending job") + (" would" if fitting == 1 else " would each")
    return f"{jobs} still fit into {format_money(from_nanos(left), currency)}, such as {command_text('--job', glob.escape(first))}"


class Repeat(Struct, frozen=True):
    """
    What a command that the end of a run suggests would submit.

    Attributes:
        cost: None if there are too many jobs to add up.
        is_restricted: Whether the command is meant with the options that restricted the run: --job, --where, --sample.
    """

    jobs: int
    cost: CostEstimate | None
    is_restricted: bool = False


def repeats(store: Store, settings: Settings, scope: JobFilter) -> tuple[Repeat, Repeat]:
    """
    Return what resuming a run would submit, and what rerunning it would.

    Args:
        scope: What the run was restricted to; as long as jobs of it are pending, it is to be resumed with that.
    """
    pricer, unknown = pricer_for(settings), None if settings.budget is None else settings.budget.unknown

    def repeat(jobs: int, scope: JobFilter, states: tuple[str, ...]) -> Repeat:
        if not 0 < jobs <= _MAX_LOOKED_AT:
            return Repeat(jobs, None)
        cost = pending_cost(store.reader, pricer, scope, unknown=unknown, states=states)
        return Repeat(jobs, cost)

    pending = sum(work_list.pending_by_model(store.reader, JobFilter()).values())
    # What a rerun selected is pending, and no option of `resume` names it.
    is_restricted = scope.is_restricted and not scope.selected
    if is_restricted and (in_scope := sum(work_list.pending_by_model(store.reader, scope).values())):
        resumed = replace(repeat(in_scope, scope, ("pending",)), is_restricted=True)
    else:
        resumed = repeat(pending, JobFilter(), ("pending",))
    # A list of the pending jobs, of which there may be ten million, would take eight bytes for each.
    failed = select_for_rerun(store.reader, Selection(states=frozenset({State.FAILED})))
    to_submit = pending + failed.to_submit
    if to_submit <= _MAX_LOOKED_AT:
        select_for_rerun(store.reader, Selection())
    return resumed, repeat(to_submit, JobFilter(selected=True), ("pending", "failed"))
