"""Defaults of a manifest, merged into its jobs, and its variables."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from runner.core.model import Json
from runner.core.problem import Finding
from runner.manifest.header import Defaults
from runner.manifest.template import Scope, entry_variables


def merge(base: Mapping[str, Json], over: Mapping[str, Json]) -> dict[str, Json]:
    """
    Merge one mapping into another, without changing either.

    Mappings are merged, lists and scalars replaced, and null removes the key.

    >>> merge({"size": "720P", "style": {"a": 1, "b": 2}}, {"size": None, "style": {"b": 3}, "images": ["x"]})
    {'style': {'a': 1, 'b': 3}, 'images': ['x']}
    """
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif type(value) is dict:
            below = merged.get(key)
            merged[key] = merge(below if type(below) is dict else {}, value)
        else:
            merged[key] = value
    return merged


class DefaultsMerger:
    """The defaults of one manifest, merged once for each model: those of a model replace those for all."""

    def __init__(self, defaults: Defaults) -> None:
        self._for_all = merge({}, defaults.request)
        self._by_model = {name: merge(self._for_all, over) for name, over in defaults.models.items()}
        self._metadata = merge({}, defaults.metadata)
        self.is_literal = is_literal([self._metadata, self._for_all, list(self._by_model.values())])
        """Whether nothing in the defaults is a placeholder."""

    def model_of(self, request: Mapping[str, Json]) -> Json:
        """Return the model of a request, or else of the defaults; it may be a placeholder."""
        return request["model"] if "model" in request else self._for_all.get("model")

    def merge_request(self, request: Mapping[str, Json], model: Json) -> dict[str, Json]:
        """Merge a request into the defaults for its model."""
        defaults = self._by_model.get(model) if isinstance(model, str) else None
        return merge(self._for_all if defaults is None else defaults, request)

    def has_model(self, model: Json) -> bool:
        """Return whether there are defaults for this model alone."""
        return isinstance(model, str) and model in self._by_model

    def merge_metadata(self, metadata: Mapping[str, Json]) -> dict[str, Json]:
        """Merge a job's metadata into the defaults."""
        return merge(self._metadata, metadata)


def is_literal(value: Json) -> bool:
    """
    Return whether rendering would leave a value as it is: no dollar sign and no null in it.

    >>> is_literal({"prompt": "A kitten", "media": [{"url": "https://example.com/a.png"}]})
    True
    >>> is_literal({"prompt": "${prompt}"})
    False
    """
    kind = type(value)
    if kind is str:
        return "$" not in value
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return value is not None
    for item in value:
        # The two most frequent cases are decided here, since a call costs more than all of the rest.
        kind = type(item)
        if kind is str:
            if "$" in item:
                return False
        elif item is None or ((kind is dict or kind is list) and not is_literal(item)):
            return False
    return True


class Variables(Struct, frozen=True):
    """
    The variables of a manifest with their values.

    Attributes:
        values: All of them, the date included.
        overrides: Those of the command line: no job's own variable replaces them.
        used: Names that placeholders use or `vars` declare, as far as the manifest was read.
    """

    values: Mapping[str, Json]
    overrides: Mapping[str, Json]
    used: set[str] = field(default_factory=set)

    def unused_overrides(self) -> list[str]:
        """List the names of the command line that have no effect; complete when every job was read."""
        return [name for name in self.overrides if name not in self.used]


def read_variables(
    declared: Mapping[str, Json], overrides: Mapping[str, Json], date: str
) -> tuple[Variables, list[Finding]]:
    """
    Compute the variables of a manifest.

    >>> read_variables({"run": "${date}-a", "size": "720p"}, {"size": "480p"}, "2026-11-21")[0].values
    {'date': '2026-11-21', 'size': '480p', 'run': '2026-11-21-a'}
    """
    scope = Scope(constants={"date": date, **overrides})
    variables = entry_variables(declared, scope, overrides)
    return Variables(
        variables.scope.constants, overrides, {"date", *declared, *scope.used}
    ), variables.findings
