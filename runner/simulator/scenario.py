"""
What the simulator does: which jobs get which faults, and how their tasks go.

`runner/simulator/README.md` explains the file format, and `schemas/scenario.schema.json` describes every key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from runner.core.model import Json
from runner.simulator.faults import Fault, RequestKind


class Shape(StrEnum):
    """The forms in which the API shows a task (facts F69, F72)."""

    UNIFIED = "unified"
    ALI = "ali"
    WAN3 = "wan3"
    """The words of the first, the address of the second."""
    BYTEPLUS = "byteplus"
    ARK = "ark"
    WRAPPED = "wrapped"


class TaskEnd(StrEnum):
    """How a task ends."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    MODERATION = "moderation"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    NEVER = "never"
    """It keeps running."""
    LOST = "lost"
    """The API never knows it."""


class ErrorLocation(StrEnum):
    """Where an answer says why a task failed (fact F53)."""

    ERROR = "error"
    ERROR_TEXT = "error_text"
    METADATA_ERROR = "metadata_error"
    METADATA_URL = "metadata_url"
    """The text is in the field for the URL (fact F71)."""
    FAIL_REASON = "fail_reason"
    OUTPUT = "output"
    NOWHERE = "nowhere"


class UrlLocation(StrEnum):
    """Where the video of a task is."""

    CDN = "cdn"
    """At another origin, with a signed URL."""
    GATEWAY = "gateway"
    """At the API's own content route, which needs the key."""
    NOWHERE = "nowhere"
    """The answer has no URL; the content route still has the video."""


class IdStyle(StrEnum):
    """How an answer identifies its task."""

    DOCUMENTED = "documented"
    TASK_ID = "task_id"
    """Only `task_id`, no `id`."""
    DIFFERENT = "different"
    """`id` is unknown to polls; `task_id` is right."""


class DurationRange(NamedTuple):
    """A range of durations in seconds."""

    least: float
    most: float

    def at(self, fraction: float) -> float:
        """Return the duration at a fraction of the range, from 0 to 1."""
        return self.least + (self.most - self.least) * fraction


class TaskBehavior(Struct, frozen=True, kw_only=True):
    """
    How a task goes.

    Attributes:
        shape: Of the answers; None for the one that the model documents.
        generate_s: Overrides that of the scenario.
        unknown_s: How long the status is `unknown` at first, counted from the submission.
        missing_s: How long the API does not know the task yet, since it answers before it stores the task.
        error_in: Where the reason of a failure is; None for the place that the shape documents.
        code, message: Of the failure; None for common ones.
        words: Status words by phase, for other vocabularies.
        last_frame: Whether the answer has the URL of a last frame that was requested.
        asset_bytes: The size that the video is padded to.
        moov_first: Whether the video can be played while it loads.
    """

    shape: Shape | None = None
    end: TaskEnd = TaskEnd.SUCCEEDED
    generate_s: DurationRange | None = None
    unknown_s: float = 0.0
    missing_s: float = 0.0
    error_in: ErrorLocation | None = None
    code: str | None = None
    message: str | None = None
    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ids: IdStyle = IdStyle.DOCUMENTED
    url: UrlLocation = UrlLocation.CDN
    last_frame: bool = True
    asset_bytes: int = 0
    moov_first: bool = True


class JobInfo(Struct, frozen=True):
    """
    A job, as its submission shows it.

    Attributes:
        number: From 1, in the order of first submissions.
        digest: Of the request.
    """

    number: int
    digest: str
    model: str
    prompt: str
    key: str
    seed: Json


class Match(Struct, frozen=True, kw_only=True):
    """The jobs that a rule applies to. An absent condition always holds."""

    model: str | None = None
    prompt: str | None = None
    key: str | None = None
    nth: tuple[int, ...] = ()
    every: int | None = None
    after: int | None = None
    probability: float | None = None
    seeds: tuple[int, ...] = ()

    def matches(self, job: JobInfo, draw: float) -> bool:
        """
        Return whether a job meets all conditions.

        Args:
            draw: The job's random number from [0, 1) for this rule.
        """
        return (
            (self.model is None or fnmatchcase(job.model, self.model))
            and (self.prompt is None or _matches_prompt(self.prompt, job.prompt))
            and (self.key is None or fnmatchcase(job.key, self.key))
            and self._matches_number(job.number)
            and (self.probability is None or draw < self.probability)
            and (not self.seeds or job.seed in self.seeds)
        )

    def _matches_number(self, number: int) -> bool:
        if self.after is not None and number <= self.after:
            return False
        if self.every is None:
            return not self.nth or number in self.nth
        return (number - 1) % self.every + 1 in (self.nth or (self.every,))


def _matches_prompt(pattern: str, prompt: str) -> bool:
    """
    Return whether a prompt matches a glob pattern, or contains plain text.

    >>> _matches_prompt("kitten", "A kitten on grass"), _matches_prompt("kitten*", "A kitten on grass")
    (True, False)
    """
    if any(character in pattern for character in "*?["):
        return fnmatchcase(prompt, pattern)
    return pattern in prompt


class Rule(Struct, frozen=True, kw_only=True):
    """What happens to the jobs that match: how their tasks go, and the faults of each kind of request, in order."""

    name: str = ""
    match: Match = Match()
    task: TaskBehavior = TaskBehavior()
    faults: Mapping[RequestKind, tuple[Fault, ...]] = field(default_factory=lambda: MappingProxyType({}))


class RateLimit(Struct, frozen=True, kw_only=True):
    """How many requests per second are allowed, and how many at once; None for any number."""

    submit_per_s: float | None = None
    poll_per_s: float | None = None
    burst: int = 1


class Outage(Struct, frozen=True, kw_only=True):
    """A period, in seconds since the start, in which the whole API answers the same without reading requests."""

    from_s: float
    to_s: float
    answer: Fault = Fault("bad_gateway", times=None)


class LibraryRules(Struct, frozen=True, kw_only=True):
    """
    How the asset library treats uploads.

    Attributes:
        job_s: From an upload until its asset has an id.
        review_s: From then until it is approved or refused.
        refuse: A glob pattern for the names of the files that are refused; None for none.
    """

    job_s: float = 0.0
    review_s: float = 0.0
    refuse: str | None = None


class Scenario(Struct, frozen=True, kw_only=True):
    """
    A scenario.

    Attributes:
        keys: Keys that are accepted; empty for any.
        url_valid_s: How long a signed URL is valid.
        job_label: A regular expression whose first group, found in a prompt, labels the line in the ledger.
    """

    name: str = "plain"
    seed: int = 0
    generate_s: DurationRange = DurationRange(0.3, 1.5)
    keys: tuple[str, ...] = ()
    rate_limit: RateLimit = RateLimit()
    outages: tuple[Outage, ...] = ()
    url_valid_s: float = 86_400.0
    library: LibraryRules = LibraryRules()
    job_label: str | None = None
    rules: tuple[Rule, ...] = ()

    def rule_number(self, job: JobInfo) -> int | None:
        """Return the number, from 0, of the first rule that matches a job, or None."""
        for number, rule in enumerate(self.rules):
            draw = 0.0
            if rule.match.probability is not None:
                draw = seeded_draw(self.seed, job.digest, f"rule {number}")
            if rule.match.matches(job, draw):
                return number
        return None

    def rule(self, number: int | None) -> Rule:
        """Return a rule by its number, or one without faults."""
        return _NO_FAULTS if number is None or number >= len(self.rules) else self.rules[number]

    def label(self, prompt: str) -> str | None:
        """Return the label that `job_label` finds in a prompt, or None."""
        found = re.search(self.job_label, prompt) if self.job_label else None
        return found[1] if found else None

    def outage_at(self, elapsed_s: float) -> Fault | None:
        """Return the answer of the current outage, or None if there is none."""
        for outage in self.outages:
            if outage.from_s <= elapsed_s < outage.to_s:
                return outage.answer
        return None


_NO_FAULTS = Rule()


def seeded_draw(seed: int, subject: str, purpose: str) -> float:
    """
    Return a number from [0, 1) that depends on the arguments only.

    >>> seeded_draw(7, "abc", "duration") == seeded_draw(7, "abc", "duration")
    True
    """
    text = f"{seed}/{purpose}/{subject}".encode("utf-8", "replace")
    return int.from_bytes(blake2b(text, digest_size=7).digest(), "big") / 2**56
