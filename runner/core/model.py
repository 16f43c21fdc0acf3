"""
The values that packages pass to each other: jobs, attempts, assets, failures, verdicts.

Durations end in ``_s`` (seconds) and sizes in ``_bytes``; wall-clock times end in ``_at`` and are seconds
since 1970 UTC; readings of the monotonic clock are called ``now``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct, field

from runner.core.cost import Cost
from runner.core.lifecycle import State
from runner.core.problem import Position

Json = Any
"""A JSON value."""

FILE_KEY = "$file"
"""The key of a local file's path in a reference to it."""

_NO_METADATA: Mapping[str, Json] = {}


class FailureClass(StrEnum):
    """
    Why a job has not succeeded: a closed list, stable across versions.

    `runner/cli/README.md` lists what to do about each.
    """

    INVALID_REQUEST = "invalid_request"
    AUTH = "auth"
    QUOTA = "quota"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    MODERATION = "moderation"
    OUTPUT_MODERATION = "output_moderation"
    REMOTE_FAILED = "remote_failed"
    REMOTE_CANCELLED = "remote_cancelled"
    REMOTE_EXPIRED = "remote_expired"
    LOST = "lost"
    UNCERTAIN_SUBMIT = "uncertain_submit"
    POLL_TIMEOUT = "poll_timeout"
    DOWNLOAD_FAILED = "download_failed"
    ASSET_INVALID = "asset_invalid"
    BUDGET = "budget"
    DEADLINE = "deadline"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"


MAY_HAVE_PAID_TASK = frozenset({FailureClass.LOST, FailureClass.UNCERTAIN_SUBMIT})
"""With these failures there may be a paid task whose id, or whose state, is unknown."""

NEVER_RESUBMITTED = MAY_HAVE_PAID_TASK | {FailureClass.MODERATION, FailureClass.INVALID_REQUEST}
"""Jobs of these classes are submitted again only if they are named: they may be paid for, or would be refused again."""


class Failure(Struct, frozen=True):
    """
    Why something failed, as in the results.

    Attributes:
        message: A sentence for a person, without keys or signed query strings, at most 500 characters.
        code: The API's own code, as text, or None.
        http_status: The status of the response that reported the failure, or None if there was none.
        request_id: The API's id of that request, for its support, or None.
    """

    cls: FailureClass = field(name="class")
    message: str
    code: str | None = None
    http_status: int | None = None
    request_id: str | None = None

    @property
    def details(self) -> str:
        """The code and the HTTP status, such as ``bad_request, HTTP 400``; empty if there is neither."""
        return ", ".join(filter(None, (self.code, f"HTTP {self.http_status}" if self.http_status else None)))


class AssetKind(StrEnum):
    """What an asset is; there is a last frame only if the request asks for it."""

    VIDEO = "video"
    LAST_FRAME = "last_frame"


class Asset(Struct, frozen=True):
    """
    A complete, verified file of a job.

    Attributes:
        path: Relative to the run directory, with forward slashes.
        sha256: Of its bytes, in hex.
        duration_s: Of a video, according to its header; None for a picture.
        take: The number of the attempt that made it, if a newer take has replaced it; None otherwise.
        url: Its place in an object store, such as ``s3://bucket/videos/sky.1f3a.mp4``; None if it is only in the run
            directory. It holds no secret.
        codec, fps, has_sound: Of a video, as in `MediaInfo`; None for a picture, or if that is unknown.
        request: The request that made it, if that is not the job's any more; None otherwise.
    """

    kind: AssetKind
    path: str
    bytes: int
    sha256: str
    content_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    request: Mapping[str, Json] | None = None
    codec: str | None = None
    fps: float | None = None
    has_sound: bool | None = None
    take: int | None = None
    url: str | None = None


class Attempt(Struct, frozen=True):
    """
    One attempt at a job: one POST, or a task that existed already and was attached.

    Attributes:
        number: From 1.
        outcome: ``accepted``, ``rejected``, ``throttled``, ``no_channel``, ``refused``, ``not_sent``,
            ``uncertain``, ``attached``, or ``pending`` until the response arrives.
        error: Why it made no task; or why its task failed, if the run tried again by itself (`reroll`).
        key: Fingerprint of the key that was used, or None.
        answer: The start of an answer that was not understood; not in the results. None also if it is not read.
    """

    number: int
    submitted_at: float
    outcome: str
    task_id: str | None = None
    http_status: int | None = None
    error: Failure | None = None
    key: str | None = None
    answer: str | None = None

    @property
    def made_task(self) -> bool:
        """Whether it has a task, which is paid for."""
        return self.outcome in ("accepted", "attached")


class JobRecord(Struct, frozen=True):
    """
    All that a run knows of one job, with all its attempts.

    Attributes:
        request: As in `JobSpec`: a local file is a ``{"$file": …}`` reference.
        remote_status: The task's last status as the API wrote it, or None.
        submitted_at: When the newest accepted POST was sent, or None.
        completed_at: When the task was completed according to the API, or None.
        finished_at: When the job ended, or None.
        generate_s: From the submission until a poll showed success, or None.
        download_s: From that poll until every asset was durable, or None.
        polls: Polls of the newest task.
        error: Why the job has not succeeded; None if it has, or if nothing went wrong yet.
        is_gone: Whether the job was removed from the manifest.
        usage: What the newest task consumed according to the API, or None.
        checks: What checks of its video found, by name; None if there were none.
        verdict: What they make of it: ``value``, ``by`` and ``why``; None if nothing is wrong with it.
        costs: Of the attempts that have a known price, in their order.
    """

    job_id: str
    index: int
    model: str
    schema: str
    request: Mapping[str, Json]
    digest: str
    metadata: Mapping[str, Json]
    state: State = field(name="status")
    timeout_s: float | None = None
    task_id: str | None = None
    remote_status: str | None = None
    submitted_at: float | None = None
    completed_at: float | None = None
    finished_at: float | None = None
    generate_s: float | None = None
    download_s: float | None = None
    polls: int = 0
    attempts: tuple[Attempt, ...] = ()
    assets: tuple[Asset, ...] = ()
    warnings: tuple[str, ...] = ()
    error: Failure | None = None
    source: Position = Position("")
    is_gone: bool = False
    usage: Mapping[str, Json] | None = None
    checks: Mapping[str, Json] | None = None
    verdict: Mapping[str, Json] | None = None
    costs: tuple[Cost, ...] = ()


class JobSpec(NamedTuple):
    """
    A job as the manifest defines it: expanded, normalized, and valid.

    A tuple, because a million are created in a row: other frozen values take two to four times as long.

    Attributes:
        job_id: The user's name for it, unique in a run.
        index: Its position in the manifest, from 0.
        schema: The schema that it was checked with.
        request: The body to send. A local file is ``{"$file": path, "sha256": hex,
            "media_type": "image/png", "bytes": n}`` (path absolute) and becomes a data URI only when it is sent.
        digest: Of the request, as sent; with the job id it is the job's identity.
        metadata: The user's own, copied to the results.
        timeout_s: How long to poll the task; None for the timeout of the manifest.
        task_id: A task that exists already: it is polled and downloaded, never submitted.
        warnings: One sentence each, for a person.
        source: Its position in the manifest or its row file.
    """

    job_id: str
    index: int  # type: ignore[assignment]  # shadows tuple.index, unused here
    model: str
    schema: str
    request: Mapping[str, Json]
    digest: str
    metadata: Mapping[str, Json] = _NO_METADATA
    timeout_s: float | None = None
    task_id: str | None = None
    warnings: tuple[str, ...] = ()
    source: Position = Position("")


class OnChanged(StrEnum):
    """What to do with a job whose request is not the one that already ran under its id."""

    ERROR = "error"
    KEEP = "keep"
    RERUN = "rerun"


class Job(Struct, eq=False):
    """
    What the engine has in memory of a job that it works on; the request stays in the store.

    Attributes:
        seq: The job's key in the store.
        attempt: Number of attempts so far, including one in progress.
        key: Fingerprint of the key that the newest attempt was made with.
        waiting_since: A reading of the monotonic clock: when the task was submitted, or when this process
            resumed it. The poll timeout counts from here.
        no_channel_posts: POSTs of this process that no channel accepted.
        uninformative_polls: Polls in a row that failed: network errors, 429, 5xx, refused keys.
        unknown_polls: Polls in a row in which the API did not know the task, once it was no longer young.
        has_files: Whether its request has local files, which become data URIs when it is sent.
        alias_id: The id by which the API calls the task in its answers, if it is not one that was polled.
        odd_answer: What was odd in the last answer that was kept because it was not understood, or None.
        delivery_hints: What its request says of the video, if this process submitted it; shared among jobs.
        cost: Of the attempt in progress, or of the last one; None if its price is not known.
        usage: What its task consumed according to the API, or None.
        commit: Number of the store's commit that has the newest change.
    """

    seq: int
    job_id: str
    index: int
    model: str
    state: State
    attempt: int = 0
    task_id: str | None = None
    other_task_id: str | None = None
    remote_status: str | None = None
    key: str | None = None
    submitted_at: float | None = None
    completed_at: float | None = None
    finished_at: float | None = None
    generate_s: float | None = None
    download_s: float | None = None
    polls: int = 0
    timeout_s: float | None = None
    error: Failure | None = None
    warnings: tuple[str, ...] = ()
    has_files: bool = False
    alias_id: str | None = None
    odd_answer: str | None = None
    delivery_hints: Mapping[str, Json] | None = None
    waiting_since: float = 0.0
    no_channel_posts: int = 0
    uninformative_polls: int = 0
    unknown_polls: int = 0
    cost: Cost | None = None
    usage: Mapping[str, Json] | None = None
    commit: int = 0

    def warn(self, sentence: str) -> None:
        """Add a warning to the results, once."""
        if sentence not in self.warnings:
            self.warnings = (*self.warnings, sentence)


_FILE_TYPES = {FILE_KEY: str, "sha256": str, "media_type": str, "bytes": int}


def is_file_reference(value: Json) -> bool:
    """
    Return whether a value in a request is a reference to a local file.

    >>> is_file_reference({"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9})
    True
    """
    return (
        type(value) is dict
        and FILE_KEY in value
        and _FILE_TYPES == {key: type(value.get(key)) for key in _FILE_TYPES}
    )


def has_files(value: Json) -> bool:
    """
    Return whether a request has a local file anywhere, which must then be read when it is sent.

    >>> file = {"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}
    >>> has_files({"media": [{"type": "first_frame", "url": file}]}), has_files({"prompt": "$file"})
    (True, False)
    """
    if isinstance(value, dict):
        return is_file_reference(value) or any(map(has_files, value.values()))
    return isinstance(value, list) and any(map(has_files, value))


_WITH_SOUND_BY_DEFAULT = ("seedance-1-5", "dreamina-seedance", "wan3.0")
"""Beginnings of the names of models that make sound unless `generate_audio` is false (fact F19)."""


def asks_for_sound(request: Mapping[str, Json]) -> bool:
    """
    Return whether a request asks for sound, or leaves that to a model that makes sound by default.

    >>> asks_for_sound({"model": "seedance-1-5-pro-251215"}), asks_for_sound({"model": "wan2.7-i2v"})
    (True, False)
    """
    default = str(request.get("model")).startswith(_WITH_SOUND_BY_DEFAULT)
    return bool(request.get("generate_audio", default))


class Verdicts(dict[str, str]):
    """
    Verdicts of people: ``keep`` or ``reject``, by job id.

    Attributes:
        given_at: When each was given, in seconds since 1970, as far as that is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.given_at: dict[str, float] = {}

    def of(self, record: JobRecord) -> str | None:
        """Return the verdict on the video of a job: a person's, else that of checks."""
        takes = sum(attempt.made_task for attempt in record.attempts)
        verdict = self.by_person(record.job_id, takes=takes, submitted_at=record.submitted_at)
        if verdict is not None:
            return verdict
        return None if record.verdict is None else str(record.verdict["value"])

    def by_person(self, job_id: str, *, takes: int, submitted_at: float | None) -> str | None:
        """
        Return a person's verdict on the newest take of a job.

        Args:
            takes: How many takes there are; what was said before the newest one was submitted is about an earlier one.
            submitted_at: When the newest one was submitted, in seconds since 1970.
        """
        at = self.given_at.get(job_id)
        if takes > 1 and at is not None and submitted_at is not None and at < submitted_at:
            return None
        return self.get(job_id)
