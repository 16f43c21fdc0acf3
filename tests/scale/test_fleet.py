"""The shards of a run: which is next, and what the death of a process means. The processes are fakes, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from runner.api.options import RunOptions
from runner.api.run_result import RunResult
from runner.core.lifecycle import State
from runner.core.sharding import Shard
from runner.core.stop import Stop, StopReason
from runner.engine.events import Notice, RunEvent
from runner.scale.actors import Assignment, ShardFailed, ShardStatus
from runner.scale.fleet import Fleet
from tests.engine.virtual_time import VirtualLoop, run_virtually


class Death(Exception):
    """What a cluster raises for a call of a process that has died."""


class _Method:
    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> Awaitable[Any]:
        return asyncio.ensure_future(self._call(*arguments))


class FakeActor:
    """A process that ends each shard as the test says."""

    def __init__(self, end: Callable[[int, FakeActor], Awaitable[RunResult | ShardFailed]]) -> None:
        self.stops: list[Stop] = []
        self.is_stopped = asyncio.Event()
        self.worked_on: list[int] = []

        async def run(assignment: Assignment) -> RunResult | ShardFailed:
            self.worked_on.append(assignment.shard.index)
            return await end(assignment.shard.index, self)

        async def status() -> ShardStatus:
            return ShardStatus(None, ())

        async def stop(stop: Stop) -> None:
            self.stops.append(stop)
            self.is_stopped.set()

        self.run, self.status, self.stop = _Method(run), _Method(status), _Method(stop)


def _result(succeeded: int = 1, *stops: Stop) -> RunResult:
    return RunResult(Path("r"), "run", "gateway", 0, {State.SUCCEEDED: succeeded}, stops)


class Driven:
    """A fleet that was driven to its end."""

    def __init__(
        self,
        end: Callable[[int, FakeActor], Awaitable[RunResult | ShardFailed]],
        *,
        shards: int,
        at_once: int,
    ) -> None:
        self.actors: list[FakeActor] = []
        self.forgotten: list[tuple[int, bool]] = []
        self.events: list[RunEvent] = []
        self.took_s = 0.0
        assignments = [
            Assignment(
                url="",
                shard=Shard(index, shards),
                folder="",
                options=RunOptions(),
                at_once=at_once,
                namespace="",
            )
            for index in range(shards)
        ]

        def start() -> FakeActor:
            self.actors.append(FakeActor(end))
            return self.actors[-1]

        self.fleet = Fleet(
            "run",
            assignments,
            {},
            start=start,
            is_death=lambda error: isinstance(error, Death),
            forget=lambda shard, has_ended: self.forgotten.append((shard, has_ended)),
            observe=self.events.append,
        )

        async def main(loop: VirtualLoop) -> None:
            await self.fleet.run()
            self.took_s = loop.time()

        run_virtually(main)


def test_processes_take_one_shard_after_the_other() -> None:
    """
    Two processes work on five shards, and no third is started; the governor hears of each end.
    """

    async def end(shard: int, actor: FakeActor) -> RunResult:
        await asyncio.sleep(1.0 + shard)
        return _result()

    driven = Driven(end, shards=5, at_once=2)

    assert [0, 1, 2, 3, 4] == sorted(driven.fleet.results)
    assert [(shard, True) for shard in range(5)] == sorted(driven.forgotten)
    assert 2 == len(driven.actors)
    assert 5 == driven.fleet.counts[State.SUCCEEDED]


def test_a_dead_process_is_replaced() -> None:
    """
    After each death another process continues with the shard, after a second and after two, and all shards end.
    """
    deaths: list[int] = []

    async def end(shard: int, actor: FakeActor) -> RunResult:
        if shard == 1 and len(deaths) < 2:
            deaths.append(shard)
            raise Death
        return _result()

    driven = Driven(end, shards=3, at_once=1)

    assert [0, 1, 2] == sorted(driven.fleet.results)
    assert [[0, 1], [1], [1, 2]] == [actor.worked_on for actor in driven.actors]
    assert 2 <= driven.forgotten.count((1, False))
    assert 1 == driven.forgotten.count((1, True))
    assert 3.0 <= driven.took_s < 4.0


def test_a_shard_that_dies_again_and_again_stops_the_run() -> None:
    """
    Five deaths without a job that ended between stop the run, and no shard begins after that.
    """

    async def end(shard: int, actor: FakeActor) -> RunResult:
        raise Death

    driven = Driven(end, shards=3, at_once=1)

    assert [StopReason.INTERNAL] == [stop.reason for stop in driven.fleet.stops]
    assert [[0]] * 5 == [actor.worked_on for actor in driven.actors]


def test_what_stops_one_shard_stops_the_others() -> None:
    """
    The reason for which one shard stopped, or could not begin, is told to those at work; others do not begin.
    """
    for ending in (
        _result(0, Stop(StopReason.AUTH, "the key was refused")),
        ShardFailed("no space", "free some"),
    ):

        async def end(
            shard: int, actor: FakeActor, ending: RunResult | ShardFailed = ending
        ) -> RunResult | ShardFailed:
            if shard == 0:
                return ending
            await actor.is_stopped.wait()
            return _result()

        driven = Driven(end, shards=4, at_once=2)

        assert {0, 1} == {shard for actor in driven.actors for shard in actor.worked_on}
        assert 1 == len([e for e in driven.events if isinstance(e, Notice) and e.kind == "stopping"])


def test_a_bug_stops_the_run() -> None:
    """
    An error that is not a death stops the run with a reason, and is raised nowhere.
    """

    async def end(shard: int, actor: FakeActor) -> RunResult:
        raise ValueError("a bug")

    driven = Driven(end, shards=2, at_once=1)

    assert "ValueError: a bug" in driven.fleet.stops[0].message
