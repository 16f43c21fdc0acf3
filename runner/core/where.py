"""
Conditions on jobs: ``split=test``, ``model=wan*``, ``seed>3``, over the fields of jobs, their metadata and their requests.

A name without a prefix is a job's own field if it has one of that name, else a key of its metadata, else of its request;
``metadata.NAME`` and ``request.NAME`` name one of them, at any depth. ``id`` is ``job_id``, unless a job has it there.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Set
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct

from runner.core.model import JobRecord, Json

FORMS = (
    "write NAME=VALUE, where VALUE may hold * and ?, or use !=, <, <=, >, >=: split=test, model=wan*, seed>3"
)

_CONDITION = r"(?s)\s*([^\s=!<>]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*"
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Condition(Struct, frozen=True):
    """
    One condition on a job.

    Attributes:
        name: What is compared, such as ``seed`` or ``metadata.split``.
        operator: ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        value: A shell pattern for ``=`` and ``!=``; a number or a text for the others.
    """

    name: str
    operator: str
    value: str

    def matches(self, record: JobRecord) -> bool:
        """Return whether a job meets the condition; a job without the value meets only ``!=``."""
        return self._is_met_by(value_of(record, self.name))

    def matches_values(self, values: Mapping[str, Json]) -> bool:
        """Return whether the values of a row meet the condition; a row without the value meets only ``!=``."""
        return self._is_met_by(_at(values, self.name))

    def _is_met_by(self, value: Json) -> bool:
        if self.operator in ("=", "!="):
            return (self.operator == "=") == _equals(value, self.value)
        if value is None:
            return False
        compare, wanted = _ORDERS[self.operator], _number(self.value)
        mine = _number(value)
        if wanted is not None:
            return mine is not None and compare(mine, wanted)
        return compare(text_of(value), self.value)


def parse_condition(text: str) -> Condition:
    """
    Parse a condition.

    >>> parse_condition("model=wan*")
    Condition(name='model', operator='=', value='wan*')

    Raises:
        ValueError: It has another form.
    """
    found = re.fullmatch(_CONDITION, text)
    if found is None or (found[2] in _ORDERS and not found[3]):
        raise ValueError(f"{text[:60]!r} is not a condition: {FORMS}")
    return Condition(*found.groups())


def value_of(record: JobRecord, name: str) -> Json:
    """Return the value that a name stands for in a job; None if it has none."""
    first, _, rest = name.partition(".")
    if rest and first in ("metadata", "request"):
        return _at(getattr(record, first), rest)
    own = _OWN.get(name)
    if own is not None:
        return own(record)
    for values in (record.metadata, record.request):
        value = _at(values, name)
        if value is not None:
            return value
    return record.job_id if name == "id" else None


def text_of(value: Json) -> str:
    """
    Return a value as people write it.

    >>> text_of(True), text_of(3.0), text_of("a")
    ('true', '3', 'a')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


_OWN: Mapping[str, Callable[[JobRecord], Json]] = {
    "job_id": lambda record: record.job_id,
    "index": lambda record: record.index,
    "model": lambda record: record.model,
    "schema": lambda record: record.schema,
    "status": lambda record: record.state.value,
    "class": lambda record: None if record.error is None else record.error.cls.value,
    "task_id": lambda record: record.task_id,
    "generate_s": lambda record: record.generate_s,
    "download_s": lambda record: record.download_s,
}


class UnknownNameFinder:
    """
    Finds a name in conditions for which no job has a value: it is probably mistyped.

    ``!=`` asks for no value, and names that begin with ``metadata.`` or ``request.`` are taken as they are.
    """

    def __init__(self, conditions: Iterable[Condition]) -> None:
        names = (condition.name for condition in conditions if condition.operator != "!=")
        self._unmet = {
            name
            for name in names
            if name not in _OWN and name.partition(".")[0] not in ("metadata", "request")
        }
        self._known: set[str] = set(_OWN)

    def add(self, record: JobRecord) -> None:
        """Take a job into account."""
        if self._unmet:
            self._unmet -= {name for name in self._unmet if value_of(record, name) is not None}
            self._known.update(record.metadata, record.request)

    @property
    def unknown(self) -> tuple[str, Set[str]] | None:
        """A name that no job has, with the names that jobs have; None if there is a value for each name."""
        return (min(self._unmet), self._known) if self._unmet else None


def _at(values: Mapping[str, Json], path: str) -> Json:
    """Return the value at a key, or at a path of keys."""
    if path in values:
        return values[path]
    first, _, rest = path.partition(".")
    inner = values.get(first)
    return _at(inner, rest) if rest and isinstance(inner, dict) else None


def _equals(value: Json, pattern: str) -> bool:
    if value is None:
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        wanted = _number(pattern)
        if wanted is not None:
            return value == wanted
    return fnmatchcase(text_of(value), pattern)


def _number(value: Json) -> float | int | None:
    """Return a number, or the number that a text is; not of a boolean, which is a word."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    for convert in (int, float):
        try:
            return convert(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return None
