"""
The messages between the shards of a run and their governor, and the state of the run that a shard learns from them.

There are only ages in messages, never times: clocks differ. A shard asks for permits, one for each POST, and reports what
became of each of them: exactly one `Answered` or `Unused`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from msgspec import Struct, field

from runner.core.circuit_breaker import CircuitState
from runner.core.lifecycle import State
from runner.core.model import Failure
from runner.core.outcomes import SubmitOutcome
from runner.core.stop import Stop


class Answered(Struct, frozen=True):
    """
    A POST was answered, or left its job uncertain.

    Attributes:
        age_s: Seconds since the answer.
        took_s: Seconds from the POST to the answer.
    """

    model: str
    outcome: SubmitOutcome
    age_s: float
    took_s: float


class Unused(Struct, frozen=True):
    """
    A permit was not used, or its POST was abandoned.

    Attributes:
        failure: Why the job is uncertain; None if nothing was sent.
        was_begun: Whether a job was counted as submitted for it.
    """

    model: str
    failure: Failure | None = None
    was_begun: bool = False


class NotSubmitted(Struct, frozen=True):
    """A POST made no task; the job is not counted, because it is submitted again or has ended."""

    is_retried: bool


class Ended(Struct, frozen=True):
    """A job ended, or is pending again for another take; see `RunGovernor.record_end`."""

    state: State
    is_own: bool


class ProbeAnswer(Struct, frozen=True):
    """Whether the gateway answered the free request that the governor wanted."""

    is_healthy: bool


class Stopped(Struct, frozen=True):
    """The shard submits nothing more."""

    stop: Stop


Event = Answered | Unused | NotSubmitted | Ended | ProbeAnswer | Stopped


class Tasks(Struct, frozen=True, kw_only=True):
    """
    The tasks and jobs of a shard.

    Attributes:
        in_flight: Tasks that exist, by model, without the POSTs that wait for their answer.
        counts: Jobs by state.
    """

    in_flight: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[State, int] = field(default_factory=dict)


class BudgetShare(Struct, frozen=True):
    """
    What a shard holds of the run's budget, in billionths.

    Attributes:
        held: What its attempts cost, and what it may still spend.
        open: The part of it that work in progress may still give back.
        grants: How many answers to `AskMoney` it has got: what it held before the last one is no news.
    """

    held: int = 0
    open: int = 0
    grants: int = 0


class Hello(Struct, frozen=True, kw_only=True):
    """
    A shard begins, or its governor does not know it any more: all that the governor must know of it.

    Attributes:
        permits: Permits that it holds or uses, by model.
        submitted: Jobs that it submitted, without those that are to be submitted again.
        learned: Rates that it knows to be allowed, by model; under "" for the whole run.
    """

    shard: int
    tasks: Tasks
    permits: Mapping[str, int] = field(default_factory=dict)
    submitted: int = 0
    learned: Mapping[str, float] = field(default_factory=dict)
    budget: BudgetShare = BudgetShare()


class Report(Struct, frozen=True, kw_only=True):
    """
    What happened in a shard.

    Attributes:
        session: Of the governor to which the shard said hello.
        has_progress: Whether the gateway did something for the run, such as showing a task.
    """

    shard: int
    session: str
    tasks: Tasks
    events: tuple[Event, ...] = ()
    has_progress: bool = False
    budget: BudgetShare = BudgetShare()


class Ask(Struct, frozen=True, kw_only=True):
    """
    A shard has jobs to submit.

    Attributes:
        models: Of which models, in the order of its choice.
        most: The most permits that it can use.
    """

    shard: int
    session: str
    models: tuple[str, ...]
    most: int = 1


class AskMoney(Struct, frozen=True, kw_only=True):
    """
    A shard needs more of the run's budget.

    Attributes:
        need: What it needs in addition.
        wish: What it would like to have, so that it asks seldom.
    """

    shard: int
    session: str
    budget: BudgetShare
    need: int
    wish: int


class Permit(Struct, frozen=True):
    """One POST may be sent, ``wait_s`` seconds from now."""

    model: str
    wait_s: float


class News(Struct, frozen=True, kw_only=True):
    """
    The state of the whole run.

    Attributes:
        session: Of the governor.
        is_known: Whether it knows the shard; else the shard says hello, and nothing else that it told counts.
        why: What holds submissions back, in words.
        wait_s: Until the rate allows the next POST.
        stops: Why nothing more is submitted.
        learned: Rates that were found to be allowed.
    """

    session: str
    is_known: bool
    per_s: float
    accepted_per_s: float
    wait_s: float
    circuit: CircuitState
    why: str
    message: str = ""
    stops: tuple[Stop, ...] = ()
    learned: Mapping[str, float] = field(default_factory=dict)


class PermitGrant(Struct, frozen=True, kw_only=True):
    """
    The answer to `Ask`.

    Attributes:
        probe: Whether the shard is to send the gateway a free request, and report the result.
    """

    news: News
    permits: tuple[Permit, ...] = ()
    probe: bool = False


class MoneyGrant(Struct, frozen=True, kw_only=True):
    """
    The answer to `AskMoney`.

    Attributes:
        amount: What the shard may spend in addition.
        name: The limit that is in the way, if it may spend nothing more.
        used: What counts against that limit.
        open: The part of it that work in progress may still give back.
    """

    is_known: bool
    amount: int = 0
    name: str = ""
    limit: int = 0
    used: int = 0
    open: int = 0


Message = Hello | Report | Ask | AskMoney
Reply = News | PermitGrant | MoneyGrant


NO_NEWS = News(
    session="",
    is_known=False,
    per_s=0.0,
    accepted_per_s=0.0,
    wait_s=0.0,
    circuit=CircuitState.CLOSED,
    why="waiting for the governor of the run",
)


class SharedPace:
    """The rate of the whole run, as the governor reported it."""

    def __init__(self) -> None:
        self.news, self.opens_at = NO_NEWS, 0.0

    @property
    def per_s(self) -> float:
        """The rate that is allowed to all shards together; a rate that is not known yet is shown as a very low one."""
        return self.news.per_s or 1e-3

    def accepted_per_s(self, now: float) -> float:
        """Return the rate of answers of all shards other than refusals."""
        return self.news.accepted_per_s


class SharedCircuit:
    """The state of the gateway, as the governor reported it."""

    def __init__(self) -> None:
        self.state, self.unanswered = CircuitState.CLOSED, 0
        self.probe_at: float | None = None


class SharedStall:
    """Tells the governor about progress; it decides, and stops the run."""

    def __init__(self, on_progress: Callable[[], None]) -> None:
        self.limit_s, self.last_message, self.expires_at = 0.0, "", inf
        self.record_progress = on_progress
