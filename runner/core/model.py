"""
The values that the rooms hand to each other. Frozen, and without behaviour of their own.

Durations end in ``_s`` (seconds), sizes in ``_bytes``; wall-clock times end in
``_at`` and are seconds since 1970 UTC, readings of the monotonic clock are ``now``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct

from runner.core.lifecycle import Event, State, advance
from runner.core.problem import Position


class FailureClass(StrEnum):
    """
    Why a job is not succeeded: a closed list, stable across versions.

    `runner/cli/README.md` lists each with what the user should do.
    """

    INVALID_REQUEST = "invalid_request"
    AUTH = "auth"
    QUOTA = "quota"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    MODERATION = "moderation"
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


class Failure(Struct, frozen=True):
    """
    A reason, as the results carry it.

    Attributes:
        message: A sentence for a person, already free of keys and signed query strings, at most 500 characters.
        code: The API's own code, as text, or None.
        http_status: The status of the answer that said so, or None where there was none.
        request_id: The API's id of that request, for its support, or None.
    """

    cls: FailureClass
    message: str
    code: str | None = None
    http_status: int | None = None
    request_id: str | None = None


class AssetKind(StrEnum):
    """What an asset is; the last frame comes only where the request asked for it."""

    VIDEO = "video"
    LAST_FRAME = "last_frame"


class Asset(Struct, frozen=True):
    """
    A whole, verified file of a job.

    Attributes:
        path: Relative to the run directory, with forward slashes.
        sha256: Of its bytes, in hex.
        duration_s: Of a video, as its own header says; None for a picture.
    """

    kind: AssetKind
    path: str
    bytes: int
    sha256: str
    content_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


class Attempt(Struct, frozen=True):
    """
    One try at a job: one POST, or the adoption of a task that existed already.

    Attributes:
        number: From 1.
        outcome: ``accepted``, ``rejected``, ``throttled``, ``not_sent``, ``uncertain``, ``attached``, or
            ``pending`` while its answer is awaited.
        key: Fingerprint of the key that it was made with, or None.
    """

    number: int
    submitted_at: float
    outcome: str
    task_id: str | None = None
    http_status: int | None = None
    error: Failure | None = None
    key: str | None = None


class JobRecord(Struct, frozen=True):
    """
    All that a run knows of one job: the union of its attempts.

    Attributes:
        request: As in `JobSpec`: a local file is a ``{"$file": …}`` reference.
        remote_status: The API's own last word for the task, or None.
        submitted_at: When the newest accepted POST was sent, or None.
        completed_at: When the API says the task was completed, or None where it does not say.
        finished_at: When the job came to rest, or None.
        generate_s: From the submission until success was seen, or None.
        download_s: From success seen until every asset was durable, or None.
        polls: Queries of the newest task.
        error: Why the job is not succeeded; None where it is, or where nothing went wrong yet.
        is_gone: Whether the job has left the manifest.
    """

    job_id: str
    index: int
    model: str
    schema: str
    request: Mapping[str, Json]
    digest: str
    metadata: Mapping[str, Json]
    state: State
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


Json = Any
"""A value that JSON can carry."""

_NOTHING: Mapping[str, Json] = {}


class JobSpec(NamedTuple):
    """
    A job as the manifest asks for it: expanded, normalised, and valid.

    A tuple, since a million are made in a row: other frozen values take two to four times as long to fill.

    Attributes:
        job_id: The user's name for it, unique in a run.
        index: Its place in the manifest, from 0.
        schema: The schema that it was checked with.
        request: The body to send. A local file stands in it as ``{"$file": path, "sha256": hex,
            "media_type": "image/png", "bytes": n}`` (path absolute) and becomes a data URI only when it is sent.
        digest: Of the request, as sent; with the job id it is the job's identity.
        metadata: The user's own, copied to the results.
        timeout_s: How long the remote task may run before our patience ends; None for the manifest's.
        task_id: A task that exists already: it is polled and downloaded, never submitted.
        warnings: What a person should know of this job, one sentence each.
        source: Where it stands in the manifest or its row file.
    """

    job_id: str
    index: int  # type: ignore[assignment]  # nobody searches a job, which is what a tuple's own is for
    model: str
    schema: str
    request: Mapping[str, Json]
    digest: str
    metadata: Mapping[str, Json] = _NOTHING
    timeout_s: float | None = None
    task_id: str | None = None
    warnings: tuple[str, ...] = ()
    source: Position = Position("")


class Job(Struct, eq=False):
    """
    What the engine keeps of a job while it is in hand; its request stays in the store.

    Attributes:
        seq: The store's handle for it.
        attempt: How many attempts were made, the one under way included.
        key: Fingerprint of the key that its newest attempt was made with.
        waiting_since: When this task's waiting began in our eyes: its submission, or when a later run
            took it up again. Patience is counted from here.
        tries: In this process, first the POSTs that no channel took, then the queries in a row that taught nothing.
        unknowns: Queries in a row that did not find the task, once it was no longer young.
        has_files: Whether its request names local files, which become data URIs when it is sent.
        delivery_hints: What its request says of the video, where this process submitted it; shared among jobs.
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
    delivery_hints: Mapping[str, Json] | None = None
    waiting_since: float = 0.0
    tries: int = 0
    unknowns: int = 0
    commit: int = 0

    def transition(self, event: Event) -> None:
        """
        Move on by an event.

        Raises:
            IllegalTransition: The job's state does not allow the event.
        """
        self.state = advance(self.state, event)

    def warn(self, sentence: str) -> None:
        """Add a warning to what the results will carry, once."""
        if sentence not in self.warnings:
            self.warnings = (*self.warnings, sentence)


FILE_KEY = "$file"
"""The key by which a mapping in a request is known as a reference to a local file; its value is the path."""


def is_file_reference(value: Json) -> bool:
    """
    Say whether a value of a request stands for a local file.

    >>> is_file_reference({"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9})
    True
    """
    return type(value) is dict and FILE_KEY in value and "sha256" in value


def has_files(value: Json) -> bool:
    """
    Say whether there is a local file anywhere in a request, which must then be read when it is sent.

    >>> file = {"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}
    >>> has_files({"media": [{"type": "first_frame", "url": file}]}), has_files({"prompt": "$file"})
    (True, False)
    """
    if isinstance(value, dict):
        return is_file_reference(value) or any(map(has_files, value.values()))
    return isinstance(value, list) and any(map(has_files, value))
