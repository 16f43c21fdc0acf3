"""
A schema from OpenAPI pages: what they say in a form that a program can read.

Each page of the vendor describes one use of a model. Its fields, types, values, bounds, required fields
and linkages (``x-linkage``: one field limits the choices of another) become one JSON Schema for all
pages of a family; what only the prose of a page says is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from runner.schema.catalog import DIALECT

ROUTE = "/v1/videos"
_MAX_DEPTH = 20

_KEYWORDS = (
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "default",
    "description",
)
_LOWER, _UPPER = ("minimum", "minLength", "minItems"), ("maximum", "maxLength", "maxItems")
_NARROWING = ("enum", *_LOWER, *_UPPER)

Schema = dict[str, Any]


class PageError(ValueError):
    """A document is not an OpenAPI page of the expected form; the text says why."""


class Page(Struct, frozen=True):
    """
    What is read from one page.

    Attributes:
        page: Its path in the vendor's documentation.
        request: The schema of the request's body, without references to other parts.
        examples: Requests.
        submitted, polled: Examples of answers.
    """

    page: str
    request: Schema
    examples: tuple[Schema, ...] = ()
    submitted: tuple[Schema, ...] = ()
    polled: tuple[Schema, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the page is about; empty if it lists none."""
        model = self.request["properties"].get("model", {})
        return tuple(model.get("enum", ()))


def read_page(document: Any, page: str, *, with_text: bool = True) -> Page:
    """
    Read an OpenAPI document with a ``POST /v1/videos``.

    Args:
        page: Its path in the vendor's documentation.
        with_text: Whether to keep descriptions.

    Raises:
        PageError: It has no such request, or one that can't be read.
    """
    paths = _mapping(_mapping(document, "document").get("paths"), "paths")
    operation = _mapping(_mapping(paths.get(ROUTE), f"paths.{ROUTE}").get("post"), f"POST {ROUTE}")
    content = _json_content(operation.get("requestBody"))
    if "schema" not in content:
        raise PageError(f"the request of POST {ROUTE} has no schema for application/json")
    request = _resolved(content["schema"], document, with_text=with_text)
    if not request.get("properties"):
        raise PageError(f"the request of POST {ROUTE} has no properties")
    poll = next((path for path in paths if str(path).startswith(f"{ROUTE}/{{")), None)
    query = _mapping(paths[poll], "paths").get("get", {}) if poll else {}
    return Page(
        page=page,
        request=request,
        examples=_examples(content),
        submitted=_answer_examples(operation),
        polled=_answer_examples(query),
    )


def derive(pages: Sequence[Page]) -> Schema:
    """
    Merge the pages of a family: what one of them allows is allowed, and what all of them require is required.

    Returns:
        A schema; its ``rules``, which belong under ``allOf``, have a name each: the models that allow less
        than others, or the field and the value that limit another field.
    """
    base = _union([page.request for page in pages])
    models: list[str] = list(dict.fromkeys(model for page in pages for model in page.models))
    rules: dict[str, Schema] = {}
    by_content: dict[str, tuple[list[str], Schema]] = {}
    for model in models:
        own = _union([page.request for page in pages if model in page.models])
        if narrower := _difference(base, own):
            by_content.setdefault(json.dumps(narrower), ([], narrower))[0].append(model)
    for names, narrower in by_content.values():
        rules[", ".join(names)] = {"if": _model_is(names), "then": narrower}
    return {"x-models": models, **base, "rules": {**rules, **dict(_linkages(pages, models))}}


def from_page(page: Page, model: str | None = None) -> dict[str, Any]:
    """
    Derive a schema from one OpenAPI page.

    Args:
        model: The only model that the schema is for; None for those that the page lists.

    Raises:
        PageError: The page lists no model, or not this one.
    """
    if not page.models and model is None:
        raise PageError("the page lists no model; name it with --model")
    if page.models and model is not None and model not in page.models:
        raise PageError(f"the page is not about {model}; it lists {', '.join(page.models)}")
    derived = listed(derive([page]))
    models = [model] if model else list(page.models)
    properties = {
        name: {"description": f"{name}, as the page has it.", **child}
        for name, child in derived["properties"].items()
    }
    properties["model"] = {"description": "Name of the model.", "type": "string", "enum": models}
    head = {
        "$schema": DIALECT,
        "title": f"{', '.join(models)}: derived from an OpenAPI page",
        "description": "What the page says in a form that a program can read. Rules of its prose are not in it.",
        "x-source": {"document": None, "page": page.page},
        "x-models": models,
        "x-example": next((e for e in page.examples if e.get("model") in models), {"model": models[0]}),
        "type": "object",
        "additionalProperties": False,
    }
    own = {key: value for key, value in derived.items() if key not in ("x-models", "properties")}
    required = list(dict.fromkeys(["model", *derived.get("required", ())]))
    return {**head, **own, "required": required, "properties": properties}


def listed(schema: Schema) -> Schema:
    """
    Return a derived schema with its rules in a list, under ``allOf``.

    >>> listed({"type": "object", "rules": {"a": {"if": {}, "then": {}}}})
    {'type': 'object', 'allOf': [{'$comment': 'a', 'if': {}, 'then': {}}]}
    """
    document = {key: value for key, value in schema.items() if key != "rules"}
    rules = [{"$comment": name, **rule} for name, rule in schema.get("rules", {}).items()]
    return {**document, "allOf": rules} if rules else document


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PageError(f"not an OpenAPI page of {ROUTE}: {name} is not a mapping")
    return value


def _json_content(body: Any) -> dict[str, Any]:
    content = body.get("content") if isinstance(body, dict) else None
    json_part = content.get("application/json") if isinstance(content, dict) else None
    return json_part if isinstance(json_part, dict) else {}


def _examples(content: Mapping[str, Any]) -> tuple[Schema, ...]:
    named = content.get("examples")
    values = [entry.get("value") for entry in named.values()] if isinstance(named, dict) else []
    return tuple(value for value in [*values, content.get("example")] if isinstance(value, dict))


def _answer_examples(operation: Mapping[str, Any]) -> tuple[Schema, ...]:
    return _examples(_json_content(operation.get("responses", {}).get("200")))


def _resolved(schema: Any, document: Any, *, with_text: bool, depth: int = 0) -> Schema:
    """Copy a schema with what it refers to in place of each reference, and with known keywords only."""
    if depth > _MAX_DEPTH:
        raise PageError("the schema refers to itself, or is too deep")
    schema = _mapping(schema, "a schema")
    if "$ref" in schema:
        return _resolved(_target(schema["$ref"], document), document, with_text=with_text, depth=depth + 1)
    keywords = [key for key in _KEYWORDS if with_text or key != "description"]
    copy: Schema = {key: schema[key] for key in keywords if key in schema}
    if schema.get("nullable") and isinstance(copy.get("type"), str):
        copy["type"] = [copy["type"], "null"]

    def inner(child: Any) -> Schema:
        return _resolved(child, document, with_text=with_text, depth=depth + 1)

    for part in schema.get("allOf", ()):
        copy = {**copy, **inner(part)}
    if "required" in schema:
        copy["required"] = list(schema["required"])
    if "properties" in schema:
        properties = _mapping(schema["properties"], "properties")
        copy["properties"] = {name: inner(child) for name, child in properties.items()}
    if "items" in schema:
        copy["items"] = inner(schema["items"])
    if "x-linkage" in schema:
        copy["x-linkage"] = schema["x-linkage"]
    return copy


def _target(reference: Any, document: Any) -> Any:
    target = document
    for step in str(reference).removeprefix("#/").split("/"):
        target = target.get(step) if isinstance(target, dict) else None
    if target is None:
        raise PageError(f"the reference {str(reference)[:80]!r} leads nowhere")
    return target


def _union(schemas: Sequence[Schema]) -> Schema:
    """Allow what one of several schemas allows."""
    if not schemas:
        return {}
    merged: Schema = {}
    if len(types := _values(schemas, "type")) == 1:
        merged["type"] = types[0]
    if texts := [schema["description"] for schema in schemas if "description" in schema]:
        merged["description"] = texts[0]
    if all("enum" in schema for schema in schemas):
        merged["enum"] = _in_order(value for schema in schemas for value in schema["enum"])
    for keywords, outermost in ((_LOWER, min), (_UPPER, max)):
        for key in keywords:
            if all(key in schema for schema in schemas):
                merged[key] = outermost(schema[key] for schema in schemas)
    if len(defaults := _values(schemas, "default")) == 1:
        merged["default"] = defaults[0]
    required = [schema.get("required", []) for schema in schemas]
    if shared := [name for name in required[0] if all(name in names for names in required)]:
        merged["required"] = shared
    names = dict.fromkeys(name for schema in schemas for name in schema.get("properties", {}))
    if names:
        merged["properties"] = {
            name: _union([s["properties"][name] for s in schemas if name in s.get("properties", {})])
            for name in names
        }
    if all("items" in schema for schema in schemas):
        merged["items"] = _union([schema["items"] for schema in schemas])
    return merged


def _values(schemas: Iterable[Schema], keyword: str) -> list[Any]:
    values: list[Any] = []
    for schema in schemas:
        if keyword in schema and schema[keyword] not in values:
            values.append(schema[keyword])
    return values


def _in_order(values: Iterable[Any]) -> list[Any]:
    """Remove repetitions; texts of digits are sorted as numbers, the rest keep their order."""
    unique = list(dict.fromkeys(values))
    if all(isinstance(value, str) and value.removeprefix("-").isdecimal() for value in unique):
        return sorted(unique, key=int)
    return unique


def _difference(base: Schema, own: Schema) -> Schema:
    """Return the rules of a schema that are narrower than those of the union that it is part of."""
    rules: Schema = {}
    for key in _NARROWING:
        if key in own and own[key] != base.get(key):
            rules[key] = own[key]
    if extra := [name for name in own.get("required", ()) if name not in base.get("required", ())]:
        rules["required"] = extra
    properties = {
        name: _difference(child, own["properties"][name]) if name in own["properties"] else _unknown()
        for name, child in base.get("properties", {}).items()
        if name != "model" and "properties" in own
    }
    if changed := {name: child for name, child in properties.items() if child}:
        rules["properties"] = changed
    if "items" in base and "items" in own and (items := _difference(base["items"], own["items"])):
        rules["items"] = items
    return rules


def _unknown() -> Schema:
    return {
        "not": {},
        "x-messages": {"not": {"message": "no page of {model} has it", "hint": "leave it out"}},
    }


def _model_is(names: Sequence[str]) -> Schema:
    condition = {"const": names[0]} if len(names) == 1 else {"enum": list(names)}
    return {"required": ["model"], "properties": {"model": condition}}


def _linkages(pages: Sequence[Page], models: Sequence[str]) -> Iterable[tuple[str, Schema]]:
    """List the rules of ``x-linkage``: a field with a value allows fewer values of another."""
    found: dict[str, tuple[str, Any, str, list[Any], list[str]]] = {}
    for page in pages:
        for name, child in page.request["properties"].items():
            for rule in child.get("x-linkage", {}).get("rules", ()):
                when = rule.get("when", {})
                if when.get("operator") != "eq" or "set_options" not in rule:
                    raise PageError(f"the linkage of {name} has an unknown form")
                title = f"{when['field']} {json.dumps(when['value'])} limits {name}"
                entry = found.setdefault(title, (when["field"], when["value"], name, rule["set_options"], []))
                entry[-1].extend(model for model in page.models if model not in entry[-1])
    for title, (field, value, limited, options, names) in found.items():
        condition: Schema = {"required": [field], "properties": {field: {"const": value}}}
        if set(names) != set(models):
            own = _model_is(names)
            condition = {
                "required": [*own["required"], field],
                "properties": {**own["properties"], field: {"const": value}},
            }
        yield (
            title,
            {"if": {"type": "object", **condition}, "then": {"properties": {limited: {"enum": options}}}},
        )
