"""Which schemas there are, and which one a request is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from runner.core.problem import Finding
from runner.schema.request_schema import RequestSchema

_SUFFIX = ".schema.json"


class Catalog:
    """
    The schemas of one folder.

    Attributes:
        folder: Where the files are.
        names: Short names of the models' schemas, sorted.
        models: The schemas of each model: the one to take unless the request's input style says otherwise, first.
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
        self._choices = {
            model: (self._schemas[first], tuple(map(self._alternative, others)))
            for model, (first, *others) in self.models.items()
        }

    def schema(self, name: str) -> RequestSchema:
        """
        Give the schema of this short name.

        Raises:
            KeyError: There is none; `select` says so in words.
        """
        return self._schemas[name]

    def document(self, name: str) -> dict[str, Any]:
        """
        Give any schema file by its short name, ``manifest`` and ``result`` too; not to be altered.

        Raises:
            KeyError: There is none of this name.
        """
        document: dict[str, Any] = self._documents[name]
        return document

    def select(self, request: Mapping[str, Any], named: str | None = None) -> RequestSchema | Finding:
        """
        Choose the schema of a request, or say why there is none.

        A schema that the job names wins. Else the model decides, and where one model has
        several input styles, what the request holds (fact F103).
        """
        if named is not None:
            return self._schemas.get(named) or self._unknown_schema(named)
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

    def _alternative(self, name: str) -> tuple[str, str | None, RequestSchema]:
        """Give the key by which a request has another input style, the key by which it has not, and its schema."""
        style = self._documents[name]["x-alternative"]
        return style["with"], style.get("without"), self._schemas[name]

    def _unknown_schema(self, named: str) -> Finding:
        from runner.schema.wording import did_you_mean, show

        hint = did_you_mean(named, self.names) or f"there are {', '.join(self.names)}"
        return Finding((), f"unknown schema {show(named)}", hint)

    def _unknown_model(self, request: Mapping[str, Any]) -> Finding:
        from runner.schema.wording import did_you_mean, mismatch, show

        if "model" not in request:
            return Finding((), "missing key 'model' in request", f"there are {', '.join(self.models)}")
        model = request["model"]
        if not isinstance(model, str):
            return Finding(("model",), f"model: {mismatch(model, 'string')}")
        other = "a job may name its schema in 'schema' to use a model that none is for"
        guess = did_you_mean(model, self.models)
        return Finding(
            ("model",), f"model: no schema knows {show(model)}", f"{guess} {other}" if guess else other
        )


@cache
def load() -> Catalog:
    """
    Read the schemas that travel with the program, once.

    They are inside the installed package; in a checkout they stand beside it.
    """
    package = Path(__file__).parent.parent
    installed = package / "_schemas"
    return Catalog(installed if installed.is_dir() else package.parent / "schemas")
