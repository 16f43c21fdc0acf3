"""The shards of a run at work in a cluster: which is next, what to do when one dies, and the progress of all."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from runner.api.run_result import RunResult
from runner.core.cost import Spend
from runner.core.lifecycle import State
from runner.core.stop import Stop, StopReason
from runner.engine.events import Notice, Observer, Snapshot
from runner.scale.actors import Assignment, ShardFailed, ShardStatus

log = logging.getLogger(__name__)

MAX_DEATHS = 5
"""Deaths of a shard's process, without a job that ended between them, until the run stops."""
_MAX_PAUSE_S = 30.0
_STATUS_INTERVAL_S = 0.5
_STATUS_TIMEOUT_S = 10.0


class Fleet:
    """
    All shards of a run, of which some are at work at once. Call `run` once.

    Args:
        name: Of the run.
        assignments: The shards to work on.
        counts: The jobs of each shard by state, as they were when the driver began.
        start: Starts a process for shards, and returns its handle.
        is_death: Whether an exception means that such a process has died.
        forget: Tells the governor that a shard is not worked on any more, and whether the work ended by itself.

    Attributes:
        results: How the work on each shard ended.
        stops: Why nothing more is submitted.
    """

    def __init__(
        self,
        name: str,
        assignments: Sequence[Assignment],
        counts: Mapping[int, Mapping[State, int]],
        *,
        start: Callable[[], Any],
        is_death: Callable[[Exception], bool],
        forget: Callable[[int, bool], None],
        observe: Observer,
    ) -> None:
        self.name = name
        self._queue = deque(assignments)
        self._workers = assignments[0].at_once if assignments else 0
        self._counts = {shard: dict(by_state) for shard, by_state in counts.items()}
        self._start = start
        self._is_death = is_death
        self._forget = forget
        self._observe = observe
        self._active: dict[int, Any] = {}
        self._snapshots: dict[int, Snapshot] = {}
        self._is_stopped = asyncio.Event()
        self.results: dict[int, RunResult] = {}
        self.stops: list[Stop] = []

    @property
    def counts(self) -> Mapping[State, int]:
        """Jobs of all shards by state."""
        total: Counter[State] = Counter(dict.fromkeys(State, 0))
        for by_state in self._counts.values():
            total.update(by_state)
        return total

    def snapshot(self) -> Snapshot:
        """Return the state of the run as it was seen last."""
        active = [self._snapshots[shard] for shard in self._active if shard in self._snapshots]
        first = active[0] if active else None
        spend: dict[str, Spend] = {}
        for each in self._snapshots.values():
            for part in each.spend:
                spend[part.currency] = spend[part.currency] + part if part.currency in spend else part
        by_model: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for each in active:
            by_model[0].update(each.pending_by_model)
            by_model[1].update(each.in_flight_by_model)
        return Snapshot(
            counts=self.counts,
            downloads=tuple(download for each in active for download in each.downloads),
            downloads_waiting=sum(each.downloads_waiting for each in active),
            in_flight=sum(each.in_flight for each in active),
            max_in_flight=0 if first is None else first.max_in_flight,
            submit_per_s=0.0 if first is None else first.submit_per_s,
            accepted_per_s=0.0 if first is None else first.accepted_per_s,
            limited_by=next((each.limited_by for each in active if each.limited_by), ""),
            is_stopping=bool(self.stops) or any(each.is_stopping for each in active),
            seconds_left=None,
            pending_by_model=by_model[0],
            in_flight_by_model=by_model[1],
            spend=tuple(spend.values()),
        )

    def stop(self, stop: Stop) -> None:
        """Submit nothing more; shards that have not begun do not begin."""
        if any(known.reason is stop.reason for known in self.stops):
            return
        self.stops.append(stop)
        self._observe(Notice("stopping", stop.message, stop.hint))
        self._end_queue()
        for actor in self._active.values():
            actor.stop.remote(stop)

    def abandon(self) -> None:
        """Stop now."""
        self._end_queue()
        for actor in self._active.values():
            actor.abandon.remote()

    def _end_queue(self) -> None:
        self._queue.clear()
        self._is_stopped.set()

    async def run(self) -> None:
        """Work on all shards."""
        watching = asyncio.create_task(self._watch(), name="shards")
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _work(self) -> None:
        """Work on one shard after the other, in a process that lives as long as it can."""
        actor = None
        while self._queue:
            assignment = self._queue.popleft()
            deaths, ended = 0, self._ended(assignment.shard.index)
            while True:
                actor = actor or self._start()
                if await self._has_ended(assignment, actor):
                    break
                actor, before = None, ended
                ended = self._ended(assignment.shard.index)
                deaths = 1 if ended > before else deaths + 1
                if deaths >= MAX_DEATHS:
                    self.stop(_stop_for_deaths(assignment))
                if await self._is_stopped_within(min(2.0 ** (deaths - 1), _MAX_PAUSE_S)):
                    break

    async def _is_stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_stopped.wait(), seconds)
        return self._is_stopped.is_set()

    async def _has_ended(self, assignment: Assignment, actor: Any) -> bool:
        """Work on a shard; return whether the work ended, rather than its process."""
        try:
            await self._work_on(assignment, actor)
        except Exception as error:
            if not self._is_death(error):
                log.exception("a bug in runner ended shard %s", assignment.shard)
                bug = f"{type(error).__name__}: {error}"[:400]
                message = f"a bug in runner ended shard {assignment.shard}: {bug}"
                self.stop(Stop(StopReason.INTERNAL, message, "nothing is lost; run the same command again"))
                return True
            log.warning("the process of shard %s died: %s", assignment.shard, error)
            self._observe(Notice("shard", f"the process of shard {assignment.shard} died"))
            return False
        return True

    async def _work_on(self, assignment: Assignment, actor: Any) -> None:
        index = assignment.shard.index
        self._active[index], has_ended = actor, False
        try:
            result = await actor.run.remote(assignment)
            has_ended = True
            await self._read_status(index, actor)
        finally:
            del self._active[index]
            self._forget(index, has_ended)
        if isinstance(result, ShardFailed):
            # One that can't begin or end says the same of the others: of their disk, their store or their keys.
            self.stop(Stop(StopReason.STORE, f"shard {assignment.shard}: {result.message}", result.hint))
            return
        self.results[index] = result
        self._counts[index] = dict(result.counts)
        for stop in result.stops:
            self.stop(stop)

    def _ended(self, shard: int) -> int:
        return sum(count for state, count in self._counts.get(shard, {}).items() if state.has_ended)

    async def _watch(self) -> None:
        while True:
            await asyncio.gather(*(self._read_status(*each) for each in list(self._active.items())))
            await asyncio.sleep(_STATUS_INTERVAL_S)

    async def _read_status(self, shard: int, actor: Any) -> None:
        try:
            status: ShardStatus = await asyncio.wait_for(actor.status.remote(), _STATUS_TIMEOUT_S)
        except Exception as error:
            # If it is dead, whatever waits for its result gets the error.
            log.debug("shard %d can't be seen: %s", shard, error)
            return
        for event in status.events:
            self._observe(event)
        if status.snapshot is not None:
            self._snapshots[shard] = status.snapshot
            self._counts[shard] = dict(status.snapshot.counts)


def _stop_for_deaths(assignment: Assignment) -> Stop:
    return Stop(
        StopReason.INTERNAL,
        f"the processes of shard {assignment.shard} died {MAX_DEATHS} times, and no job ended between",
        "look for the reason in the logs of Ray; nothing is lost: run the same command again",
    )


def merged_result(fleet: Fleet, sample: RunResult) -> RunResult:
    """
    Return how a run ended, of how its shards did.

    Args:
        sample: What all shards have in common, and no counts.
    """
    results = fleet.results.values()
    by_class: Counter[str] = Counter()
    for each in results:
        by_class.update(each.by_class)
    return replace(
        sample,
        stops=tuple(fleet.stops),
        did_nothing=not fleet.stops and all(each.did_nothing for each in results),
        uncertain=tuple(record for each in results for record in each.uncertain),
        by_class=by_class,
        examples=tuple({record.error: record for each in results for record in each.examples}.values()),
        unsaved=tuple(pair for each in results for pair in each.unsaved),
    )
