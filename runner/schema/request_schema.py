"""
The schema of one document, ready to normalize and check requests.

Nearly every request has nothing wrong with it, and only that has to be fast: `strict_copy`
makes a plain JSON Schema that a compiled validator answers with yes or no, in a microsecond
or two. Only a request that it refuses is explained, by a slower validator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from runner.core.problem import Finding, PathPattern, find_values, text_schemas
from runner.schema.limits import BodyLimit, MediaField, WordLimit, body_bytes, media_fields
from runner.schema.normalize import FieldRules, compile_rules, normalize

Check = Callable[[Any], bool]

# No model has this name, and every document refuses it.
_ANY_OTHER = ""


class RequestSchema:
    """
    The schema of one document, compiled when it is first used.

    Attributes:
        name: As in the name of its file, such as ``wan-kf2v``.
        document: The schema itself; not to be changed.
    """

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name = name
        self.document = document
        self._checks: dict[str, Check] = {}

    def __repr__(self) -> str:
        return f"RequestSchema({self.name!r})"

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models that the catalog checks with this document, its own first."""
        alternative = self.document.get("x-alternative", {}).get("models", ())
        return (*self.document["x-models"], *alternative)

    @cached_property
    def media_fields(self) -> tuple[MediaField, ...]:
        """The fields that name an image, and what it may be."""
        return media_fields(self.document)

    def normalize(self, request: dict[str, Any]) -> dict[str, Any]:
        """
        Convert each value to the type that the document requires, if nothing is lost.

        The request is never changed; it is returned itself if nothing needs converting.
        """
        return normalize(self._field_rules, request)

    def is_clean(self, request: dict[str, Any]) -> bool:
        """Return whether there is neither an error nor a warning, in a microsecond or two."""
        model = request.get("model")
        if model.__class__ is not str:
            return False
        fits = self._checks.get(model) or self._check_for(model)
        try:
            return fits(request) or (self._has_counted_texts and self._is_clean_if_long(request))
        except ValueError:
            # A key that is not text: nothing that JSON could carry.
            return False

    def length_only_fields(self, request: dict[str, Any]) -> dict[str, int]:
        """
        Return the keys of a clean request whose texts matter by their length alone, with the most characters.

        The request stays clean with any other text of at most that many characters that is not blank. It has no
        such key if a check of it takes more than a look at the lengths.
        """
        model = request["model"]
        if not self._check_for(model)(request):
            return {}
        return length_only_fields(strict_copy(self.document, model=model if model in self.models else None))

    def findings(self, request: dict[str, Any]) -> list[Finding]:
        """List everything that is wrong with a normalized request, errors and warnings, in words."""
        model = request.get("model") if isinstance(request, dict) else None
        return explain(self.document, request, subject=model if isinstance(model, str) else None)

    def body_finding(self, size_bytes: int) -> Finding | None:
        """Return what is wrong with a body of this size, or None; for a body that is larger than its request."""
        return self._body_limit.finding(size_bytes)

    @cached_property
    def _field_rules(self) -> FieldRules:
        return compile_rules(self.document)

    @cached_property
    def _body_limit(self) -> BodyLimit:
        return BodyLimit(**self.document["x-body-bytes"])

    @cached_property
    def _word_limits(self) -> tuple[tuple[PathPattern, WordLimit], ...]:
        keyword = "x-recommended-words"
        texts = text_schemas(self.document)
        return tuple((path, WordLimit(**text[keyword])) for path, text in texts if keyword in text)

    @cached_property
    def _has_counted_texts(self) -> bool:
        return bool(self._word_limits or self.media_fields)

    def _check_for(self, model: str) -> Check:
        """Return the check of one model, compiled once; models that the document does not name share one."""
        name = model if model in self.models else _ANY_OTHER
        if name not in self._checks:
            self._checks[name] = _compile(strict_copy(self.document, model=name or None))
        return self._checks[name]

    @cached_property
    def _fits_at_any_length(self) -> Check:
        return _compile(strict_copy(self.document, refuses_long=False))

    def _is_clean_if_long(self, request: dict[str, Any]) -> bool:
        """Check a request that was refused, perhaps only because a text in it is long."""
        return (
            self._fits_at_any_length(request)
            and not any(
                limit.excess(text)
                for path, limit in self._word_limits
                for _, text in find_values(request, path)
            )
            and self._body_limit.finding(body_bytes(request)) is None
        )


class ValueSchema:
    """
    The schema of a value that is not a request, such as the header of a manifest; compiled when it is first used.

    Args:
        root: What the whole value is called in messages.
    """

    def __init__(self, schema: dict[str, Any], root: str) -> None:
        self._schema = schema
        self._root = root

    @cached_property
    def _check(self) -> Check:
        return _compile(self._schema)

    def findings(self, value: Any) -> list[Finding]:
        """List everything that is wrong with a value; a valid one takes a microsecond or two."""
        try:
            if self._check(value):
                return []
        except ValueError:
            # The fast validator can't represent keys that are not text, nor, in its older versions, long numbers.
            pass
        return explain(self._schema, value, root=self._root)


def _compile(schema: dict[str, Any]) -> Check:
    """Compile a plain JSON Schema; its check raises ValueError for a value that it can't represent."""
    # A command that checks nothing does not need it.
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(schema).is_valid


def explain(
    schema: dict[str, Any], instance: Any, *, root: str = "request", subject: str | None = None
) -> list[Finding]:
    """List everything that is wrong with a value; see `runner.schema.explain`."""
    # This import takes longer than the rest of a `validate` of a small manifest without problems.
    from runner.schema import explain as explaining

    return explaining.explain(schema, instance, root=root, subject=subject)


LONG_MEDIA_CHARS = 100_000
"""A media field that is longer may make the body too large, so that its size has to be computed."""


def strict_copy(
    schema: dict[str, Any], *, model: str | None = None, refuses_long: bool = True
) -> dict[str, Any]:
    """
    Copy a schema with its ``x-warnings`` turned into rules.

    Args:
        model: If given, rules about other models are left out.
        refuses_long: Whether to refuse texts so long that words or bytes have to be counted.

    >>> strict_copy({"x-warnings": [{"when": {"const": 1}, "message": "one"}]})
    {'allOf': [{'not': {'const': 1}}]}
    """
    copy: dict[str, Any] = _strict(schema, refuses_long)
    rules = copy.pop("allOf", [])
    if applying := [rule for rule in rules if model is None or _applies_to(rule, model)]:
        copy["allOf"] = applying
    return copy


def _strict(schema: Any, refuses_long: bool) -> Any:
    if isinstance(schema, list):
        return [_strict(item, refuses_long) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _strict(value, refuses_long) for key, value in schema.items() if not key.startswith("x-")}
    if warnings := [{"not": entry["when"]} for entry in schema.get("x-warnings", ())]:
        copy["allOf"] = [*copy.get("allOf", ()), *warnings]
    if refuses_long and (limit := _max_uncounted_chars(schema)) is not None:
        copy["maxLength"] = limit
    return copy


def _max_uncounted_chars(schema: Mapping[str, Any]) -> int | None:
    """Return the characters up to which nothing has to be counted; None if nothing ever has."""
    if "x-media" in schema:
        return LONG_MEDIA_CHARS
    words = schema.get("x-recommended-words")
    # A word has at least one character.
    return min(words.values()) if words else None


def _applies_to(rule: Mapping[str, Any], model: str) -> bool:
    """Return whether a rule can matter to a request for this model."""
    condition = rule.get("if") or rule.get("not") or {}
    models = condition.get("properties", {}).get("model", {})
    return model == models.get("const", model) and model in models.get("enum", (model,))


_NOT_BLANK = {"type": "string", "pattern": "^\\s+$"}
_LENGTH_KEYWORDS = frozenset({"type", "description", "minLength", "maxLength", "allOf", "not"})
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "title", "description", "required"})
_OPEN_KEYWORDS = frozenset(
    {"$ref", "$dynamicRef", "patternProperties", "additionalProperties", "unevaluatedProperties"}
)
"""Keywords whose rules apply to keys that they do not name."""


def length_only_fields(schema: Mapping[str, Any]) -> dict[str, int]:
    """
    Find the keys of a strict schema whose texts matter by their length alone, with the most characters.

    >>> prompt = {"type": "string", "minLength": 1, "maxLength": 500}
    >>> length_only_fields({"properties": {"prompt": prompt, "seed": {"type": "integer"}}})
    {'prompt': 500}
    """
    own = {"properties", "additionalProperties"}
    named = _texts_in({key: rules for key, rules in schema.items() if key not in own})
    if not named.isdisjoint(_OPEN_KEYWORDS):
        return {}
    limits = {key: _max_chars(rule) for key, rule in schema["properties"].items() if key not in named}
    return {key: limit for key, limit in limits.items() if limit is not None}


def _texts_in(rules: Any) -> set[str]:
    """Collect every text in some rules, except where they only ask whether a key is present."""
    if isinstance(rules, dict):
        return {
            *rules,
            *(text for key, rule in rules.items() if key not in _ANNOTATIONS for text in _texts_in(rule)),
        }
    if isinstance(rules, list):
        return {text for rule in rules for text in _texts_in(rule)}
    return {rules} if isinstance(rules, str) else set()


def _max_chars(rule: Mapping[str, Any]) -> int | None:
    """Return the longest text that a rule allows; None if more than the length matters."""
    if rule.get("type") != "string" or not rule.keys() <= _LENGTH_KEYWORDS or rule.get("minLength", 0) > 1:
        return None
    if rule.get("not", _NOT_BLANK) != _NOT_BLANK:
        return None
    limits = [rule["maxLength"]] if "maxLength" in rule else []
    for condition in rule.get("allOf", ()):
        match condition:
            case {"not": {"type": "string", "minLength": int(limit), **others}} if not others:
                limits.append(limit - 1)
            case _:
                return None
    return min(limits, default=None)
