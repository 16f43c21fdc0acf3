"""Everything that one document says about a request, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.core.problem import Finding
from runner.schema.limits import BodyLimit, WordLimit, body_bytes
from runner.schema.normalise import FieldRules, apply, compile_rules
from runner.schema.paths import PathPattern, find, strings

if TYPE_CHECKING:
    from runner.schema.media_fields import MediaField


Check = Callable[[Any], bool]

# No model has this name, and every document refuses it.
_ANY_OTHER = ""


class RequestSchema:
    """
    The schema of one document, compiled when it is first asked.

    What clean requests do not need is imported where it is needed: a `validate` of a few jobs is over sooner.

    Attributes:
        name: As in the name of its file, such as ``wan-kf2v``.
        document: The schema itself; not to be altered.
    """

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name = name
        self.document = document
        self._checks: dict[str, Check] = {}

    def __repr__(self) -> str:
        return f"RequestSchema({self.name!r})"

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models that the catalog holds against this document, its own first."""
        alternative = self.document.get("x-alternative", {}).get("models", ())
        return (*self.document["x-models"], *alternative)

    @cached_property
    def media_fields(self) -> tuple[MediaField, ...]:
        """The places where a picture is named, and what it may be."""
        from runner.schema.media_fields import media_fields

        return media_fields(self.document)

    def normalise(self, request: dict[str, Any]) -> dict[str, Any]:
        """
        Give each value the type that the document wants, where nothing is lost by it.

        The request comes back itself where nothing changes, and is never altered.
        """
        return apply(self._plan, request)

    def is_clean(self, request: dict[str, Any]) -> bool:
        """Say whether there is neither an error nor a warning, in a microsecond or two."""
        model = request.get("model")
        if model.__class__ is not str:
            return False
        fits = self._checks.get(model) or self._check_for(model)
        try:
            return fits(request) or (self._has_to_count and self._is_clean_by_hand(request))
        except ValueError:
            # A key that is not text: nothing that JSON could carry.
            return False

    def length_only_fields(self, request: dict[str, Any]) -> dict[str, int]:
        """
        List the keys of a clean request whose texts could be others of one character up to so many.

        It would stay clean with any of them; where that takes more than a look at their lengths, none is listed.
        """
        model = request["model"]
        if not self._check_for(model)(request):
            return {}
        return length_only_fields(strict(self.document, model=model if model in self.models else None))

    def findings(self, request: dict[str, Any]) -> list[Finding]:
        """List everything that is wrong with a normalised request, errors and warnings, in words."""
        # Half of what a `validate` without problems would cost to start is the import of this.
        from runner.schema.explain import explain

        model = request.get("model") if isinstance(request, dict) else None
        return explain(self.document, request, subject=model if isinstance(model, str) else None)

    def body_finding(self, size_bytes: int) -> Finding | None:
        """Say what is wrong with a body of this size, for a caller that knows better than the request does."""
        return self._body_limit.finding(size_bytes)

    @cached_property
    def _plan(self) -> FieldRules:
        return compile_rules(self.document)

    @cached_property
    def _body_limit(self) -> BodyLimit:
        return BodyLimit(**self.document["x-body-bytes"])

    @cached_property
    def _word_limits(self) -> tuple[tuple[PathPattern, WordLimit], ...]:
        keyword = "x-recommended-words"
        described = strings(self.document)
        return tuple((path, WordLimit(**text[keyword])) for path, text in described if keyword in text)

    @cached_property
    def _has_to_count(self) -> bool:
        return bool(self._word_limits or self.media_fields)

    def _check_for(self, model: str) -> Check:
        """Give the check of one model, compiled once; models that the document does not name share one."""
        named = model if model in self.models else _ANY_OTHER
        if named not in self._checks:
            self._checks[named] = _compile(strict(self.document, model=model if named else None))
        return self._checks[named]

    @cached_property
    def _loose(self) -> Check:
        return _compile(strict(self.document, refuses_long=False))

    def _is_clean_by_hand(self, request: dict[str, Any]) -> bool:
        """Judge a request that did not fit, perhaps only because a text in it is long."""
        return (
            self._loose(request)
            and not any(
                limit.excess(text) for path, limit in self._word_limits for _, text in find(request, path)
            )
            and self._body_limit.finding(body_bytes(request)) is None
        )


def _compile(schema: dict[str, Any]) -> Check:
    # A command that checks nothing does not pay for the import.
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(schema).is_valid


LONG_MEDIA = 100_000
"""Characters of a media field past which the size of the whole body has to be looked at."""


def strict(schema: dict[str, Any], *, model: str | None = None, refuses_long: bool = True) -> dict[str, Any]:
    """
    Copy a schema with its ``x-warnings`` turned into rules.

    With a model, rules about other models are left out. ``refuses_long`` refuses, with
    the rest, texts that would need counting by hand.

    >>> strict({"x-warnings": [{"when": {"const": 1}, "message": "one"}]})
    {'allOf': [{'not': {'const': 1}}]}
    """
    copy: dict[str, Any] = _strict(schema, refuses_long)
    rules = copy.pop("allOf", [])
    if kept := [rule for rule in rules if model is None or _concerns(rule, model)]:
        copy["allOf"] = kept
    return copy


def _strict(schema: Any, refuses_long: bool) -> Any:
    if isinstance(schema, list):
        return [_strict(item, refuses_long) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _strict(value, refuses_long) for key, value in schema.items() if not key.startswith("x-")}
    if warnings := [{"not": entry["when"]} for entry in schema.get("x-warnings", ())]:
        copy["allOf"] = [*copy.get("allOf", ()), *warnings]
    if refuses_long and (longest := _longest(schema)) is not None:
        copy["maxLength"] = longest
    return copy


def _longest(schema: Mapping[str, Any]) -> int | None:
    """Give the characters up to which a text needs no counting by hand; None where none ever does."""
    if "x-media" in schema:
        return LONG_MEDIA
    words = schema.get("x-recommended-words")
    # A word takes a character at least.
    return min(words.values()) if words else None


def _concerns(rule: Mapping[str, Any], model: str) -> bool:
    """Say whether a rule can matter to a request for this model."""
    condition = rule.get("if") or rule.get("not") or {}
    named = condition.get("properties", {}).get("model", {})
    return model == named.get("const", model) and model in named.get("enum", (model,))


_ABOUT_LENGTH = frozenset({"type", "description", "minLength", "maxLength", "allOf"})
_NO_RULES = frozenset({"$schema", "$id", "$comment", "title", "description", "required"})
_REACHES_THE_UNNAMED = frozenset(
    {"$ref", "$dynamicRef", "patternProperties", "additionalProperties", "unevaluatedProperties"}
)
"""Keywords whose rules apply to keys that they do not name."""


def length_only_fields(schema: Mapping[str, Any]) -> dict[str, int]:
    """
    Find the keys whose texts are all alike to a strict schema, from one character up to how many.

    >>> prompt = {"type": "string", "minLength": 1, "maxLength": 500}
    >>> length_only_fields({"properties": {"prompt": prompt, "seed": {"type": "integer"}}})
    {'prompt': 500}
    """
    own = {"properties", "additionalProperties"}
    named = _names({key: rules for key, rules in schema.items() if key not in own})
    if not named.isdisjoint(_REACHES_THE_UNNAMED):
        return {}
    lengths = {key: _longest_free(rule) for key, rule in schema["properties"].items() if key not in named}
    return {key: longest for key, longest in lengths.items() if longest is not None}


def _names(rules: Any) -> set[str]:
    """Gather every text in some rules, except where they only ask whether a key is there."""
    if isinstance(rules, dict):
        return {
            *rules,
            *(name for key, rule in rules.items() if key not in _NO_RULES for name in _names(rule)),
        }
    if isinstance(rules, list):
        return {name for rule in rules for name in _names(rule)}
    return {rules} if isinstance(rules, str) else set()


def _longest_free(rule: Mapping[str, Any]) -> int | None:
    """Give the characters up to which a text is as good as any other; None where more than its length matters."""
    if rule.get("type") != "string" or not rule.keys() <= _ABOUT_LENGTH or rule.get("minLength", 0) > 1:
        return None
    limits = [rule["maxLength"]] if "maxLength" in rule else []
    for refused in rule.get("allOf", ()):
        match refused:
            case {"not": {"type": "string", "minLength": int(limit), **others}} if not others:
                limits.append(limit - 1)
            case _:
                return None
    return min(limits, default=None)
