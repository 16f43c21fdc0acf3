"""A document in words, for ``runner models NAME`` and the generated reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from runner.schema.limits import allowed_values, rules_of
from runner.schema.request_schema import RequestSchema
from runner.schema.wording import format_bounds, format_choices, type_names


class Parameter(Struct, frozen=True):
    """
    One key of a request.

    Attributes:
        rule: What it may be, in words, with the differences between models.
        default: What the server uses if the key is absent; None if the document names nothing.
    """

    name: str
    rule: str
    is_required: bool
    default: Any
    description: str


class Description(Struct, frozen=True):
    """
    What a document says about all of its models, or about one.

    Attributes:
        schema: Short name of the schema.
        source: The page of the API's documentation.
        input: The key of the input style.
        sizes: As the API spells them.
        seconds: In words, such as ``2 to 12``.
        example: The required keys and the prompt, from the document's own example.
    """

    schema: str
    title: str
    text: str
    source: str
    models: tuple[str, ...]
    input: str
    sizes: tuple[str, ...]
    seconds: str
    parameters: tuple[Parameter, ...]
    example: dict[str, Any]


def describe(schema: RequestSchema, model: str | None = None) -> Description:
    """Describe a schema, for one of its models or for all."""
    document = schema.document
    models = (model,) if model else schema.models
    properties: dict[str, dict[str, Any]] = document["properties"]
    # A prompt is optional in most documents, but every example should have one.
    shown = (*document["required"], "prompt")
    by_model = document.get("x-examples-by-model", {})
    whole_example = document["x-example"] if model is None else by_model.get(model, document["x-example"])
    example = {key: value for key, value in whole_example.items() if key in shown or model in by_model}
    return Description(
        schema=schema.name,
        title=document["title"],
        text=document["description"],
        source=document["x-source"]["page"],
        models=models,
        input=document["x-input"],
        sizes=_sizes(document, models),
        seconds=_format_by_model(document, "seconds", models),
        parameters=tuple(
            Parameter(
                name=name,
                rule=_rule(document, name, models),
                is_required=name in document["required"],
                default=rules.get("default"),
                description=rules["description"],
            )
            for name, rules in properties.items()
            if any(_has(document, name, one) for one in models)
        ),
        example={**example, "model": model} if model else example,
    )


def _has(document: dict[str, Any], name: str, model: str) -> bool:
    """Return whether a page of the model has the key."""
    return all(rules.get("not") != {} for rules in rules_of(document, name, model))


def _rule(document: dict[str, Any], name: str, models: Sequence[str]) -> str:
    rules = document["properties"][name]
    if "enum" in rules or rules["type"] == "boolean":
        return _format_by_model(document, name, models)
    return _rule_for_all(rules)


def _rule_for_all(rules: dict[str, Any]) -> str:
    if "x-media" in rules:
        return "http or https URL, or a local file" if rules["x-media"]["local"] else "http or https URL"
    if rules["type"] == "integer":
        return f"{type_names('integer')}, {format_bounds(rules)}"
    if rules["type"] == "array":
        return f"{_count(rules)} {_item(rules['items'])}"
    limits = [limit for entry in rules.get("x-warnings", ()) if (limit := entry["when"].get("minLength"))]
    if limits:
        return f"text, at most {limits[0] - 1} characters"
    if words := rules.get("x-recommended-words"):
        return f"text; at most {words['cjk']} Chinese characters or {words['words']} words are recommended"
    return "text"


def _count(rules: dict[str, Any]) -> str:
    low, high = rules.get("minItems", 0), rules.get("maxItems")
    if low == high:
        return f"a list of exactly {low}, each"
    return "a list, each"


def _item(rules: dict[str, Any]) -> str:
    if rules["type"] != "object":
        return _rule_for_all(rules)
    keys = []
    for name, child in rules["properties"].items():
        optional = "" if name in rules["required"] else " (optional)"
        what = format_choices(child["enum"]) if "enum" in child else _rule_for_all(child)
        keys.append(f"{name}{optional}: {what}")
    return f"with {'; '.join(keys)}"


def _sizes(document: dict[str, Any], models: Sequence[str]) -> tuple[str, ...]:
    allowed = {size for model in models for size in allowed_values(document, "size", model)}
    return tuple(size for size in document["properties"]["size"]["enum"] if size in allowed)


def _format_by_model(document: dict[str, Any], name: str, models: Sequence[str]) -> str:
    """List what is allowed; models that differ are named."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for model in models:
        groups.setdefault(allowed_values(document, name, model), []).append(model)
    if len(groups) == 1:
        return _format_allowed(next(iter(groups)))
    return "; ".join(
        f"{_format_allowed(allowed)} for {', '.join(names)}" for allowed, names in groups.items()
    )


def _format_allowed(allowed: tuple[Any, ...]) -> str:
    return type_names("boolean") if allowed == (True, False) else format_choices(allowed)
