"""The governor as a service for the shards of a run: it answers a request for a permit once there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runner.core.governor_messages import Ask, AskMoney, Hello, Message, PermitGrant, Reply, Report
from runner.core.shared_governor import SharedGovernor

WAIT_S = 5.0
"""After this time a shard is answered without a permit, so that it gets the state of the run and asks again."""


class GovernorService:
    """
    Answers the messages of shards.

    Args:
        now: Reads the monotonic clock.
    """

    def __init__(self, governor: SharedGovernor, now: Callable[[], float]) -> None:
        self._governor = governor
        self._now = now
        self._waiting: dict[int, asyncio.Future[PermitGrant]] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    async def call(self, message: Message) -> Reply:
        """Answer a message; an `Ask` once there is a permit, or `WAIT_S` later."""
        if isinstance(message, Ask):
            return await self._ask(message)
        if isinstance(message, AskMoney):
            return self._governor.money(message)
        now = self._now()
        news = self._governor.hello(message, now) if isinstance(message, Hello) else self._report(message)
        self._settle()
        return news

    def forget(self, shard: int, *, has_ended: bool) -> None:
        """Record that a shard's process has died, or that the work on the shard has ended."""
        self._governor.forget(shard, self._now(), has_ended=has_ended)
        self._settle()

    def _report(self, report: Report) -> Reply:
        return self._governor.report(report, self._now())

    async def _ask(self, ask: Ask) -> PermitGrant:
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._governor.ask(number, ask)
        try:
            self._settle()
            done, _ = await asyncio.wait([answer], timeout=WAIT_S)
            return answer.result() if done else PermitGrant(news=self._governor.news(self._now()))
        finally:
            self._waiting.pop(number, None)
            self._governor.withdraw(number)

    def _settle(self) -> None:
        """Answer what may be answered now, and wake up when more may be."""
        now = self._now()
        for number, grant in self._governor.due(now):
            if (answer := self._waiting.pop(number, None)) is not None:
                answer.set_result(grant)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakes_at = self._governor.wakes_at(now)
        if wakes_at is not None:
            self._timer = asyncio.get_running_loop().call_later(wakes_at - now, self._settle)
