"""
The keywords of ours that the slow validator acts on.

``x-warnings``              what the document advises against: ``{"when": schema, "message", "hint", "path"}``
``x-recommended-words``     ``{"cjk": n, "words": n}`` of one text
``x-body-bytes``            ``{"warning": n, "error": n}`` of the whole request

The others are only read, never checked: ``x-messages`` (how an error is put),
``x-media``, ``x-models``, ``x-alternative``, ``x-input``, ``x-source``, ``x-example``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from runner.schema.body import BodyLimit, body_bytes
from runner.schema.words import WordLimit

Errors = Iterator[ValidationError]


def _warnings(validator: Any, entries: list[dict[str, Any]], instance: Any, _schema: Any) -> Errors:
    for entry in entries:
        if validator.evolve(schema=entry["when"]).is_valid(instance):
            yield ValidationError("", validator="x-warnings", validator_value=entry)


def _recommended_words(_validator: Any, limit: dict[str, int], instance: Any, _schema: Any) -> Errors:
    if isinstance(instance, str) and (excess := WordLimit(**limit).excess(instance)):
        yield ValidationError(excess)


def _body_bytes(_validator: Any, limit: dict[str, int], instance: Any, _schema: Any) -> Errors:
    if finding := BodyLimit(**limit).finding(body_bytes(instance)):
        yield ValidationError("", validator_value=finding)


# Its stubs leave `extend` without types.
ExplainingValidator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"x-warnings": _warnings, "x-recommended-words": _recommended_words, "x-body-bytes": _body_bytes},
)
"""JSON Schema 2020-12 and our keywords."""
