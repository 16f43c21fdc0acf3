"""The models that can be used, their parameters and schemas, and a starter manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from runner.core.problem import Finding
from runner.errors import UsageError
from runner.results.failed_manifest import yaml_flow
from runner.schema.catalog import load_catalog, schema_findings
from runner.schema.derive import PageError, from_page, read_page
from runner.schema.limits import allowed_values, rules_of
from runner.schema.request_schema import RequestSchema
from runner.schema.wording import did_you_mean, format_bounds, format_choices, type_names

FORMATS = ("manifest", "prices", "result", "scenario")
"""The schemas of the program's own files."""


def models() -> tuple[Description, ...]:
    """
    Describe every schema, with the models that it is for.

    >>> [described.schema for described in models() if "wan2.7-r2v" in described.models]
    ['wan2.7-r2v', 'wan2.7-r2v-subject']
    """
    catalog = load_catalog()
    return tuple(describe(catalog.schema(name)) for name in catalog.names)


def model(name: str) -> tuple[Description, ...]:
    """
    Describe one model by every schema that it may be used with, the usual one first.

    >>> [described.input for described in model("wan2.7-i2v")]
    ['media', 'image']

    Raises:
        UsageError: No schema knows it; the hint has the nearest name.
    """
    catalog = load_catalog()
    chosen = catalog.select({"model": name})
    if isinstance(chosen, Finding):
        raise UsageError(f"unknown model {name!r}", hint=_nearest(name, tuple(catalog.models)))
    return tuple(describe(catalog.schema(schema), name) for schema in catalog.models[name])


def schema(name: str = "manifest") -> dict[str, Any]:
    """
    Return a JSON Schema: of the ``manifest``, of a ``prices`` table, of a line of the ``result``, of a ``scenario``, of a model, or by its own name.

    >>> schema("result")["title"]
    'A line of results.jsonl'

    Raises:
        UsageError: There is no such schema; the hint has the nearest name.
    """
    catalog = load_catalog()
    known = (*FORMATS, *catalog.models, *catalog.names)
    if name not in known:
        raise UsageError(f"unknown schema {name!r}", hint=_nearest(name, known))
    return catalog.document(catalog.models[name][0] if name in catalog.models else name)


def import_schema(path: Path, model: str | None = None) -> dict[str, Any]:
    """
    Derive a schema from an OpenAPI page of ``POST /v1/videos``, for a manifest's ``schemas``.

    Args:
        model: The only model that the schema is for; None for those that the page lists.

    Raises:
        UsageError: The file can't be read, or is not such a page.
    """
    try:
        document = json.loads(path.read_bytes())
        derived = from_page(read_page(document, path.name), model)
        findings = schema_findings(derived)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except PageError as error:
        raise UsageError(f"{path}: {error}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise UsageError(f"{path} is not an OpenAPI page of POST /v1/videos that can be read") from error
    if findings:
        raise UsageError(f"{path} makes no valid schema: {findings[0].message}")
    return derived


def example_job(described: Description) -> str:
    """
    Write a schema's example as a job to paste into a manifest, under `jobs`.

    >>> print(example_job(model("wan2.7-r2v")[0]))
      - id: example
        request:
          model: wan2.7-r2v
          prompt: "Image 1 walks toward the camera and waves."
          media: [{type: reference_image, url: "https://example.com/assets/subject.png"}]
    """
    return "\n".join(_example_lines(described))


def _example_lines(described: Description) -> Iterator[str]:
    yield "  - id: example"
    # If the model alone would select another schema, the job has to name this one.
    if load_catalog().select(described.example) is not load_catalog().schema(described.schema):
        yield f"    schema: {yaml_flow(described.schema)}"
    yield "    request:"
    for key, value in described.example.items():
        yield f"      {key}: {yaml_flow(value)}"


def _nearest(name: str, known: tuple[str, ...]) -> str:
    return did_you_mean(name, known) or f"there are {', '.join(known)}"


SCHEMA_COPY = "manifest.schema.json"
"""The copy of the manifest's schema that editors find beside a manifest."""


def starter_text() -> str:
    """
    Return a commented manifest that can be run with `--simulate`.

    Its first line tells editors that the manifest's schema is beside it, so that it does on any machine.

    >>> starter_text().splitlines()[0]
    '# yaml-language-server: $schema=manifest.schema.json'
    """
    text = Path(__file__).with_name("starter.yaml").read_text(encoding="utf-8")
    return text.replace("SCHEMA_PATH", SCHEMA_COPY, 1)


def write_starter(path: Path) -> Path:
    """
    Write the starter manifest to a new file, or into a folder as ``manifest.yaml``; return its path.

    A copy of the schema is written beside it for editors, unless the folder has another file of its name.

    Raises:
        UsageError: The file exists, and is left as it is; or it can't be written.
    """
    path = path / "manifest.yaml" if path.is_dir() else path
    if path.exists():
        raise UsageError(
            f"{path} exists, and was left as it is", hint="name another file: runner init NEW.yaml"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(starter_text())
        _copy_schema(path.with_name(SCHEMA_COPY))
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror or error}", hint="name another path: runner init PATH"
        ) from None
    return path


def _copy_schema(path: Path) -> None:
    document = schema("manifest")
    try:
        is_mine = json.loads(path.read_bytes()).get("$id") == document["$id"]
    except FileNotFoundError:
        is_mine = True
    except (OSError, ValueError, AttributeError):
        is_mine = False
    if is_mine:
        path.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


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
