"""
A line of a results file, as hostile input, back into what a run knew of the job.

Every failure is a ``ValueError`` with one sentence; the reader adds the place. Keys
that a rerun can't do without must be there; the rest may have been dropped by whoever
filtered the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct

from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Attempt, Failure, FailureClass, JobRecord, Json
from runner.results.formats import SCHEMA_VERSION

_Word = TypeVar("_Word", bound=StrEnum)
_Object = Mapping[str, Json]
_DEEPEST = 64


class NewerVersion(ValueError):
    """The line was written by a newer version of the program."""


class ResultLine(Struct, frozen=True):
    """
    A line of a results file.

    Attributes:
        gateway: The base URL that the job was sent to; None where the line does not say.
        line: Its number in the file, from 1.
        record: What the line says. Pictures in the request stand as placeholders (`placeholder.recover` makes
            them whole), the digest is empty, and times are to the millisecond.
    """

    run: str
    gateway: str | None
    line: int
    record: JobRecord


def parse_line(value: Json, *, line: int) -> ResultLine:
    """
    Read a result line.

    Raises:
        NewerVersion: Its schema version is not known yet.
        ValueError: It is not a result line, in one sentence.
    """
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - one kind of error for every kind of bad line
    _check_version(value)
    return ResultLine(_text(value, "run"), _optional_text(value, "gateway"), line, _record(value))


def _check_version(value: _Object) -> None:
    if "schema_version" not in value:
        if "custom_id" in value:
            raise ValueError("is a line of the OpenAI batch shape, which does not hold enough to rerun from")
        raise ValueError("has no 'schema_version'; it is not a result line")
    version = value["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"has the schema_version {_shown(version)}, which is not one")
    if version > SCHEMA_VERSION:
        raise NewerVersion(f"has schema_version {version}; this program reads up to {SCHEMA_VERSION}")


def _record(value: _Object) -> JobRecord:
    return JobRecord(
        job_id=_text(value, "job_id"),
        index=_count(value, "index"),
        model=_text(value, "model"),
        schema=_optional_text(value, "schema") or "",
        request=_request(value),
        digest="",
        metadata=_object(value, "metadata") if value.get("metadata") is not None else {},
        state=_word(State, value, "status"),
        timeout_s=_seconds(value, "timeout_s"),
        task_id=_optional_text(value, "task_id"),
        remote_status=_optional_text(value, "remote_status"),
        submitted_at=_time(value, "submitted_at"),
        completed_at=_time(value, "completed_at"),
        finished_at=_time(value, "finished_at"),
        generate_s=_seconds(value, "generate_s"),
        download_s=_seconds(value, "download_s"),
        polls=_count(value, "polls"),
        attempts=tuple(_attempt(item) for item in _objects(value, "attempts")),
        assets=tuple(_asset(item) for item in _objects(value, "assets")),
        warnings=_texts(value, "warnings"),
        error=_error(value),
    )


def _attempt(value: _Object) -> Attempt:
    submitted_at = _time(value, "submitted_at")
    return Attempt(
        number=_count(value, "number"),
        submitted_at=0.0 if submitted_at is None else submitted_at,
        outcome=_text(value, "outcome"),
        task_id=_optional_text(value, "task_id"),
        http_status=_optional_count(value, "http_status"),
        error=_error(value),
    )


def _asset(value: _Object) -> Asset:
    path = _text(value, "path")
    if path.startswith("/") or "\\" in path or ":" in path or ".." in path.split("/"):
        raise ValueError(f"has an asset at {_shown(path)}, outside its run directory")
    return Asset(
        kind=_word(AssetKind, value, "kind"),
        path=path,
        bytes=_count(value, "bytes"),
        sha256=_text(value, "sha256"),
        content_type=_text(value, "content_type"),
        width=_optional_count(value, "width"),
        height=_optional_count(value, "height"),
        duration_s=_seconds(value, "duration_s"),
    )


def _error(value: _Object) -> Failure | None:
    if value.get("error") is None:
        return None
    error = _object(value, "error")
    code = error.get("code")
    return Failure(
        cls=_word(FailureClass, error, "class"),
        message=_optional_text(error, "message") or "",
        code=None if code is None else str(code),
        http_status=_optional_count(error, "http_status"),
        request_id=_optional_text(error, "request_id"),
    )


def _get(value: _Object, key: str) -> Json:
    if key not in value:
        raise ValueError(f"has no {key!r}")
    return value[key]


def _text(value: _Object, key: str) -> str:
    text = _get(value, key)
    if not isinstance(text, str) or not text:
        raise _wrong(key, text, "text")
    return text


def _optional_text(value: _Object, key: str) -> str | None:
    text = value.get(key)
    if text is not None and not isinstance(text, str):
        raise _wrong(key, text, "text or null")
    return text


def _texts(value: _Object, key: str) -> tuple[str, ...]:
    texts = value.get(key) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _wrong(key, texts, "a list of texts")
    return tuple(texts)


def _object(value: _Object, key: str) -> dict[str, Json]:
    item = _get(value, key)
    if not isinstance(item, dict):
        raise _wrong(key, item, "an object")
    return item


def _request(value: _Object) -> dict[str, Json]:
    request = _object(value, "request")
    level: list[Json] = [request]
    for _ in range(_DEEPEST):
        level = [child for item in level for child in _children(item)]
        if not level:
            return request
    raise ValueError(f"has a request nested deeper than {_DEEPEST} levels")


def _children(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _objects(value: _Object, key: str) -> list[dict[str, Json]]:
    items = value.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _wrong(key, items, "a list of objects")
    return items


def _optional_count(value: _Object, key: str) -> int | None:
    number = value.get(key)
    if number is None:
        return None
    # A data frame writes whole numbers of a column with gaps as 7.0.
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 2**63:
        raise _wrong(key, number, "a whole number")
    if number != int(number):
        raise _wrong(key, number, "a whole number")
    return int(number)


def _count(value: _Object, key: str) -> int:
    return _optional_count(value, key) or 0


def _seconds(value: _Object, key: str) -> float | None:
    number = value.get(key)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise _wrong(key, number, "a number of seconds or null")
    return float(number)


def _time(value: _Object, key: str) -> float | None:
    text = _optional_text(value, key)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise _wrong(key, text, "a time such as 2026-11-21T02:00:01.250Z") from None


def _word(words: type[_Word], value: _Object, key: str) -> _Word:
    word = _text(value, key)
    try:
        return words(word)
    except ValueError:
        near = get_close_matches(word, list(words), 1)
        hint = f"; did you mean {str(near[0])!r}?" if near else f"; known are {', '.join(words)}"
        raise ValueError(f"has the unknown {key} {_shown(word)}{hint}") from None


def _wrong(key: str, found: Json, wanted: str) -> ValueError:
    return ValueError(f"has {_shown(found)} as {key!r} instead of {wanted}")


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
