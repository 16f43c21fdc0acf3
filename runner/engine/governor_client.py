"""
A shard's client of the run's governor: it asks for a permit for each POST, and reports what happened.

While the run's governor can't be reached, nothing is submitted; what was submitted is polled and downloaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf

from msgspec import Struct

from runner.core.governor import Blocked, Limit, ModelQueue
from runner.core.governor_messages import (
    NO_NEWS,
    Answered,
    Ask,
    AskMoney,
    BudgetShare,
    Ended,
    Event,
    Hello,
    Message,
    MoneyGrant,
    News,
    NotSubmitted,
    Permit,
    PermitGrant,
    ProbeAnswer,
    Reply,
    Report,
    SharedCircuit,
    SharedPace,
    SharedStall,
    Stopped,
    Tasks,
    Unused,
)
from runner.core.lifecycle import State
from runner.core.model import Failure
from runner.core.outcomes import Accepted, RemoteStatus, RemoteTask, SubmitOutcome
from runner.core.stop import Stop
from runner.engine.allowance import RunLedger
from runner.engine.engine import Engine
from runner.worker.ports import Clock

log = logging.getLogger(__name__)

PERMIT_S = 1.0
"""After this time a permit that was not used is given back."""
REPORT_S = 0.25
"""How long what is not urgent may wait until it is reported."""
_MAX_PERMITS = 64
_RETRY_S = 1.0
_CLOSE_S = 5.0
_ACCEPTED = Accepted(RemoteTask((), RemoteStatus.QUEUED))
"""All that the governor must know of an accepted job."""
Call = Callable[[Message], Awaitable[Reply]]
"""Sends a message to the run's governor, and returns its answer; raises whatever the way there raises."""


class _Held(Struct, frozen=True):
    """A permit, by this process's clock."""

    model: str
    usable_at: float
    expires_at: float


class GovernorClient:
    """
    One shard's share of the limits of a run.

    Args:
        call: Sends a message to the run's governor.
        at_once: How many shards are at work at once.
        ledger: That of the budgets that the run shares with others.

    Attributes:
        held: Returns what the shard holds of the budget.
        left: Any number of jobs: the governor gives no permit for more than may be submitted.
    """

    left = inf

    def __init__(
        self, call: Call, *, shard: int, clock: Clock, at_once: int = 1, ledger: RunLedger | None = None
    ) -> None:
        self._call = call
        self._shard = shard
        self._clock = clock
        self.at_once = at_once
        self.ledger = ledger
        self._learned: Mapping[str, float] = {}
        self.pacer = SharedPace()
        self.breaker = SharedCircuit()
        self.stall_timer = SharedStall(self._record_progress)
        self.on_change: Callable[[], None] = lambda: None
        self.on_stop: Callable[[Stop], None] = lambda _stop: None
        self.in_flight: Callable[[], Mapping[str, int]] = dict
        self.counts: Callable[[], Mapping[State, int]] = dict
        self.held: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._money_grants = 0
        self._hellos = 0
        self.session = ""
        self._submitted = 0
        self._permits: list[_Held] = []
        self._sent: Counter[str] = Counter()
        self._events: list[tuple[float, Event]] = []
        self._has_progress = False
        self._asking: asyncio.Task[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._report_timer: asyncio.TimerHandle | None = None
        self._permit_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def attach(self, engine: Engine, learned: Mapping[str, float]) -> None:
        """
        Serve an engine, which exists only after its governor.

        Args:
            learned: Rates that an earlier process of the shard found to be allowed.
        """
        self._learned = learned
        self.on_change, self.on_stop = engine.schedule_soon, engine.stop
        self.in_flight = engine.admission.in_flight_by_model
        self.counts = lambda: engine.counts

    def choose(
        self, queues: Sequence[ModelQueue], *, free: int, after: str | None, now: float
    ) -> str | Blocked:
        """Return a model that there is a permit for, or ask for one."""
        if free <= 0:
            return Blocked(Limit.IN_FLIGHT)
        names = [queue.model for queue in queues if queue.has_jobs]
        wanted = tuple(queue.model for queue in queues if queue.has_jobs and not queue.is_full)
        if not wanted:
            return Blocked(Limit.MODEL_IN_FLIGHT if names else Limit.NO_JOBS)
        for held in self._permits:
            if held.model in wanted:
                return held.model if held.usable_at <= now else Blocked(Limit.RATE, held.usable_at)
        self._return_permits(lambda held: True)
        if self._asking is None and not self._is_closed:
            self._asking = asyncio.create_task(self._ask(wanted, min(_MAX_PERMITS, free)), name="permits")
        return Blocked(Limit.RATE)

    def why(self, now: float) -> str:
        """Return what holds submissions back, in words."""
        return self.pacer.news.why

    def record_sent(self, model: str, now: float) -> None:
        """Record that a permit is used."""
        index = next(index for index, held in enumerate(self._permits) if held.model == model)
        del self._permits[index]
        self._sent[model] += 1
        self._submitted += 1
        self.breaker.unanswered += 1

    def record_not_submitted(self, *, is_retried: bool) -> None:
        """Take back a job that was counted: its submission made no task."""
        self._submitted -= 1
        self._record_event(NotSubmitted(is_retried))

    def record_abandoned(self, model: str, failure: Failure | None, now: float) -> None:
        """Record that a submission was abandoned before an answer arrived."""
        self._sent[model] -= 1
        self.breaker.unanswered -= 1
        self._record_event(Unused(model, failure, was_begun=True))

    def record_outcome(
        self, model: str, outcome: SubmitOutcome, now: float, *, sent_at: float
    ) -> Stop | None:
        """Tell the governor of an answer; it decides whether the run stops."""
        self._sent[model] -= 1
        self.breaker.unanswered -= 1
        reported = _ACCEPTED if isinstance(outcome, Accepted) else outcome
        self._record_event(Answered(model, reported, 0.0, now - sent_at))
        return None

    def record_probe(self, now: float, *, is_healthy: bool) -> None:
        """Tell the run's governor whether the gateway answered a free request."""
        self.breaker.probe_at = None
        self._record_event(ProbeAnswer(is_healthy))

    def record_end(self, state: State, *, pending: int, is_own: bool) -> list[Stop]:
        """Tell the governor of a job that ended; it decides whether the run stops."""
        self._record_event(Ended(state, is_own))
        return []

    def record_stop(self, stop: Stop) -> None:
        """Tell the governor why this shard submits nothing more."""
        self._record_event(Stopped(stop))
        self._return_permits(lambda held: True)

    def learned(self) -> dict[str, float]:
        """Return the rates that the governor found to be allowed."""
        return dict(self.pacer.news.learned or self._learned)

    def report_soon(self) -> None:
        """Report soon, if nothing else does before."""
        if self._report_timer is None and self._reporting is None and not self._is_closed:
            self._report_timer = asyncio.get_running_loop().call_later(REPORT_S, self._report_now)

    async def close(self) -> None:
        """Give back what was not used, and report the rest."""
        self._is_closed = True
        for timer in (self._report_timer, self._permit_timer):
            if timer is not None:
                timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        if self._reporting is not None:
            # What it reports is not reported twice.
            _, late = await asyncio.wait([self._reporting], timeout=_CLOSE_S)
            for task in late:
                task.cancel()
        self._return_permits(lambda held: True)
        try:
            await self._report_once()
        except Exception as error:
            log.info("the governor of the run did not get the end: %s", error)

    async def send_hello(self) -> News:
        """Register with the governor: send all that it must know, and return the state of the run."""
        permits = self._sent + Counter(held.model for held in self._permits)
        for _, event in self._events:
            # What is reported after this must be known to be open.
            if isinstance(event, Answered | Unused):
                permits[event.model] += 1
        learned = self.learned()
        self._hellos += 1
        reply = await self._call(
            Hello(
                shard=self._shard,
                tasks=self._tasks(),
                permits=dict(permits),
                submitted=self._submitted,
                learned=learned,
                budget=self._share(),
            )
        )
        assert isinstance(reply, News)
        self.session = reply.session
        return reply

    async def ask_money(self, *, need: int, wish: int) -> MoneyGrant:
        """Ask for more of the run's budget; the answer is empty if the governor can't be reached."""
        try:
            if not self.session:
                self._apply_news(await self.send_hello())
            hellos = self._hellos
            reply = await self._call(
                AskMoney(shard=self._shard, session=self.session, budget=self._share(), need=need, wish=wish)
            )
        except Exception as error:
            await self._lose_contact(error)
            return MoneyGrant(is_known=False)
        assert isinstance(reply, MoneyGrant)
        if not reply.is_known or hellos != self._hellos:
            # After another hello, the governor takes it for not received.
            return MoneyGrant(is_known=False)
        self._money_grants += bool(reply.amount)
        return reply

    def _share(self) -> BudgetShare:
        held, open_ = self.held()
        return BudgetShare(held, open_, self._money_grants)

    def _tasks(self) -> Tasks:
        return Tasks(in_flight=dict(Counter(self.in_flight()) - self._sent), counts=dict(self.counts()))

    def _record_progress(self) -> None:
        self._has_progress = True
        self.report_soon()

    def _record_event(self, event: Event) -> None:
        self._events.append((self._clock.now(), event))
        if self._is_closed:
            return
        if isinstance(event, Answered | Unused | ProbeAnswer):
            self._report_now()
        else:
            self.report_soon()

    def _report_now(self) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        if self._reporting is None and not self._is_closed:
            self._reporting = asyncio.create_task(self._report(), name="report")

    async def _report(self) -> None:
        try:
            while (self._events or self._has_progress) and not self._is_closed:
                try:
                    await self._report_once()
                except Exception as error:
                    await self._lose_contact(error)
        finally:
            self._reporting = None

    async def _report_once(self) -> None:
        if not self.session:
            self._apply_news(await self.send_hello())
        taken, self._has_progress, progress = len(self._events), False, self._has_progress
        now = self._clock.now()
        events = tuple(_aged(event, now - at) for at, event in self._events[:taken])
        reply = await self._call(
            Report(
                shard=self._shard,
                session=self.session,
                tasks=self._tasks(),
                events=events,
                has_progress=progress,
                budget=self._share(),
            )
        )
        assert isinstance(reply, News)
        if not reply.is_known:
            self.session = ""
            return
        del self._events[:taken]
        self._apply_news(reply)

    async def _lose_contact(self, error: Exception) -> None:
        log.warning("the governor of the run can't be reached: %s", error)
        self.session = ""
        self.pacer.news = NO_NEWS
        await self._clock.sleep(_RETRY_S)

    async def _ask(self, models: tuple[str, ...], most: int) -> None:
        try:
            if not self.session:
                self._apply_news(await self.send_hello())
            reply = await self._call(Ask(shard=self._shard, session=self.session, models=models, most=most))
            assert isinstance(reply, PermitGrant)
            if reply.news.is_known:
                self._apply_news(reply.news)
                self._hold(reply.permits)
                if reply.probe:
                    self.breaker.probe_at = self._clock.now()
            else:
                self.session = ""
        except Exception as error:
            await self._lose_contact(error)
        finally:
            self._asking = None
            if not self._is_closed:
                self.on_change()

    def _hold(self, permits: Sequence[Permit]) -> None:
        now = self._clock.now()
        for permit in permits:
            usable_at = now + permit.wait_s
            self._permits.append(_Held(permit.model, usable_at, usable_at + PERMIT_S))
        self._watch_permits()

    def _watch_permits(self) -> None:
        if self._permit_timer is None and self._permits:
            delay_s = self._permits[0].expires_at - self._clock.now()
            self._permit_timer = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._expire)

    def _expire(self) -> None:
        self._permit_timer = None
        now = self._clock.now()
        self._return_permits(lambda held: held.expires_at <= now)
        self._watch_permits()

    def _return_permits(self, is_given: Callable[[_Held], bool]) -> None:
        given = [held for held in self._permits if is_given(held)]
        self._permits = [held for held in self._permits if not is_given(held)]
        for held in given:
            self._record_event(Unused(held.model))

    def _apply_news(self, news: News) -> None:
        self.pacer.news, self.pacer.opens_at = news, self._clock.now() + news.wait_s
        self.breaker.state, self.stall_timer.last_message = news.circuit, news.message
        for stop in news.stops:
            self.on_stop(stop)


def _aged(event: Event, age_s: float) -> Event:
    if isinstance(event, Answered):
        return Answered(event.model, event.outcome, age_s, event.took_s)
    return event
