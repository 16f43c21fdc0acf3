"""
One sentence for each way in which a value can break a schema.

A schema may put it better: ``x-messages`` beside a keyword holds ``message``,
``hint`` or both for it (for ``required`` and ``additionalProperties`` by key), and
may move the finding to another ``path`` or keep it ``for`` one value. ``{value}``, ``{length}`` and ``{model}``
are filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from re import search
from typing import Any, Protocol

from msgspec import Struct

from runner.core.problem import Finding, Severity
from runner.schema.paths import JsonPath, dotted
from runner.schema.wording import bounds, choices, did_you_mean, either, mismatch, show


class SchemaError(Protocol):
    """What is read of one error of the validator: the keyword that failed, its value, and on what."""

    message: str
    validator: Any
    validator_value: Any
    instance: Any
    schema: Any

    @property
    def context(self) -> Any:
        """What failed within the branches of an `anyOf` or `oneOf`."""

    @property
    def absolute_path(self) -> Iterable[str | int]:
        """Where in the request."""

    @property
    def absolute_schema_path(self) -> Iterable[str | int]:
        """Where in the schema."""


Sentence = tuple[str, str | None]
"""What is wrong with a value, and a hint."""


class MessageContext(Struct, frozen=True):
    """
    What the sentences are about.

    Attributes:
        root: What the whole instance is called.
        subject: For whom something is not allowed, such as a model; None where that says nothing.
    """

    root: str
    subject: str | None


def findings_of(error: SchemaError, context: MessageContext) -> Iterator[Finding]:
    """Say what one error of the validator means; several unknown or missing keys are several findings."""
    keyword = error.validator
    if keyword == "x-warnings":
        yield _warning(error, context)
    elif keyword == "x-recommended-words":
        path = tuple(error.absolute_path)
        yield Finding(path, f"{dotted(path)}: {error.message}", None, Severity.WARNING)
    elif keyword == "x-body-bytes":
        yield error.validator_value
    elif keyword == "additionalProperties":
        yield from _unknown_keys(error, context)
    elif keyword in ("required", "dependentRequired"):
        yield from _missing_keys(error, context)
    else:
        yield _plain(error, context)


def _plain(error: SchemaError, context: MessageContext) -> Finding:
    path: JsonPath = tuple(error.absolute_path)
    text, hint = _SENTENCES.get(str(error.validator), _unexplained)(error, context)
    if "propertyNames" in error.absolute_schema_path:
        return Finding((*path, str(error.instance)), f"{_where(path, context)}: the key {text}", hint)
    own = _own_words(error).get(error.validator, {})
    if own.get("for", error.instance) != error.instance:
        own = {}
    path = (*path, *own.get("path", ()))
    if "message" in own:
        return Finding(
            path, _placed(path, own["message"], error, context), _filled(own.get("hint"), error, context)
        )
    return Finding(path, f"{_where(path, context)}: {text}", _filled(own.get("hint"), error, context) or hint)


def _warning(error: SchemaError, context: MessageContext) -> Finding:
    entry = error.validator_value
    path = (*error.absolute_path, *entry.get("path", ()))
    hint = _filled(entry.get("hint"), error, context)
    return Finding(path, _placed(path, entry["message"], error, context), hint, Severity.WARNING)


def _unknown_keys(error: SchemaError, context: MessageContext) -> Iterator[Finding]:
    known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    own = _own_words(error).get("additionalProperties", {})
    missing = [name for name in known if name not in error.instance]
    for key in _extras(error):
        path = (*error.absolute_path, key)
        said = own.get(key, {})
        text = f"unknown key {show(key)} in {_where(tuple(error.absolute_path), context)}"
        hint = did_you_mean(key, missing) or did_you_mean(key, known)
        if said:
            text = _filled(said.get("message"), error, context) or text
            hint = _filled(said.get("hint"), error, context)
        yield Finding(path, text, hint)


def _extras(error: SchemaError) -> Iterator[str]:
    schema = error.schema
    for key in error.instance:
        if key not in schema.get("properties", {}) and not any(
            search(pattern, key) for pattern in schema.get("patternProperties", {})
        ):
            yield key


def _missing_keys(error: SchemaError, context: MessageContext) -> Iterator[Finding]:
    own = _own_words(error).get(error.validator, {})
    wanted = error.validator_value
    if isinstance(wanted, dict):
        wanted = [name for key, names in wanted.items() if key in error.instance for name in names]
    path: JsonPath = tuple(error.absolute_path)
    for name in dict.fromkeys(wanted):
        if name in error.instance:
            continue
        said = own.get(name, {})
        hint = _filled(said.get("hint"), error, context)
        if "message" in said:
            there = (*path, *said.get("path", ()))
            yield Finding(there, _placed(there, said["message"], error, context), hint)
        else:
            yield Finding(path, f"missing key {show(name)} in {_where(path, context)}", hint)


def _own_words(error: SchemaError) -> dict[Any, Any]:
    words: dict[Any, Any] = error.schema.get("x-messages", {}) if isinstance(error.schema, dict) else {}
    return words


def _filled(template: str | None, error: SchemaError, context: MessageContext) -> str | None:
    if template is None:
        return None
    length = len(error.instance) if isinstance(error.instance, str) else 0
    return template.format(value=show(error.instance), length=length, model=context.subject or "this model")


def _placed(path: JsonPath, template: str, error: SchemaError, context: MessageContext) -> str:
    text = _filled(template, error, context) or ""
    return f"{dotted(path)}: {text}" if path else text


def _where(path: JsonPath, context: MessageContext) -> str:
    return dotted(path) if path else context.root


def _type(error: SchemaError, _context: MessageContext) -> Sentence:
    wanted = error.validator_value
    is_bare = wanted == "string" and isinstance(error.instance, int | float)
    return mismatch(error.instance, wanted), "put it in quotes" if is_bare else None


def _enum(error: SchemaError, context: MessageContext) -> Sentence:
    allowed = error.validator_value
    whom = f" for {context.subject}" if context.subject and context.subject != error.instance else ""
    # Between numbers, as in sizes and ratios, the nearest spelling is not what was meant.
    is_word = not isinstance(error.instance, str) or sum(map(str.isalpha, error.instance)) > 2
    hint = did_you_mean(error.instance, allowed) if is_word and len(allowed) > 1 else None
    # A long list would hide the hint.
    listed = "" if hint and len(allowed) > 12 else f" ({choices(allowed)})"
    return f"{show(error.instance)} is not allowed{whom}{listed}", hint


def _const(error: SchemaError, _context: MessageContext) -> Sentence:
    return f"{show(error.instance)} is not allowed (only {show(error.validator_value)})", None


def _bounds(error: SchemaError, _context: MessageContext) -> Sentence:
    schema = error.schema
    return f"{show(error.instance)} is not allowed ({bounds(schema)})", None


def _length(error: SchemaError, _context: MessageContext) -> Sentence:
    limit = error.validator_value
    if not error.instance:
        return "is empty", None
    sense = "fewer than the" if str(error.validator).startswith("min") else "more than the"
    noun = "characters" if isinstance(error.instance, str) else "entries"
    return f"{len(error.instance)} {noun}, {sense} {limit} allowed", None


def _items(error: SchemaError, _context: MessageContext) -> Sentence:
    schema = error.schema
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    have = len(error.instance)
    sense = "exactly" if low == high else "at least" if have < low else "at most"
    wanted = f"{sense} {error.validator_value}"
    return (
        f"{have} {'item' if have == 1 else 'items'}, where {wanted} {'is' if wanted.endswith(' 1') else 'are'} needed",
        None,
    )


def _pattern(error: SchemaError, _context: MessageContext) -> Sentence:
    schema = error.schema
    examples = [show(example) for example in schema.get("examples", ())]
    hint = f"for example {examples[0]}" if examples else None
    what = schema.get("title") or "what is expected here"
    return f"{show(error.instance)} is not {what}", hint


def _contains(error: SchemaError, _context: MessageContext) -> Sentence:
    sense = (
        "too many items of one kind"
        if error.validator == "maxContains"
        else "an item that is needed is not there"
    )
    return sense, None


def _unique(_error: SchemaError, _context: MessageContext) -> Sentence:
    return "an item stands there twice", None


def _forms(error: SchemaError, _context: MessageContext) -> Sentence:
    if error.validator == "oneOf" and not error.context:
        return "fits more than one of the forms that exclude each other", None
    if all(form.validator == "required" for form in error.context):
        return f"needs {either([show(key) for form in error.context for key in form.validator_value])}", None
    return f"{show(error.instance)} has none of the forms that are allowed here", None


def _unexplained(error: SchemaError, _context: MessageContext) -> Sentence:
    return f"{show(error.instance)} is not allowed here", None


_SENTENCES: dict[str, Callable[[SchemaError, MessageContext], Sentence]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _bounds,
    "maximum": _bounds,
    "exclusiveMinimum": _bounds,
    "exclusiveMaximum": _bounds,
    "minLength": _length,
    "maxLength": _length,
    "minProperties": _length,
    "maxProperties": _length,
    "minItems": _items,
    "maxItems": _items,
    "pattern": _pattern,
    "format": _pattern,
    "contains": _contains,
    "minContains": _contains,
    "maxContains": _contains,
    "uniqueItems": _unique,
    "anyOf": _forms,
    "oneOf": _forms,
}
