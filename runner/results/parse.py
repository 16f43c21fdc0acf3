"""
Parse a line of a results file, which may come from anywhere.

Every failure is a ``ValueError`` with a message that names the field and what was expected; the reader adds
the position. Fields that a rerun needs must be there; whoever filtered the file may have removed the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runner.core.budget import cost_state
from runner.core.cost import Cost, CostState
from runner.core.lifecycle import State
from runner.core.model import FILE_KEY, AssetKind, FailureClass, JobRecord, Json
from runner.core.money import parse_amount, to_nanos
from runner.core.prices import Unit
from runner.results.formats import SCHEMA_VERSION
from runner.schema.wording import did_you_mean

_MAX_DEPTH = 64

_DEFAULTS: Mapping[str, Mapping[str, Json]] = {
    "": {"gateway": None, "index": 0, "schema": "", "digest": "", "metadata": {}},
    "attempts": {"number": 0, "submitted_at": 0.0},
    "assets": {"bytes": 0},
    "error": {"message": ""},
}
"""By the name of an object, the values of fields that are missing or null; "" is the line itself."""
_COUNTS = frozenset({"index", "polls", "number", "http_status", "bytes", "width", "height", "take"})
_NOT_EMPTY = frozenset({"run", "job_id", "outcome", "path", "sha256", "content_type"})
_NOT_READ = frozenset({"digest", "source", "is_gone", "key"})
"""Fields of the store that results do not have."""
_ENUMS: Mapping[str, type[StrEnum]] = {"status": State, "kind": AssetKind, "class": FailureClass}


class NewerVersion(ValueError):
    """The line was written by a newer version of the program."""


class ResultLine(Struct, frozen=True):
    """
    A line of a results file.

    Attributes:
        gateway: The base URL that the job was sent to, or None if the line has none.
        line: Its number in the file, from 1; of several files, in all of them one after the other.
        record: The job. Pictures in the request are placeholders (see `inline_media.restore_inline_media`), the
            digest is empty, and times are to the millisecond.
        file: Which of several files it is in, from 0.
    """

    run: str
    gateway: str | None
    line: int
    record: JobRecord
    file: int = 0


def parse_line(value: Json, *, line: int) -> ResultLine:
    """
    Parse a result line.

    Raises:
        NewerVersion: Its schema version is not known yet.
        ValueError: It is not a result line.
    """
    _check_version(value)
    if _is_too_deep(value.get("request")):
        raise ValueError(f"has a request that is nested deeper than {_MAX_DEPTH} levels")
    if _has_key(value.get("request"), FILE_KEY):
        raise ValueError(f"has a request with the key '{FILE_KEY}', which is never written to results")
    fields = _normalize(value, "")
    try:
        found = msgspec.convert({**fields, "line": line, "file": 0, "record": fields}, ResultLine)
        cost = msgspec.convert(fields, _Costs).cost
    except msgspec.ValidationError as error:
        raise ValueError(_describe(error)) from None
    if cost is None:
        return found
    try:
        return replace(found, record=replace(found.record, costs=(_cost(found.record, cost),)))
    except ValueError as error:
        raise ValueError(f"has an invalid 'cost': {error}") from None


class _LineCost(Struct, frozen=True):
    """What all attempts at a job cost, as `cost_json` writes it."""

    reserved: str
    currency: str
    basis: str
    settled: str | None = None


class _Costs(Struct, frozen=True):
    cost: _LineCost | None = None


def _cost(record: JobRecord, line: _LineCost) -> Cost:
    """Return the cost of all attempts at a job as that of its newest one: the line does not say which cost what."""
    reserved = to_nanos(parse_amount(line.reserved))
    settled = reserved if line.settled is None else to_nanos(parse_amount(line.settled))
    newest = max(record.attempts, key=lambda attempt: attempt.number, default=None)
    state = cost_state(record.state, None if record.error is None else record.error.cls)
    return Cost(
        number=1 if newest is None else newest.number,
        at=record.submitted_at or 0.0 if newest is None else newest.submitted_at,
        currency=line.currency,
        reserved=reserved,
        unit=Unit.VIDEO,
        rate=line.reserved,
        state=state,
        settled=None if state in (CostState.RESERVED, CostState.UNCERTAIN) else settled,
        basis=line.basis,
    )


def _check_version(value: Json) -> None:
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - one kind of error for every kind of bad line
    if "schema_version" not in value:
        if "custom_id" in value:
            raise ValueError("is in the OpenAI batch format, which has too little to rerun from")
        raise ValueError("has no 'schema_version'; it is not a result line")
    version = value["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"has an invalid 'schema_version': {_shown(version)}")
    if version > SCHEMA_VERSION:
        raise NewerVersion(f"has schema_version {version}; this program reads up to {SCHEMA_VERSION}")


def _normalize(value: Mapping[str, Any], name: str) -> dict[str, Json]:
    """Return the fields of an object as `JobRecord` has them, with defaults for those that are missing or null."""
    fields = dict(_DEFAULTS[name])
    for key, item in value.items():
        if item is None or key in _NOT_READ:
            continue
        # An invalid job may have no model.
        if item == "" and key in _NOT_EMPTY and (key != "model" or value.get("status") != State.FAILED):
            raise ValueError(f"has an empty {key!r}")
        if key.endswith("_at"):
            fields[key] = _time(item, key)
        elif key in _COUNTS:
            fields[key] = _count(item, key)
        elif key == "code":
            fields[key] = str(item)
        elif key in _DEFAULTS and isinstance(item, dict):
            fields[key] = _normalize(item, key)
        elif key in _DEFAULTS and isinstance(item, list):
            fields[key] = [_normalize(each, key) if isinstance(each, dict) else each for each in item]
        else:
            fields[key] = item
    path = str(fields.get("path", ""))
    if name == "assets" and (path.startswith("/") or ".." in path.split("/") or set(path) & {"\\", ":"}):
        raise ValueError(f"has an asset at {_shown(path)}, outside its run directory")
    return fields


def _count(value: Json, key: str) -> int:
    # A data frame writes the whole numbers of a column with gaps as 7.0.
    if type(value) not in (int, float) or not 0 <= value < 2**63 or value != int(value):
        raise ValueError(f"has an invalid {key!r}: expected a whole number, got {_shown(value)}")
    return int(value)


def _time(value: Json, key: str) -> float:
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"has an invalid {key!r}: expected a time such as 2026-11-21T02:00:01.250Z, got {_shown(value)}"
        ) from None


def _describe(error: msgspec.ValidationError) -> str:
    """
    Convert msgspec's message, which ends with the path of the value.

    >>> _describe(msgspec.ValidationError("Object missing required field `model` - at `$.record`"))
    "has no 'model'"
    >>> _describe(msgspec.ValidationError("Invalid enum value 'fail' - at `$.record.status`"))
    "has an invalid 'status': unknown value 'fail'; did you mean 'failed'?"
    """
    problem, _, path = str(error).replace("`", "").rpartition(" - at $.")
    path = path.removeprefix("record").removeprefix(".")
    if problem.startswith("Object missing"):
        names = [path, problem.rpartition(" ")[2]]
        return f"has no {'.'.join(filter(None, names))!r}"
    if problem.startswith("Invalid enum value"):
        word, known = problem.partition("'")[2][:-1], list(_ENUMS[path.rpartition(".")[2]])
        hint = did_you_mean(word, known) or f"known are {', '.join(known)}"
        problem = f"unknown value {_shown(word)}; {hint}"
    return f"has an invalid {path!r}: {problem[:1].lower()}{problem[1:]}".replace(" | ", " or ")


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _has_key(value: Json, key: str) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, dict) and key in value) or any(_has_key(child, key) for child in children)


def _is_too_deep(value: Json, levels: int = _MAX_DEPTH) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_too_deep(child, levels - 1) for child in children)
