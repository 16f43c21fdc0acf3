"""
The vocabulary of faults: what can go wrong, where, and with which options.

`scenario_reader` checks scenario files against this table, and the documentation
of scenarios is drawn from it, so that neither can name a fault that nobody plays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, field

Option = float | bool


class Place(StrEnum):
    """The request that a fault befalls."""

    SUBMIT = "submit"
    POLL = "poll"
    CONTENT = "content"
    ASSET = "asset"
    LAST_FRAME = "last_frame"


class Fault(Struct, frozen=True):
    """
    A fault as a scenario asks for it.

    Attributes:
        times: How many requests in a row it befalls; None for all that follow.
    """

    name: str
    times: int | None = 1
    options: Mapping[str, Option] = field(default_factory=lambda: MappingProxyType({}))

    def option(self, name: str) -> Option:
        """Return an option's value, or its default."""
        return self.options.get(name, FAULTS[self.name].options[name])


class Kind(Struct, frozen=True):
    """
    What the vocabulary says of one fault.

    Attributes:
        options: Allowed options with their defaults; ``created`` (a task was made and paid for) is for POSTs alone.
    """

    summary: str
    places: frozenset[Place]
    options: Mapping[str, Option]

    def options_at(self, place: Place) -> Mapping[str, Option]:
        """Return the options that mean something at a place."""
        if place is Place.SUBMIT:
            return self.options
        return {name: default for name, default in self.options.items() if name != "created"}


_EVERYWHERE = frozenset(Place)
_QUERIES = frozenset({Place.SUBMIT, Place.POLL})
_FILES = frozenset({Place.CONTENT, Place.ASSET, Place.LAST_FRAME})
_CDN = frozenset({Place.ASSET, Place.LAST_FRAME})


def _kind(summary: str, places: frozenset[Place] = _EVERYWHERE, **options: Option) -> Kind:
    # What a POST is answered, and whether a task was made and charged, are two things.
    if Place.SUBMIT in places:
        options.setdefault("created", False)
    return Kind(summary, places, MappingProxyType(options))


FAULTS: Mapping[str, Kind] = MappingProxyType(
    {
        # Refusals (facts F43, F45).
        "bad_request": _kind("400 with an error object"),
        "invalid_request": _kind("400 with code and message"),
        "unauthorized": _kind("401"),
        "payment_required": _kind("402: the balance is not enough"),
        "forbidden": _kind("403 without a code"),
        "quota_403": _kind("403 with the code insufficient_user_quota"),
        "not_found": _kind("404 task_not_found"),
        "gone": _kind("410"),
        "too_large": _kind("413"),
        "task_not_exist": _kind("400 task_not_exist"),
        "quota": _kind("429 with the code insufficient_user_quota"),
        "token_invalid": _kind("500 with the code token_invalid, which is a 401 in truth"),
        # Not now.
        "throttled": _kind("429 with rate-limit wording"),
        "throttled_chinese": _kind("429 with the gateway's Chinese wording for a saturated upstream"),
        "throttled_empty": _kind("429 with an empty body and no headers"),
        "throttled_seconds": _kind("429 with Retry-After in seconds", after_s=1.0),
        "throttled_date": _kind("429 with Retry-After as a date", after_s=2.0),
        "throttled_ms": _kind("429 with retry-after-ms", after_s=0.2),
        "server_error": _kind("500 get_task_failed"),
        "bad_gateway": _kind("502 with an HTML page"),
        "no_channel": _kind("503 get_channel_failed: refused before the charge"),
        "unavailable": _kind("503 with an HTML page"),
        # Answers that say nothing.
        "html": _kind("200 with an HTML page"),
        "json": _kind("200 with a JSON error as body"),
        "empty": _kind("200 with an empty body"),
        "no_id": _kind("200 without an id; the task was made", frozenset({Place.SUBMIT}), created=True),
        "unknown": _kind("the status word unknown", frozenset({Place.POLL})),
        "poll_after": _kind("a good answer with openai-poll-after-ms", frozenset({Place.POLL}), after_s=1.0),
        # The connection.
        "reset": _kind("the request is read, then the connection is reset; the task was made", created=True),
        "hang": _kind("no answer; the task was made", created=True, for_s=3600.0),
        "half": _kind("half of a good answer, then the connection is closed", _QUERIES, created=True),
        "redirect": _kind("307 to another origin; 302 for a file"),
        # Files.
        "truncated": _kind("the connection is closed early", _FILES, at=0.6),
        "stall": _kind("nothing more comes after a part", _FILES, at=0.5, for_s=3600.0),
        "slow": _kind("the file trickles", _FILES, bytes_per_s=20_000.0),
        "wrong_length": _kind("a Content-Length larger than what comes", _FILES, extra=1000.0),
        "cut": _kind("a file that ends too early and declares that shorter length", _FILES, at=0.6),
        "no_length": _kind("chunked, without Content-Length", _FILES),
        "no_moov": _kind("an MP4 file without its moov box", _FILES),
        "gzip": _kind("Content-Encoding: gzip", _FILES),
        "huge": _kind("declares 1 TB, and stalls after the true file", _FILES),
        "etag_changes": _kind("another ETag than at any time before", _CDN),
        "range_ignored": _kind("200 with the whole file in answer to a range", _CDN),
        "range_refused": _kind("416 in answer to a range", _CDN),
        "expired_url": _kind("403 until the task is queried for a fresh address", _CDN),
        "redirect_loop": _kind("302 to itself", _CDN),
    }
)


def fault_at(sequence: Sequence[Fault], turn: int) -> Fault | None:
    """
    Return the fault that befalls a request, or None where all is well.

    Args:
        turn: How many requests of this kind the task, or the job, has seen before.

    >>> twice = [Fault("throttled", times=2), Fault("reset")]
    >>> [fault.name if (fault := fault_at(twice, turn)) else None for turn in range(4)]
    ['throttled', 'throttled', 'reset', None]
    """
    for fault in sequence:
        if fault.times is None or turn < fault.times:
            return fault
        turn -= fault.times
    return None
