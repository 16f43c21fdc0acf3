"""What jobs get from the defaults: the job over its model's over those for all; null removes."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from runner.core.model import Json
from runner.core.problem import Finding
from runner.manifest.header import Defaults

_NOTHING: Mapping[str, Json] = {}


def merge(base: Mapping[str, Json], over: Mapping[str, Json]) -> dict[str, Json]:
    """
    Lay one mapping over another and leave both as they are.

    Mappings merge, lists and scalars replace, and null removes what is below it.

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
    """The defaults of one manifest, merged once for each model."""

    def __init__(self, defaults: Defaults) -> None:
        self._for_all = merge({}, defaults.request)
        self._by_model = {name: merge(self._for_all, over) for name, over in defaults.models.items()}
        self._metadata = merge({}, defaults.metadata)
        self.is_literal = is_literal([self._metadata, self._for_all, list(self._by_model.values())])
        """Whether nothing in the defaults is a placeholder."""

    def model_of(self, request: Mapping[str, Json]) -> Json:
        """Give the model that a request asks for, or else the defaults do; it may be a placeholder."""
        return request["model"] if "model" in request else self._for_all.get("model")

    def merge_request(self, request: Mapping[str, Json], model: Json) -> dict[str, Json]:
        """Lay a request over the defaults for its model."""
        defaults = self._by_model.get(model) if isinstance(model, str) else None
        return merge(self._for_all if defaults is None else defaults, request)

    def has_model(self, model: Json) -> bool:
        """Say whether there are defaults for this very model."""
        return isinstance(model, str) and model in self._by_model

    def merge_metadata(self, metadata: Mapping[str, Json]) -> dict[str, Json]:
        """Lay a job's metadata over the defaults."""
        return merge(self._metadata, metadata)


def is_literal(value: Json) -> bool:
    """
    Say whether rendering would give back the value as it is: no dollar sign and no null in it.

    >>> is_plain({"prompt": "A kitten", "media": [{"url": "https://example.com/a.png"}]})
    True
    >>> is_plain({"prompt": "${prompt}"})
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
        # The two commonest answers are given here, since a call costs more than all of the rest.
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
        values: The date among them.
        overrides: Those that the command line gave: no job's own variable hides them.
    """

    values: Mapping[str, Json]
    overrides: Mapping[str, Json]


def read_variables(
    written: Mapping[str, Json], overrides: Mapping[str, Json], date: str
) -> tuple[Variables, list[Finding]]:
    """
    Work out the variables of a manifest.

    >>> read_variables({"run": "${date}-a", "size": "720p"}, {"size": "480p"}, "2026-11-21")[0].values
    {'date': '2026-11-21', 'size': '480p', 'run': '2026-11-21-a'}
    """
    given = {"date": date, **overrides}
    if not written:
        return Variables(given, overrides), []
    from runner.manifest.template import Scope, entry_variables

    start = Scope(constants=given)
    own = entry_variables(written, start, overrides)
    return Variables(own.scope.constants, overrides), own.findings
