"""What the governor of many shards makes of their messages; whole runs are in the tests of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core.governor import RunGovernor
from runner.core.governor_messages import (
    Answered,
    Ask,
    AskMoney,
    BudgetShare,
    Event,
    Hello,
    News,
    PermitGrant,
    ProbeAnswer,
    Report,
    Tasks,
)
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import Accepted, Ambiguous, RemoteStatus, RemoteTask, SubmitOutcome
from runner.core.settings import CanaryPolicy, Limits
from runner.core.shared_governor import SharedBudget, SharedGovernor

UNCERTAIN = Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, "502"))
ACCEPTED = Accepted(RemoteTask(("t",), RemoteStatus.QUEUED))

NOTHING = BudgetShare()


class Shards:
    """Two shards and their governor; time passes only where a test says so."""

    def __init__(self, *, limit: int | None = None, canary: CanaryPolicy | None = None) -> None:
        limits = Limits(submit_per_s=100.0, in_flight=100)
        governor = RunGovernor(limits, learned={}, stall_s=3600.0, limit=limit, canary=canary)
        self.governor = SharedGovernor(
            limits, governor, session="one", shards=2, limit=limit, budget=SharedBudget(run=100)
        )
        self.now = 1000.0
        self._number = 0

    def hello(self, shard: int, **known: Any) -> News:
        tasks = Tasks(counts={State.PENDING: 10})
        return self.governor.hello(Hello(**{"shard": shard, "tasks": tasks, **known}), self.now)

    def report(self, shard: int, *events: Event, session: str = "one", share: BudgetShare = NOTHING) -> News:
        return self.governor.report(
            Report(shard=shard, session=session, tasks=Tasks(), events=events, budget=share), self.now
        )

    def answer(self, shard: int, outcome: SubmitOutcome) -> News:
        return self.report(shard, Answered("m", outcome, 0.0, 0.1))

    def ask(self, shard: int) -> PermitGrant | None:
        """Ask for a permit; return what is answered at once."""
        self._number += 1
        self.now += 0.02
        self.governor.ask(self._number, Ask(shard=shard, session="one", models=("m",)))
        grants = dict(self.governor.due(self.now))
        self.governor.withdraw(self._number)
        return grants.get(self._number)


def test_posts_under_way_are_known_to_a_governor_that_begins() -> None:
    """
    The answer to a POST that was sent before ends the wait for it: after one uncertain answer, the next POST goes alone.
    """
    shards = Shards()
    shards.hello(0, permits={"m": 2})
    shards.hello(1)
    assert "waiting for answers to earlier submissions" == shards.answer(0, UNCERTAIN).why
    assert shards.ask(1) is None

    shards.answer(0, UNCERTAIN)

    assert shards.ask(1) is not None


def test_the_permits_of_a_dead_shard_are_not_waited_for() -> None:
    """
    What a shard held that died keeps no other from the next POST.
    """
    shards = Shards()
    shards.hello(0, permits={"m": 2})
    shards.hello(1)
    shards.answer(0, UNCERTAIN)
    assert shards.ask(1) is None

    shards.governor.forget(0, shards.now)

    assert shards.ask(1) is not None


def test_jobs_that_were_submitted_count_for_a_governor_that_begins() -> None:
    """
    A limit holds over the crash of the governor, and over another hello of the same shard.
    """
    shards = Shards(limit=10)
    shards.hello(0, submitted=9)
    shards.hello(0, submitted=9)
    assert shards.ask(0) is not None
    shards.answer(0, ACCEPTED)

    grant = shards.ask(0)

    assert grant is not None
    assert [] == list(grant.permits)
    assert ["limit"] == [stop.reason.value for stop in grant.news.stops]


def test_the_lowest_rate_that_shards_know_holds() -> None:
    """
    A governor that begins continues at the lowest rate that a shard knows to be allowed.
    """
    shards = Shards()

    assert [30.0, 20.0, 20.0] == [
        round(shards.hello(shard, learned={"": rate}).per_s, 3)
        for shard, rate in ((0, 30.0), (1, 20.0), (0, 90.0))
    ]


def test_videos_of_earlier_processes_count_for_the_canary() -> None:
    """
    Shards that have enough videos already submit without a canary.
    """
    shards = Shards(canary=CanaryPolicy(jobs=2, succeed=1))
    shards.hello(0, tasks=Tasks(counts={State.SUBMITTED: 2}))
    assert shards.ask(0) is None

    shards.hello(1, tasks=Tasks(counts={State.SUCCEEDED: 1}))

    assert shards.ask(0) is not None


@pytest.mark.parametrize("session", ["another", ""])
def test_what_is_told_to_another_governor_does_not_count(session: str) -> None:
    """
    A shard that was not taken in, or by an earlier governor, is told so.
    """
    shards = Shards()
    assert not shards.report(0).is_known
    shards.hello(0)

    assert not shards.report(0, ProbeAnswer(True), session=session).is_known
    assert shards.report(0).is_known


def test_what_a_shard_gives_back_is_there_for_others() -> None:
    """
    A report says what a shard holds of the budget, unless it was given more since.
    """
    shards = Shards()
    shards.hello(0)
    shards.hello(1)
    asked = AskMoney(shard=0, session="one", budget=BudgetShare(), need=90, wish=90)
    assert 90 == shards.governor.money(asked).amount
    shards.report(0, share=BudgetShare(0, 0, grants=0))
    other = AskMoney(shard=1, session="one", budget=BudgetShare(), need=50, wish=50)
    assert 0 == shards.governor.money(other).amount

    shards.report(0, share=BudgetShare(20, 0, grants=1))

    assert 50 == shards.governor.money(other).amount


@pytest.mark.parametrize(
    ("jobs", "is_answered", "may_submit"),
    [
        ({State.UNCERTAIN: 1}, False, True),
        ({}, False, True),
        ({State.SUCCEEDED: 1}, True, True),
        ({State.FAILED: 1}, True, True),
        ({State.SUBMITTED: 1}, True, False),
    ],
)
def test_a_canary_whose_process_died_holds_nothing_back(
    jobs: dict[State, int], is_answered: bool, may_submit: bool
) -> None:
    """What it did not report is in what its successor knows of its jobs; another one is waited for only in flight."""
    shards = Shards(canary=CanaryPolicy(jobs=1, succeed=1))
    shards.hello(0)
    assert shards.ask(0) is not None
    if is_answered:
        shards.answer(0, ACCEPTED)
    assert shards.ask(0) is None

    shards.governor.forget(0, shards.now)
    shards.hello(0, tasks=Tasks(counts={State.PENDING: 9, **jobs}))

    assert may_submit == (shards.ask(0) is not None)


@pytest.mark.parametrize("has_ended", [True, False])
def test_tasks_of_a_shard_that_ended_hold_no_other_back(has_ended: bool) -> None:
    """Its last report may be lost; those of a process that died are polled by the next one."""
    shards = Shards()
    shards.hello(0, tasks=Tasks(in_flight={"m": 100}, counts={State.SUBMITTED: 100}))
    shards.hello(1)
    assert shards.ask(1) is None

    shards.governor.forget(0, shards.now, has_ended=has_ended)

    assert has_ended == (shards.ask(1) is not None)


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_canary_of_a_shard_that_ended_unheard_holds_no_other_back(is_answered: bool) -> None:
    """Nobody will say how it ended, so the others may submit one more."""
    shards = Shards(canary=CanaryPolicy(jobs=1, succeed=1))
    shards.hello(0)
    shards.hello(1)
    assert shards.ask(0) is not None
    if is_answered:
        shards.governor.report(
            Report(
                shard=0,
                session="one",
                tasks=Tasks(in_flight={"m": 1}, counts={State.SUBMITTED: 1}),
                events=(Answered("m", ACCEPTED, 0.0, 0.1),),
            ),
            shards.now,
        )
    assert shards.ask(1) is None

    shards.governor.forget(0, shards.now, has_ended=True)

    assert shards.ask(1) is not None
