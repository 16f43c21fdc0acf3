"""
What `manifest.schema.json` has for editors: every model's fields inside ``request`` and inside ``defaults``.

An editor sees a manifest before anything is filled in or converted. So a field may also be a placeholder, null,
or what is converted (``5`` for ``'5'``, ``720p`` for ``720P``), and none is required: defaults may have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.schema.catalog import Catalog

REQUESTS = "#/$defs/requests"
"""Where `manifest.schema.json` has it."""

_PLACEHOLDER = {"type": "string", "pattern": r"\$\{"}
_PLAIN = ("description", "examples", "default")
_CHECKED = (
    "type",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "maxLength",
    "minItems",
    "maxItems",
)


def editor_requests(catalog: Catalog) -> dict[str, Any]:
    """Return the schema of a job's ``request`` in a manifest, whose model selects the fields."""
    forms: dict[tuple[str, ...], list[str]] = {}
    for model, names in catalog.models.items():
        forms.setdefault(names, []).append(model)
    documents = {name: catalog.document(name) for name in catalog.names}
    by_model = {model: _forms(names) for model, names in catalog.models.items()}
    return {
        "$comment": "For editors; derived from the schemas of the models by tests/docs/sections.py.",
        "type": "object",
        "properties": {
            "model": {
                "description": "The model, which selects the fields.",
                "anyOf": [{"enum": sorted(catalog.models)}, {"type": "string"}],
            }
        },
        "allOf": [
            {
                "if": {"required": ["model"], "properties": {"model": {"enum": models}}},
                "then": _forms(names),
            }
            for names, models in forms.items()
        ],
        "$defs": {
            **{name: _form(document) for name, document in documents.items()},
            # Users may have schemas of their own, so that other fields and models get no mark in defaults.
            "defaults": {"$ref": REQUESTS, "properties": _fields_of_any(documents)},
            "models": {"properties": by_model},
        },
    }


def _forms(names: Sequence[str]) -> dict[str, Any]:
    return _any_of([{"$ref": f"{REQUESTS}/$defs/{name}"} for name in names])


def _fields_of_any(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of all models; each takes what one of them takes."""
    names = dict.fromkeys(field for document in documents.values() for field in document["properties"])
    return {
        field: _any_of(
            [
                {"$ref": f"{REQUESTS}/$defs/{name}/properties/{field}"}
                for name, document in documents.items()
                if field in document["properties"]
            ]
        )
        for field in names
        if field != "model"
    }


def _form(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model's schema, with what depends on other fields."""
    form: dict[str, Any] = {key: document[key] for key in ("title", "description") if key in document}
    form["properties"] = _fields(document["properties"])
    form["additionalProperties"] = False
    conditions = [
        {"if": part["if"], "then": {"properties": _fields(part["then"]["properties"])}}
        for part in document.get("allOf", ())
        if "if" in part and "properties" in part.get("then", {})
    ]
    return {**form, "allOf": conditions} if conditions else form


def _fields(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _field(schema) for name, schema in properties.items()}


def _field(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    plain = {key: schema[key] for key in _PLAIN if key in schema}
    checked: dict[str, Any] = {key: schema[key] for key in _CHECKED if key in schema}
    if "enum" in schema or "const" in schema:
        return {
            **plain,
            "anyOf": [*_choice(schema.get("enum", [schema.get("const")])), _PLACEHOLDER, {"type": "null"}],
        }
    if "items" in schema:
        checked["items"] = _field(schema["items"])
    if "properties" in schema:
        checked["properties"] = _fields(schema["properties"])
    if not checked:
        return plain
    return {**plain, "anyOf": [checked, _PLACEHOLDER, {"type": "null"}]}


def _choice(values: list[Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a choice: the values themselves, numbers for their digits, and either case of letters."""
    numbers = [int(value) for value in values if isinstance(value, str) and value.lstrip("-").isdecimal()]
    words = [value for value in values if isinstance(value, str) and value.lower() != value.upper()]
    found: list[dict[str, Any]] = [{"enum": [*values, *numbers]}]
    if words:
        cased = (
            "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c.replace(".", "\\.") for c in word)
            for word in words
        )
        found.append({"type": "string", "pattern": f"^({'|'.join(cased)})$"})
    return found


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
