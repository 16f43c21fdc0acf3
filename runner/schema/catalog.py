"""The schema files, and which of them a request is checked with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from runner.core.problem import Finding
from runner.schema.request_schema import RequestSchema
from runner.schema.wording import did_you_mean, format_value, type_mismatch

_SUFFIX = ".schema.json"


class Catalog:
    """
    The schemas of one folder.

    Attributes:
        folder: The folder of the files.
        names: Short names of the models' schemas, sorted.
        models: Names of the schemas of each model; the first applies unless the request has another input style.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = {path.name.removesuffix(_SUFFIX): path for path in folder.glob(f"*{_SUFFIX}")}
        self._documents = {name: json.loads(files[name].read_bytes()) for name in sorted(files)}
        self._schemas = {
            name: RequestSchema(name, document)
            for name, document in self._documents.items()
            if "x-models" in document
        }
        self.names = tuple(self._schemas)
        self.models = self._models()
        self._forms: dict[str, list[tuple[str, str | None, RequestSchema]]] = {}
        for name, schema in self._schemas.items():
            if family := schema.document.get("x-alternative", {}).get("of"):
                self._forms.setdefault(family, []).append(self._alternative(name))
        self._choices = {
            model: (self._schemas[first], tuple(map(self._alternative, others)))
            for model, (first, *others) in self.models.items()
        }

    def schema(self, name: str) -> RequestSchema:
        """
        Return the schema of this short name.

        Raises:
            KeyError: There is none; `select` reports it in words.
        """
        return self._schemas[name]

    def document(self, name: str) -> dict[str, Any]:
        """
        Return any schema file by its short name, ``manifest`` and ``result`` too; not to be changed.

        Raises:
            KeyError: There is none of this name.
        """
        document: dict[str, Any] = self._documents[name]
        return document

    def select(self, request: Mapping[str, Any], schema_name: str | None = None) -> RequestSchema | Finding:
        """
        Choose the schema of a request, or return why there is none.

        A schema that the job names wins, with the other input forms of its family. Otherwise the
        model decides, and if one model has several input styles, the keys of the request (fact F103).
        """
        if schema_name is not None:
            named = self._schemas.get(schema_name)
            return self._form(named, request) if named else self._unknown_schema(schema_name)
        model = request.get("model")
        choice = self._choices.get(model) if isinstance(model, str) else None
        if choice is None:
            return self._unknown_model(request)
        schema, others = choice
        for key, other_key, alternative in others:
            if key in request and other_key not in request:
                return alternative
        return schema

    def _models(self) -> dict[str, tuple[str, ...]]:
        models: dict[str, list[str]] = {}
        for name, schema in self._schemas.items():
            for model in schema.document["x-models"]:
                models.setdefault(model, []).append(name)
        for name, schema in self._schemas.items():
            for model in schema.document.get("x-alternative", {}).get("models", ()):
                models[model].append(name)
        return {model: tuple(names) for model, names in models.items()}

    def _form(self, named: RequestSchema, request: Mapping[str, Any]) -> RequestSchema:
        """Return the schema of a family's other input form if the keys of the request are of that form."""
        for key, other_key, form in self._forms.get(named.name, ()):
            if key in request and other_key not in request:
                return form
        return named

    def _alternative(self, name: str) -> tuple[str, str | None, RequestSchema]:
        """Return the key of another input style, the key that excludes it (or None), and its schema."""
        style = self._documents[name]["x-alternative"]
        return style["with"], style.get("without"), self._schemas[name]

    def _unknown_schema(self, name: str) -> Finding:
        hint = did_you_mean(name, self.names) or f"the schemas are {', '.join(self.names)}"
        return Finding((), f"unknown schema {format_value(name)}", hint)

    def _unknown_model(self, request: Mapping[str, Any]) -> Finding:
        if "model" not in request:
            return Finding((), "missing key 'model' in request", f"the models are {', '.join(self.models)}")
        model = request["model"]
        if not isinstance(model, str):
            return Finding(("model",), f"model: {type_mismatch(model, 'string')}")
        hint = "a job may use another model with 'schema', the name of the schema to check it with"
        guess = did_you_mean(model, self.models)
        return Finding(
            ("model",), f"model: no schema knows {format_value(model)}", f"{guess} {hint}" if guess else hint
        )


@cache
def load_catalog() -> Catalog:
    """
    Read the schemas that come with the program, once.

    They are inside the installed package; in a checkout they are beside it.
    """
    package = Path(__file__).parent.parent
    installed = package / "_schemas"
    return Catalog(installed if installed.is_dir() else package.parent / "schemas")
