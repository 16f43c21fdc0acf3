"""A run of the engine with fakes around it, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.core.lifecycle import State
from runner.core.model import JobRecord, JobSpec, OnChanged
from runner.core.settings import Settings
from runner.engine.budget import RunBudget
from runner.engine.context import EngineContext
from runner.engine.engine import Engine
from runner.engine.events import Delivered, JobEnded, Notice, RunEvent
from runner.schema.catalog import load_catalog
from runner.schema.price_tables import Pricer
from runner.store import query
from runner.store.store import Store
from runner.store.sync import sync
from runner.store.transitions import recover
from runner.store.work_list import JobFilter
from runner.worker.deliver import Deliverer
from runner.worker.poll import Poller
from runner.worker.submit import Submitter
from tests.engine.fakes import (
    FAST,
    FIRST_KEY,
    WALL_AT_0,
    FakeApi,
    FakeDownloader,
    FakeKeys,
    FakePublisher,
    LoopClock,
)
from tests.engine.virtual_time import VirtualLoop, run_virtually


class HarnessStore(Store):
    """A store that tells whether its thread is busy, so that virtual time waits for it."""

    def __enter__(self) -> HarnessStore:
        super().__enter__()
        # These tests end processes and cut no power, so nothing has to reach the disk.
        self._connection.execute("PRAGMA synchronous = OFF")
        return self

    def is_busy(self) -> bool:
        writer = self._writer
        return writer is not None and (len(writer._outstanding) > 1 or writer._is_requested)


@dataclass(slots=True)
class FinishedRun:
    """How a run in the harness ended, by job id."""

    engine: Engine
    events: list[RunEvent]
    records: dict[str, JobRecord]
    counts: dict[State, int]
    took_s: float

    @property
    def states(self) -> dict[str, State]:
        return {job_id: record.state for job_id, record in self.records.items()}

    @property
    def stop_reasons(self) -> list[str]:
        return [stop.reason.value for stop in self.engine.stops]

    @property
    def ended_jobs(self) -> list[str]:
        return [event.job_id for event in self.events if isinstance(event, JobEnded)]

    def notices(self, kind: str) -> list[Notice]:
        return [event for event in self.events if isinstance(event, Notice) and event.kind == kind]


async def _probe_succeeds() -> bool:
    return True


class FakeInputs:
    """Bodies made by a function."""

    def __init__(self, render: Callable[[str], bytes]) -> None:
        self._render = render

    async def prepare(self) -> None:
        pass

    async def body(self, text: str, timeout_s: float) -> bytes:
        return self._render(text)


@dataclass(slots=True)
class EngineHarness:
    """Everything for a run on virtual time; `run` is one process of it, and may be called again."""

    run_dir: Path
    api: FakeApi = field(default_factory=FakeApi)
    settings: Settings = FAST
    keys: Sequence[str] = (FIRST_KEY,)
    downloader: FakeDownloader = field(default_factory=FakeDownloader)
    probe: Callable[[], Awaitable[bool]] = _probe_succeeds
    render: Callable[[str], bytes] | None = None
    draw: Callable[[], float] = lambda: 0.5
    append: Callable[[Mapping[str, int]], Mapping[str, Delivered]] = lambda seqs: {}

    def add_jobs(self, jobs: Iterable[JobSpec]) -> None:
        """Sync jobs into the store."""
        with HarnessStore(self.run_dir) as store, store.transaction() as connection:
            sync(connection, jobs, on_changed=OnChanged.ERROR, at=WALL_AT_0)

    def run(
        self,
        *,
        meanwhile: Callable[[Engine, HarnessStore], Awaitable[None]] | None = None,
        canceled_at: Sequence[float] = (),
        **bounds: Any,
    ) -> FinishedRun:
        """
        Run one process to its end.

        Args:
            meanwhile: Runs beside the engine.
            canceled_at: When the task that awaits the engine is canceled.
            bounds: The engine's ``limit``, ``max_failures``, ``run_s`` and ``drain_s``.
        """

        async def main(loop: VirtualLoop) -> FinishedRun:
            events: list[RunEvent] = []
            with HarnessStore(self.run_dir) as store:
                loop.is_busy = store.is_busy
                with store.transaction() as connection:
                    recover(connection, at=WALL_AT_0)
                async with store:
                    engine = Engine(self._context(store, events.append, bounds))
                    beside = asyncio.ensure_future(meanwhile(engine, store)) if meanwhile else None
                    working = asyncio.ensure_future(engine.run())
                    for at in canceled_at:
                        loop.call_at(at, working.cancel)
                    await asyncio.wait([working])
                    assert working.cancelled() == bool(canceled_at), working
                    if beside is not None:
                        beside.cancel()
                        await asyncio.gather(beside, return_exceptions=True)
                records = {record.job_id: record for record in query.records(store.reader)}
                return FinishedRun(engine, events, records, query.counts(store.reader), loop.time())

        return run_virtually(main)

    def _context(
        self, store: HarnessStore, observe: Callable[[RunEvent], None], bounds: dict[str, Any]
    ) -> EngineContext:
        clock = LoopClock()
        keys = FakeKeys(*self.keys)
        deliverer = Deliverer(
            self.api,
            keys,
            store,
            clock,
            downloader=self.downloader,
            publisher=FakePublisher(),
            run_dir=self.run_dir,
            retry=self.settings.retry,
            draw=self.draw,
            content_url=lambda task_id: f"https://api.example/v1/videos/{task_id}/content",
        )
        parts: dict[str, Any] = {
            "settings": self.settings,
            "learned": {},
            "job_filter": JobFilter(),
            "limit": None,
            "max_failures": None,
            "run_s": None,
            "stop_at": None,
            "drain_s": 600.0,
            "store": store,
            "key_pool": keys,
            "submitter": Submitter(self.api, keys, store, clock),
            "poller": Poller(self.api, keys, store, clock),
            "deliverer": deliverer,
            "clock": clock,
            "inputs": None if self.render is None else FakeInputs(self.render),
            "probe": self.probe,
            "draw": self.draw,
            "append": self.append,
            "observe": observe,
            "budget": RunBudget(Pricer((), load_catalog()), wall=clock.wall),
        }
        context = EngineContext(**{**parts, **bounds})
        store.costs.listener = context.budget.record
        return context
