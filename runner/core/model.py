"""
The values that the rooms hand to each other. Frozen, and without behaviour of their own.

Durations end in ``_s`` (seconds), sizes in ``_bytes``; wall-clock times end in
``_at`` and are seconds since 1970 UTC, readings of the monotonic clock are ``now``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from runner.core.lifecycle import State
from runner.core.problem import Position
from runner.core.spec import JobSpec as JobSpec
from runner.core.spec import Json as Json
from runner.core.value import frozen


class FailureClass(StrEnum):
    """
    Why a job is not succeeded: a closed list, stable across versions.

    The README lists each with what the user should do.
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


@frozen
class Failure:
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


@frozen
class Asset:
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


@frozen
class Attempt:
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


@frozen
class JobRecord:
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
