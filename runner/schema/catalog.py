"""
The schema files, which of them a request is checked with, and schemas of the user's own.

Those are checked before they are used, and completed with what the shipped ones have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from runner.core.problem import Finding, JsonPath, format_path
from runner.schema.request_schema import RequestSchema, ValueSchema, explain, strict_copy
from runner.schema.wording import did_you_mean, format_value, join_or, nearest_models, type_mismatch

BODY_BYTES = {"warning": 10_000_000, "error": 64_000_000}

ANY = RequestSchema(
    "any",
    {
        "title": "Any model: nothing is checked",
        "x-models": [],
        "x-body-bytes": BODY_BYTES,
        "type": "object",
        "required": ["model"],
        "properties": {"model": {"type": "string", "minLength": 1}},
        "x-warnings": [
            {
                "when": {"type": "object", "required": ["model"]},
                "message": "schema: any sends the request as it is, unchecked",
                "hint": "a mistake in it may cost money",
            }
        ],
    },
)
"""The schema of a job that names ``any``."""

_SUFFIX = ".schema.json"
_WAYS_OUT = (
    "for a new model: derive a schema from its OpenAPI page with 'runner schema import FILE', add one of your own "
    "with 'schemas: [FILE]' in the manifest, or send it unchecked with 'schema: any' beside the request"
)


class _Head(Struct):
    """What is read of every schema; the rest only of those that are used."""

    models: list[str] | UnsetType = field(default=UNSET, name="x-models")
    alternative: dict[str, Any] = field(default_factory=dict, name="x-alternative")


_HEADS = msgspec.json.Decoder(_Head)


class Catalog:
    """
    The schemas of one folder, and perhaps of the user's own.

    Args:
        own: Schemas of the user's own by name; for the models that they name, they replace those of the folder.

    Attributes:
        folder: The folder of the files.
        names: Short names of the models' schemas, sorted.
        models: Names of the schemas of each model; the first applies unless the request has another input style.
    """

    def __init__(self, folder: Path, own: Mapping[str, dict[str, Any]] | None = None) -> None:
        self.folder = folder
        self._own = own or {}
        self._files = {short_name(path): path for path in sorted(folder.glob(f"*{_SUFFIX}"), key=short_name)}
        heads = {name: _HEADS.decode(path.read_bytes()) for name, path in self._files.items()}
        heads |= {name: _Head(document["x-models"]) for name, document in self._own.items()}
        self._heads = {name: head for name, head in heads.items() if head.models is not UNSET}
        self._schemas: dict[str, RequestSchema] = {}
        self.names = tuple(self._heads)
        self.models = self._models()
        self._forms: dict[str, list[tuple[str, str | None, str]]] = {}
        for name, head in self._heads.items():
            if family := head.alternative.get("of"):
                self._forms.setdefault(family, []).append(self._alternative(name))
        self._choices = {
            model: (first, tuple(map(self._alternative, others)))
            for model, (first, *others) in self.models.items()
        }

    def with_schemas(self, own: Mapping[str, dict[str, Any]]) -> Catalog:
        """Return a catalog that has these schemas of the user's own too."""
        return Catalog(self.folder, {**self._own, **own})

    def schema(self, name: str) -> RequestSchema:
        """
        Return the schema of this short name, read when it is first used.

        Raises:
            KeyError: There is none; `select` reports it in words.
        """
        schema = self._schemas.get(name)
        if schema is None:
            if name not in self._heads:
                raise KeyError(name)
            schema = self._schemas[name] = RequestSchema(name, self.document(name))
        return schema

    def document(self, name: str) -> dict[str, Any]:
        """
        Read any schema file by its short name, ``manifest`` and ``result`` too.

        Raises:
            KeyError: There is none of this name.
        """
        if name in self._own:
            return self._own[name]
        document: dict[str, Any] = msgspec.json.decode(self._files[name].read_bytes())
        return document

    @cached_property
    def job_schema(self) -> ValueSchema:
        """The schema of an element of a manifest's jobs, whose request is checked when it is complete."""
        schema = self._manifest_schema
        return ValueSchema({**schema["$defs"]["job"], "$defs": schema["$defs"]}, "the job")

    def header_schema(self, keys: Collection[str]) -> ValueSchema:
        """Return the schema of a manifest with these keys, whose jobs are checked one at a time."""
        schema = self._manifest_schema
        # Compiling the rules of keys that are not there takes longer than all checks of a small manifest.
        properties = {key: rules if key in keys else True for key, rules in schema["properties"].items()}
        return ValueSchema({**schema, "properties": properties, "required": ["version"]}, "the manifest")

    @cached_property
    def _manifest_schema(self) -> dict[str, Any]:
        """The schema of manifests without what is for editors only."""
        document = self.document("manifest")
        defs = {name: value for name, value in document["$defs"].items() if name != "requests"}
        defs["job"] = _without_references(defs["job"], ("request",))
        defaults = _without_references(document["properties"]["defaults"], ("request", "models"))
        return {**document, "properties": {**document["properties"], "defaults": defaults}, "$defs": defs}

    def select(self, request: Mapping[str, Any], schema_name: str | None = None) -> RequestSchema | Finding:
        """
        Choose the schema of a request, or return why there is none.

        A schema that the job names wins, with the other input forms of its family. Otherwise the
        model decides, and if one model has several input styles, the keys of the request (fact F103).
        """
        if schema_name is not None:
            return self._named(schema_name, request)
        model = request.get("model")
        choice = self._choices.get(model) if isinstance(model, str) else None
        if choice is None:
            return self._unknown_model(request)
        name, others = choice
        for key, other_key, alternative in others:
            if key in request and other_key not in request:
                name = alternative
                break
        return self.schema(name)

    def _models(self) -> dict[str, tuple[str, ...]]:
        models: dict[str, list[str]] = {}
        for name, head in self._heads.items():
            for model in head.models or ():
                models.setdefault(model, []).append(name)
        models |= {model: [name] for name in self._own for model in self._heads[name].models or ()}
        for name, head in self._heads.items():
            for model in head.alternative.get("models", ()):
                if models[model][0] not in self._own:
                    models[model].append(name)
        return {model: tuple(names) for model, names in models.items()}

    def _named(self, name: str, request: Mapping[str, Any]) -> RequestSchema | Finding:
        if name == "any":
            return ANY
        if name not in self._heads:
            return self._unknown_schema(name)
        named = self.schema(name)
        model = request.get("model")
        pattern = named.document.get("x-model-pattern")
        if pattern is None or not isinstance(model, str) or re.search(pattern, model):
            return self._form(named, request)
        own = self.models.get(model)
        message = f"model: {format_value(model)} is not a model of the schema {format_value(name)}"
        hint = f"its own schema is {own[0]}: leave out 'schema'" if own else _WAYS_OUT
        return Finding(("model",), message, hint)

    def _form(self, named: RequestSchema, request: Mapping[str, Any]) -> RequestSchema:
        """Return the schema of a family's other input form if the keys of the request are of that form."""
        for key, other_key, form in self._forms.get(named.name, ()):
            if key in request and other_key not in request:
                return self.schema(form)
        return named

    def _alternative(self, name: str) -> tuple[str, str | None, str]:
        """Return the key of another input style, the key that excludes it (or None), and the name of its schema."""
        style = self._heads[name].alternative
        return style["with"], style.get("without"), name

    def _unknown_schema(self, name: str) -> Finding:
        names = (*self.names, "any")
        hint = did_you_mean(name, names) or f"the schemas are {', '.join(names)}"
        return Finding((), f"unknown schema {format_value(name)}", hint)

    def _unknown_model(self, request: Mapping[str, Any]) -> Finding:
        if "model" not in request:
            return Finding((), "missing key 'model' in request", f"the models are {', '.join(self.models)}")
        model = request["model"]
        if not isinstance(model, str):
            return Finding(("model",), f"model: {type_mismatch(model, 'string')}")
        nearest = nearest_models(model, self.models)
        guess = f"did you mean {join_or([repr(name) for name in nearest])}? " if nearest else ""
        return Finding(("model",), f"model: no schema knows {format_value(model)}", f"{guess}{_WAYS_OUT}")


def _without_references(schema: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    properties = dict(schema["properties"])
    for name in names:
        properties[name] = {key: value for key, value in properties[name].items() if key != "$ref"}
    return {**schema, "properties": properties}


def short_name(path: Path) -> str:
    """
    Return the name of a schema by its file.

    >>> short_name(Path("schemas/wan-kf2v.schema.json")), short_name(Path("veo.json"))
    ('wan-kf2v', 'veo')
    """
    return path.name.removesuffix(".json").removesuffix(".schema")


@cache
def load_catalog() -> Catalog:
    """
    Read the schemas that come with the program, once.

    They are inside the installed package; in a checkout they are beside it.
    """
    package = Path(__file__).parent.parent
    installed = package / "_schemas"
    return Catalog(installed if installed.is_dir() else package.parent / "schemas")


def catalog_with(files: Iterable[str]) -> Catalog:
    """
    Return the catalog with the schemas in some files, too; a file that is gone, or is no schema, is left out.

    They were checked with the manifest that names them: their models are unknown to what happens without them.
    """
    own = {}
    for path in map(Path, files):
        with suppress(OSError, ValueError, AttributeError):
            own[short_name(path)] = completed(msgspec.json.decode(path.read_bytes()))
    return load_catalog().with_schemas(own) if own else load_catalog()


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
