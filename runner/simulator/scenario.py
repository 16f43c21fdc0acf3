r"""
What the simulator plays: which job meets which fault. A scenario is data, written as YAML:

```yaml
version: 1
seed: 7                       # of everything drawn by chance; the same file plays the same piece
generate_s: [0.3, 1.5]        # how long a video takes, as a number or a span
keys: [sk-sim-one]            # keys that are accepted; any, where this is absent
rate_limit: {submit_per_s: 5, poll_per_s: 50, burst: 1}   # 429 beyond
outages:
  - {from_s: 2, to_s: 3.5, answer: bad_gateway}           # since the start; any fault of `submit`
url_valid_s: 86400            # of a signed address
job_label: 'job (\S+)'         # searched in the prompt; its first group labels the ledger's lines
rules:                        # the first that matches decides; a job without one meets no fault
  - name: answers get lost
    match: {model: 'wan2.7-*', prompt: '*kitten*', key: 'sk-*', nth: [3, 4], every: 10, after: 20,
            probability: 0.1, seeds: [1, 2]}
    task: {shape: ark, end: moderation, generate_s: 2}
    submit: [{fault: throttled, times: 2}, reset]         # two of the one, one of the other, then all is well
    poll: {fault: bad_gateway, times: always}
    asset: [{fault: truncated, at: 0.3}]
```

All conditions of a `match` must hold. `nth`, `every` and `after` count jobs in the order of their first POST, from 1:
a POST that is sent again after a refusal belongs to the same job. With ``every: 10`` the `nth` are those of each ten,
the last where it is absent. Faults are listed in `fault.FAULTS`, and `Plot` says what `task` may hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from types import MappingProxyType

from msgspec import Struct, field

from runner.core.model import Json
from runner.simulator.faults import Fault, Place


class Shape(StrEnum):
    """The forms in which the API shows a task (facts F69, F72)."""

    UNIFIED = "unified"
    ALI = "ali"
    BYTEPLUS = "byteplus"
    ARK = "ark"
    WRAPPED = "wrapped"


class TaskEnd(StrEnum):
    """What becomes of a task."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    MODERATION = "moderation"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    NEVER = "never"
    """It stays running."""
    LOST = "lost"
    """The API never knows it."""


class ErrorPlace(StrEnum):
    """Where an answer says why its task failed (fact F53)."""

    ERROR = "error"
    ERROR_TEXT = "error_text"
    METADATA_ERROR = "metadata_error"
    METADATA_URL = "metadata_url"
    """The text stands where the address would be (fact F71)."""
    FAIL_REASON = "fail_reason"
    OUTPUT = "output"
    NOWHERE = "nowhere"


class UrlPlace(StrEnum):
    """Where the video of a task is offered."""

    CDN = "cdn"
    """At another origin, by a signed address."""
    GATEWAY = "gateway"
    """At the API's own content route, which needs the key."""
    NOWHERE = "nowhere"
    """No address in the answer; the content route still has it."""


class IdStyle(StrEnum):
    """How an answer names its task."""

    DOCUMENTED = "documented"
    TASK_ID = "task_id"
    """No `id`, only `task_id`."""
    DIFFERENT = "different"
    """`id` is a name that queries don't know; `task_id` is right."""


class Span(Struct, frozen=True):
    """A length of time in seconds, drawn between two bounds."""

    least: float
    most: float

    def at(self, share: float) -> float:
        """Return the value at a share of the way."""
        return self.least + (self.most - self.least) * share


class TaskBehavior(Struct, frozen=True, kw_only=True):
    """
    How a task goes; the keys of `task` in a scenario file.

    Attributes:
        shape: Of the answers; None for that of the model's document.
        generate_s: Overrides the scenario's.
        unknown_s: How long its status is `unknown` at first, counted from the submission.
        missing_s: How long the API does not know it yet (it answers before it stores the task).
        error_in: Where a failure is told; None for the place that the shape documents.
        code, message: Of the failure; None for a usual one.
        words: Status words by phase (queued, running, succeeded, failed, cancelled, expired), for other vocabularies.
        last_frame: Whether the answer gives the address of a last frame that was asked for.
        asset_bytes: The size that the video is padded to.
        moov_first: Whether the video can be played while it loads.
    """

    shape: Shape | None = None
    end: TaskEnd = TaskEnd.SUCCEEDED
    generate_s: Span | None = None
    unknown_s: float = 0.0
    missing_s: float = 0.0
    error_in: ErrorPlace | None = None
    code: str | None = None
    message: str | None = None
    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ids: IdStyle = IdStyle.DOCUMENTED
    url: UrlPlace = UrlPlace.CDN
    last_frame: bool = True
    asset_bytes: int = 0
    moov_first: bool = True


class JobInfo(Struct, frozen=True):
    """
    A job as its POST shows it.

    Attributes:
        number: Of the job, from 1 in the order of first POSTs.
        digest: Of the request.
    """

    number: int
    digest: str
    model: str
    prompt: str
    key: str
    seed: Json


class Match(Struct, frozen=True, kw_only=True):
    """Which jobs a rule is for; a condition that is absent always holds."""

    model: str | None = None
    prompt: str | None = None
    key: str | None = None
    nth: tuple[int, ...] = ()
    every: int | None = None
    after: int | None = None
    probability: float | None = None
    seeds: tuple[int, ...] = ()

    def holds(self, job: JobInfo, share: float) -> bool:
        """
        Say whether a job meets all conditions.

        Args:
            share: The job's draw from [0, 1) for this rule.
        """
        return (
            (self.model is None or fnmatchcase(job.model, self.model))
            and (self.prompt is None or _is_in(self.prompt, job.prompt))
            and (self.key is None or fnmatchcase(job.key, self.key))
            and self._counts(job.number)
            and (self.probability is None or share < self.probability)
            and (not self.seeds or job.seed in self.seeds)
        )

    def _counts(self, number: int) -> bool:
        if self.after is not None and number <= self.after:
            return False
        if self.every is None:
            return not self.nth or number in self.nth
        return (number - 1) % self.every + 1 in (self.nth or (self.every,))


def _is_in(pattern: str, prompt: str) -> bool:
    """
    Say whether a prompt matches a glob, or contains plain text.

    >>> _is_in("kitten", "A kitten on grass"), _is_in("kitten*", "A kitten on grass")
    (True, False)
    """
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(prompt, pattern)
    return pattern in prompt


class Rule(Struct, frozen=True, kw_only=True):
    """What befalls the jobs that match; the faults of each place in their order."""

    name: str = ""
    match: Match = Match()
    task: TaskBehavior = TaskBehavior()
    faults: Mapping[Place, tuple[Fault, ...]] = field(default_factory=lambda: MappingProxyType({}))


class RateLimit(Struct, frozen=True, kw_only=True):
    """Requests a second that are let through, with a burst; None for any number."""

    submit_per_s: float | None = None
    poll_per_s: float | None = None
    burst: int = 1


class Outage(Struct, frozen=True, kw_only=True):
    """A time, in seconds since the start, in which the whole API gives one answer, before it reads anything."""

    from_s: float
    to_s: float
    answer: Fault = Fault("bad_gateway", times=None)


class Scenario(Struct, frozen=True, kw_only=True):
    """
    A piece to play.

    Attributes:
        keys: Keys that are accepted; empty for any.
        url_valid_s: How long a signed address is valid.
        job_label: A pattern whose first group, found in a prompt, labels the ledger's line.
    """

    name: str = "plain"
    seed: int = 0
    generate_s: Span = Span(0.3, 1.5)
    keys: tuple[str, ...] = ()
    rate_limit: RateLimit = RateLimit()
    outages: tuple[Outage, ...] = ()
    url_valid_s: float = 86_400.0
    job_label: re.Pattern[str] | None = None
    rules: tuple[Rule, ...] = ()

    def rule_for(self, job: JobInfo) -> int | None:
        """Return the number of the first rule that matches a job, or None."""
        for number, rule in enumerate(self.rules):
            share = 0.0
            if rule.match.probability is not None:
                share = draw(self.seed, job.digest, f"rule {number}")
            if rule.match.holds(job, share):
                return number
        return None

    def rule(self, number: int | None) -> Rule:
        """Return a rule by its number, or one without faults."""
        return NO_FAULTS if number is None or number >= len(self.rules) else self.rules[number]

    def outage_at(self, elapsed_s: float) -> Fault | None:
        """Return the answer of the outage that is going on, if one is."""
        for outage in self.outages:
            if outage.from_s <= elapsed_s < outage.to_s:
                return outage.answer
        return None


NO_FAULTS = Rule()


def draw(seed: int, subject: str, purpose: str) -> float:
    """
    Return a number from [0, 1) that depends on the arguments and on nothing else.

    >>> draw(7, "abc", "duration") == draw(7, "abc", "duration")
    True
    """
    text = f"{seed}/{purpose}/{subject}".encode("utf-8", "replace")
    return int.from_bytes(blake2b(text, digest_size=7).digest(), "big") / 2**56
