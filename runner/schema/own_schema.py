"""Schemas of the user's own: checked before they are used, and completed with what the shipped ones have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.core.problem import Finding
from runner.schema.catalog import BODY_BYTES
from runner.schema.paths import JsonPath, format_path
from runner.schema.request_schema import explain, strict_copy

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TEXT = {"type": "string"}
_WORDS: dict[str, Any] = {
    "type": "object",
    "properties": {"message": _TEXT, "hint": _TEXT, "path": {"type": "array"}},
}
_RANGE = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_MEDIA: dict[str, Any] = {
    "type": "object",
    "required": ["local", "formats"],
    "properties": {
        "local": {"type": "boolean"},
        "asset": {"type": "boolean"},
        "alpha": {"type": "boolean"},
        "formats": {"type": "array", "items": _TEXT},
        "formatsByModel": {"type": "object", "additionalProperties": {"type": "array", "items": _TEXT}},
        "codecs": {"type": "array", "items": _TEXT},
        "maxBytes": {"type": "integer"},
        **dict.fromkeys(("sides", "pixels", "ratio", "seconds", "frameRate"), _RANGE),
        "ratioExclusive": {"type": "boolean"},
        "totalSeconds": {"type": "number"},
        "withSeconds": {"type": "number"},
    },
}
_KEYWORDS: Mapping[str, dict[str, Any]] = {
    "x-models": {"type": "array", "items": _TEXT},
    "x-messages": {"type": "object", "additionalProperties": {"type": "object"}},
    "x-warnings": {
        "type": "array",
        "items": {
            **_WORDS,
            "required": ["when", "message"],
            "properties": {**_WORDS["properties"], "when": {"type": "object"}},
        },
    },
    "x-body-bytes": {
        "type": "object",
        "required": ["warning", "error"],
        "properties": {"warning": {"type": "integer"}, "error": {"type": "integer"}},
        "additionalProperties": False,
    },
    "x-recommended-words": {
        "type": "object",
        "required": ["cjk", "words"],
        "properties": {"cjk": {"type": "integer"}, "words": {"type": "integer"}},
        "additionalProperties": False,
    },
    "x-media": {
        **_MEDIA,
        "properties": {**_MEDIA["properties"], "types": {"type": "object", "additionalProperties": _MEDIA}},
    },
}
"""The keywords of this program that a schema of the user's own may have, and what they must be."""


def schema_findings(document: Any) -> list[Finding]:
    """List why a JSON document can't be used as the schema of a request."""
    # They take longer to import than most commands take.
    import jsonschema_rs
    from jsonschema import Draft202012Validator

    if not isinstance(document, dict):
        return [Finding((), "a schema is a mapping")]
    meta = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    findings = [
        Finding(path, f"{format_path(path) or 'the schema'}: {error.message[:200]}")
        for error in meta.iter_errors(document)
        for path in [tuple(error.absolute_path)]
    ]
    findings += [] if findings else _keyword_findings(document)
    if not findings and not _models(document):
        hint = "write properties.model.enum, or a list of names as x-models"
        findings.append(Finding((), "the schema names no model", hint))
    if not findings:
        try:
            jsonschema_rs.Draft202012Validator(strict_copy(completed(document)))
        except ValueError as error:
            findings.append(Finding((), f"the schema can't be compiled: {str(error)[:200]}"))
    return findings


def completed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a valid schema of the user's own with the keys that every schema of a request has."""
    schema = {key: value for key, value in document.items() if key not in ("x-alternative", "x-models")}
    return {
        "x-body-bytes": BODY_BYTES,
        "properties": {},
        "required": [],
        **schema,
        "x-models": _models(document),
    }


def _models(document: Mapping[str, Any]) -> list[str]:
    """Return the models of a schema: ``x-models``, else what its property ``model`` may be."""
    if document.get("x-models"):
        return list(document["x-models"])
    model = document.get("properties", {}).get("model", {})
    names = model.get("enum", [model["const"]] if "const" in model else []) if isinstance(model, dict) else []
    return [name for name in names if isinstance(name, str)]


def _keyword_findings(schema: Any, path: JsonPath = ()) -> Iterator[Finding]:
    """Find keywords of this program with a wrong value, and references to what is not in the document."""
    children = schema.items() if isinstance(schema, dict) else enumerate(schema)
    for key, child in children:
        here = (*path, key)
        if key in ("const", "enum", "default", "examples", "x-example"):
            continue
        if key in ("$ref", "$dynamicRef") and isinstance(child, str) and not child.startswith("#"):
            yield Finding(
                here, f"{format_path(here)}: only references inside the document (#...) are followed"
            )
        rules = _KEYWORDS.get(key) if isinstance(key, str) and path[-1:] != ("properties",) else None
        if rules is not None:
            for found in explain(rules, child, root=format_path(here)):
                yield Finding((*here, *found.path), f"{format_path(here)}: {found.message}", found.hint)
        if isinstance(child, dict | list):
            yield from _keyword_findings(child, here)
