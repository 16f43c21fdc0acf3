"""
The faults: what can go wrong, with which requests, and with which options.

`schemas/scenario.schema.json` and the page about scenarios list the same faults; tests compare them with this table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, field

OptionValue = float | bool


class RequestKind(StrEnum):
    """The kinds of requests that faults apply to."""

    SUBMIT = "submit"
    POLL = "poll"
    CONTENT = "content"
    ASSET = "asset"
    LAST_FRAME = "last_frame"


class Fault(Struct, frozen=True):
    """
    A fault of a scenario.

    Attributes:
        times: How many consecutive requests it applies to; None for all that follow.
    """

    name: str
    times: int | None = 1
    options: Mapping[str, OptionValue] = field(default_factory=lambda: MappingProxyType({}))

    def option(self, name: str) -> OptionValue:
        """Return the value of an option, or its default."""
        return self.options.get(name, FAULTS[self.name].options[name])


class FaultType(Struct, frozen=True):
    """
    The definition of a fault.

    Attributes:
        request_kinds: The requests that it can apply to.
        options: Its options with their defaults. ``created``, whether a task was created and paid for, is for
            submissions only.
    """

    summary: str
    request_kinds: frozenset[RequestKind]
    options: Mapping[str, OptionValue]


_ALL = frozenset(RequestKind)
_API_CALLS = frozenset({RequestKind.SUBMIT, RequestKind.POLL})
_FILES = frozenset({RequestKind.CONTENT, RequestKind.ASSET, RequestKind.LAST_FRAME})
_SIGNED_URLS = frozenset({RequestKind.ASSET, RequestKind.LAST_FRAME})


def _fault(summary: str, request_kinds: frozenset[RequestKind] = _ALL, **options: OptionValue) -> FaultType:
    # The answer to a submission does not show whether a task was created and charged.
    if RequestKind.SUBMIT in request_kinds:
        options.setdefault("created", False)
    return FaultType(summary, request_kinds, MappingProxyType(options))


FAULTS: Mapping[str, FaultType] = MappingProxyType(
    {
        # Refusals (facts F43, F45).
        "bad_request": _fault("400 with an error object"),
        "invalid_request": _fault("400 with code and message"),
        "unauthorized": _fault("401"),
        "payment_required": _fault("402: the balance is not enough"),
        "forbidden": _fault("403 without a code"),
        "quota_403": _fault("403 with the code insufficient_user_quota"),
        "not_found": _fault("404 task_not_found"),
        "gone": _fault("410"),
        "too_large": _fault("413"),
        "task_not_exist": _fault("400 task_not_exist"),
        "quota": _fault("429 with the code insufficient_user_quota"),
        "token_invalid": _fault("500 with the code token_invalid, which means a bad key"),
        # Temporary.
        "throttled": _fault("429 with rate-limit wording"),
        "throttled_chinese": _fault("429 with the gateway's Chinese wording for a saturated upstream"),
        "throttled_empty": _fault("429 with an empty body and no headers"),
        "throttled_seconds": _fault("429 with Retry-After in seconds", after_s=1.0),
        "throttled_date": _fault("429 with Retry-After as a date", after_s=2.0),
        "throttled_ms": _fault("429 with retry-after-ms", after_s=0.2),
        "server_error": _fault("500 get_task_failed"),
        "bad_gateway": _fault("502 with an HTML page"),
        "no_channel": _fault("503 get_channel_failed: refused before the charge"),
        "unavailable": _fault("503 with an HTML page"),
        # Answers without the expected content.
        "html": _fault("200 with an HTML page"),
        "json": _fault("200 with a JSON error as body"),
        "empty": _fault("200 with an empty body"),
        "no_id": _fault("200 without an id", frozenset({RequestKind.SUBMIT}), created=True),
        "unknown_status": _fault("the status `unknown`", frozenset({RequestKind.POLL})),
        "poll_after": _fault(
            "the right answer with openai-poll-after-ms", frozenset({RequestKind.POLL}), after_s=1.0
        ),
        # The connection.
        "reset": _fault("the connection is reset after the request is read", created=True),
        "hang": _fault("no answer for `for_s` seconds, then a reset", created=True, for_s=3600.0),
        "partial_answer": _fault(
            "the connection is closed after half of the right answer", _API_CALLS, created=True
        ),
        "redirect": _fault("307 to another origin; 302 if the request is a GET"),
        # Files.
        "truncated": _fault("the connection is closed after a share `at` of the file", _FILES, at=0.6),
        "stall": _fault(
            "a pause of `for_s` seconds after a share `at` of the file", _FILES, at=0.5, for_s=3600.0
        ),
        "slow": _fault("the file is sent slowly", _FILES, bytes_per_s=20_000.0),
        "wrong_length": _fault("a Content-Length that is `extra` bytes too large", _FILES, extra=1000.0),
        "short_file": _fault("only a share `at` of the file, with a Content-Length to match", _FILES, at=0.6),
        "no_length": _fault("chunked, without Content-Length", _FILES),
        "no_moov": _fault("an MP4 file without its moov box", _FILES),
        "gzip": _fault("Content-Encoding: gzip", _FILES),
        "huge_length": _fault("a Content-Length of 1 TB; nothing is sent after the file", _FILES),
        "etag_changed": _fault("a new ETag", _SIGNED_URLS),
        "range_ignored": _fault("200 with the whole file for a range request", _SIGNED_URLS),
        "range_refused": _fault("416 for a range request", _SIGNED_URLS),
        "expired_url": _fault("403 until a poll returns a new URL", _SIGNED_URLS),
        "redirect_loop": _fault("302 to the same URL", _SIGNED_URLS),
    }
)


def fault_at(faults: Sequence[Fault], count: int) -> Fault | None:
    """
    Return the fault that applies to a request, or None if none does.

    Args:
        count: How many requests of this kind the task, or the job, has received before.

    >>> faults = [Fault("throttled", times=2), Fault("reset")]
    >>> [fault.name if (fault := fault_at(faults, count)) else None for count in range(4)]
    ['throttled', 'throttled', 'reset', None]
    """
    for fault in faults:
        if fault.times is None or count < fault.times:
            return fault
        count -= fault.times
    return None
