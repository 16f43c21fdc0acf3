"""Several shards of a run on one loop with virtual time, each with its own engine and store, and their governor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from runner.core.governor import RunGovernor
from runner.core.governor_messages import Message, Reply
from runner.core.lifecycle import State
from runner.core.money import Money
from runner.core.settings import Settings
from runner.core.shared_governor import SharedBudget, SharedGovernor
from runner.core.stop import Stop
from runner.engine.budget import RunBudget
from runner.engine.budget_client import BudgetClient
from runner.engine.engine import Engine
from runner.engine.governor_client import GovernorClient
from runner.engine.governor_service import GovernorService
from runner.schema.catalog import load_catalog
from runner.schema.price_tables import Pricer
from runner.store import query
from tests.engine.fakes import FAST, FakeApi, LoopClock, specs
from tests.engine.harness import EngineHarness, HarnessStore
from tests.engine.virtual_time import VirtualLoop, run_virtually

PRICE = 10**9
"""What each job costs if there is a budget, in billionths of a dollar."""


@dataclass
class Fleet:
    """
    A run of some shards.

    Args:
        message_s: How long a message takes on its way, and its answer on the way back.
        asides: Coroutines that run beside the shards.
    """

    folder: Path
    api: FakeApi
    settings: Settings = FAST
    shards: int = 4
    message_s: float = 0.001
    limit: int | None = None
    max_failures: int | None = None
    probe: Callable[[], Awaitable[bool]] | None = None
    budget: SharedBudget | None = None
    asides: list[Callable[[Fleet], Awaitable[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engines: list[Engine] = []
        self.messages = 0
        self.is_reachable = True
        self.counts: list[Mapping[State, int]] = []
        self._sessions = 0

    def run(self, jobs: int, *, per_shard: Mapping[int, int] | None = None) -> None:
        """Run some jobs in each shard to the end."""

        async def main(loop: VirtualLoop) -> None:
            async with AsyncExitStack() as stack:
                self.begin_governor()
                stores = [await self._open(stack, shard, jobs) for shard in range(self.shards)]
                loop.is_busy = lambda: any(store.is_busy() for store in stores)
                asides = [asyncio.ensure_future(aside(self)) for aside in self.asides]
                async with asyncio.TaskGroup() as group:
                    for shard, store in enumerate(stores):
                        group.create_task(self._work(shard, store))
                for aside in asides:
                    aside.cancel()
                await asyncio.gather(*asides, return_exceptions=True)
                self.counts = [query.counts(store.reader) for store in stores]

        run_virtually(main)

    def begin_governor(self) -> None:
        """Begin a governor that knows nothing."""
        limits, loop = self.settings.limits, asyncio.get_running_loop()
        self._sessions += 1
        governor = RunGovernor(
            limits,
            learned={},
            stall_s=self.settings.poll.timeout_s,
            limit=self.limit,
            max_failures=self.max_failures,
            canary=self.settings.canary,
        )
        shared = SharedGovernor(
            limits,
            governor,
            session=f"governor-{self._sessions}",
            shards=self.shards,
            limit=self.limit,
            budget=self.budget,
        )
        self.shared = shared
        self.service = GovernorService(shared, loop.time)

    @property
    def stops(self) -> list[Stop]:
        """Why the shards stopped."""
        return [stop for engine in self.engines for stop in engine.stops]

    def count(self, state: State) -> int:
        """Count the jobs in a state."""
        return sum(counts[state] for counts in self.counts)

    async def call(self, message: Message) -> Reply:
        """Send the governor a message."""
        self.messages += 1
        await asyncio.sleep(self.message_s)
        if not self.is_reachable:
            raise ConnectionError("unreachable")
        reply = await self.service.call(message)
        await asyncio.sleep(self.message_s)
        return reply

    async def _open(self, stack: AsyncExitStack, shard: int, jobs: int) -> HarnessStore:
        harness = EngineHarness(self.folder / str(shard), self.api, self.settings)
        harness.add_jobs(specs(jobs, start=shard * jobs))
        store = stack.enter_context(HarnessStore(harness.run_dir))
        return await stack.enter_async_context(store)

    async def _work(self, shard: int, store: HarnessStore) -> None:
        harness = EngineHarness(self.folder / str(shard), self.api, self.settings)
        if self.probe is not None:
            harness.probe = self.probe
        governor = GovernorClient(self.call, shard=shard, clock=LoopClock())
        bounds: dict[str, Any] = {"governor": governor}
        if self.budget is not None:
            client = BudgetClient(governor, "USD")
            budget = RunBudget(
                Pricer((), load_catalog()),
                currency="USD",
                unknown=Money(Decimal(1), "USD"),
                shared=client,
                wall=LoopClock().wall,
            )
            client.count(budget.account)
            bounds["budget"] = budget
        engine = Engine(harness._context(store, lambda event: None, bounds))
        governor.attach(engine, {})
        self.engines.append(engine)
        await engine.run()
        await governor.close()
        self.service.forget(shard, has_ended=True)
