"""Answers of the fake API and of fake downloads."""

from __future__ import annotations

from typing import Any

from runner.core.model import Failure, FailureClass
from runner.core.outcomes import (
    Ambiguous,
    BadBaseUrl,
    Denied,
    KeyRefused,
    NoChannel,
    NotSent,
    Polled,
    Rejected,
    RemoteStatus,
    RemoteTask,
    Throttled,
    Transient,
    Unknown,
)


class Bug(Exception):
    """What a mistake in our own code would raise."""


def failure(
    cls: FailureClass, message: str = "as the test wants it", http_status: int | None = None
) -> Failure:
    """Make a failure; without a status, nothing was answered."""
    return Failure(cls, message, http_status=http_status)


ACCEPTED = "accepted"
THROTTLED = Throttled(failure(FailureClass.RATE_LIMITED))
NOT_SENT = NotSent(failure(FailureClass.UNAVAILABLE))
NO_CHANNEL = NoChannel(failure(FailureClass.UNAVAILABLE))
REJECTED = Rejected(failure(FailureClass.INVALID_REQUEST))
FORBIDDEN = Rejected(failure(FailureClass.FORBIDDEN))
AMBIGUOUS = Ambiguous(failure(FailureClass.UNCERTAIN_SUBMIT))
NO_MONEY = KeyRefused(failure(FailureClass.QUOTA))
BAD_KEY = KeyRefused(failure(FailureClass.AUTH))
BAD_BASE_URL = BadBaseUrl(failure(FailureClass.UNAVAILABLE))

RUNNING = Polled(RemoteTask((), RemoteStatus.RUNNING, "in_progress"))
SUCCEEDED = Polled(
    RemoteTask((), RemoteStatus.SUCCEEDED, "completed", video_urls=("https://cdn.example/a.mp4",))
)
REMOTE_FAILED = Polled(
    RemoteTask((), RemoteStatus.FAILED, "failed", error=failure(FailureClass.REMOTE_FAILED))
)
UNKNOWN = Unknown(failure(FailureClass.LOST))
POLL_403 = Denied(failure(FailureClass.FORBIDDEN, http_status=403))
POLL_401 = Denied(failure(FailureClass.AUTH, http_status=401))
POLL_502 = Transient(failure(FailureClass.UNAVAILABLE, http_status=502))
POLL_UNANSWERED = Transient(failure(FailureClass.UNAVAILABLE))
POLL_429 = Transient(failure(FailureClass.RATE_LIMITED, http_status=429), is_throttled=True)

Answer = Any
"""An outcome; `ACCEPTED` for a new task's id; or an exception to raise."""
