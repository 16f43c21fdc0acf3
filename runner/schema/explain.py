"""
Say in a person's words what is wrong with a value, for any JSON Schema.

The validator finds the errors; this module keeps those that help. Where a value may
have several forms, only the form that was probably meant is talked about; where one
value breaks several rules, the one that says most is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from runner.core.problem import Finding
from runner.schema.limits import BodyLimit, WordLimit, body_bytes
from runner.schema.messages import MessageContext, findings_of
from runner.schema.paths import JsonPath, dotted
from runner.schema.wording import kind_of, show

_OURS = frozenset({"x-warnings", "x-recommended-words", "x-body-bytes"})


def explain(
    schema: dict[str, Any], instance: Any, *, root: str = "request", subject: str | None = None
) -> list[Finding]:
    """
    List everything that is wrong with an instance, errors and warnings, in the schema's order.

    ``root`` is what the whole instance is called, as in ``unknown key 'seeds' in request``;
    ``subject`` is for whom a value is not allowed, usually the model, where that says something.

    >>> explain({"properties": {"seed": {"type": "integer"}}}, {"seed": "x"})[0].message
    "seed: 'x' is text, not a whole number"
    """
    if odd := list(_odd_keys(instance)):
        return odd
    errors = [leaf for error in ExplainingValidator(schema).iter_errors(instance) for leaf in _flatten(error)]
    context = MessageContext(root, subject)
    found = (finding for error in _most_relevant(errors) for finding in findings_of(error, context))
    return list(dict.fromkeys(found))


def _odd_keys(instance: Any, path: JsonPath = ()) -> Iterator[Finding]:
    """Find keys that are not text; JSON has no others, and the validator trips over them."""
    if isinstance(instance, dict):
        for key, value in instance.items():
            if not isinstance(key, str):
                where = dotted(path)
                text = f"the key {show(key)} is {kind_of(key)}, not text"
                yield Finding(path, f"{where}: {text}" if where else text, "put it in quotes")
            else:
                yield from _odd_keys(value, (*path, key))
    elif isinstance(instance, list):
        for index, value in enumerate(instance):
            yield from _odd_keys(value, (*path, index))


def _flatten(error: ValidationError) -> Iterator[ValidationError]:
    """Replace a failed union by the errors of the form that was probably meant."""
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        yield error
        return
    forms: dict[Any, list[ValidationError]] = {}
    for inner in error.context:
        forms.setdefault(inner.schema_path[0], []).append(inner)
    fitting = [form for form in forms.values() if not any(_is_about_itself(e, "type") for e in form)]
    if not fitting:
        yield _joined(error, [e for form in forms.values() for e in form if _is_about_itself(e, "type")])
    elif all(len(form) == 1 and _is_about_itself(form[0], "enum", "const") for form in fitting):
        yield _joined(error, [form[0] for form in fitting])
    elif len(fitting) > 1 and all(
        len(form) == 1 and _is_about_itself(form[0], "required") for form in fitting
    ):
        yield error
    else:
        for inner in min(fitting, key=_distance):
            yield from _flatten(inner)


def _is_about_itself(error: ValidationError, *keywords: str) -> bool:
    """Whether an error of a form is about the very value that has the forms, and of one of these kinds."""
    return not error.path and error.validator in keywords


def _distance(form: list[ValidationError]) -> tuple[bool, int]:
    """How far a value is from a form: a key that tells the forms apart weighs most."""
    return any(error.validator == "const" for error in form), len(form)


def _joined(union: ValidationError, errors: list[ValidationError]) -> ValidationError:
    """Make one error of the same kind out of those of several forms."""
    keyword = "type" if errors[0].validator == "type" else "enum"
    allowed: list[Any] = []
    for error in errors:
        value: Any = error.validator_value
        is_many = isinstance(value, list) and error.validator != "const"
        allowed.extend(value if is_many else [value])
    return ValidationError(
        "",
        validator=keyword,
        validator_value=list(dict.fromkeys(allowed)),
        path=union.path,
        schema_path=union.schema_path,
        instance=union.instance,
        schema=union.schema,
        parent=union.parent,
    )


def _most_relevant(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """
    Keep one error a value: that of its type, else the narrowest.

    Lists and mappings may have several; what is wrong anyway is not warned of too.
    """
    kept: dict[Any, ValidationError] = {}
    for number, error in enumerate(errors):
        has_one = error.validator == "type" or not isinstance(error.instance, dict | list)
        place: Any = tuple(error.absolute_path) if has_one else number
        if place not in kept or _weight(error) < _weight(kept[place]):
            kept[place] = error
    yield from kept.values()


def _weight(error: ValidationError) -> tuple[int, int]:
    """Order the errors of one value: its type, then the shortest list of choices, then the rest, then warnings."""
    value: Any = error.validator_value
    schema: Any = error.schema
    if error.validator in _OURS:
        return 4, 0
    if error.validator == "enum":
        return 1, len(value)
    if error.validator == "type":
        # A list of choices says more than the type that they all have.
        return (2 if "enum" in schema and "type" not in schema.get("x-messages", {}) else 0), 0
    return 3, 0


Errors = Iterator[ValidationError]


def _warnings(validator: Any, entries: list[dict[str, Any]], instance: Any, _schema: Any) -> Errors:
    for entry in entries:
        if validator.evolve(schema=entry["when"]).is_valid(instance):
            yield ValidationError("", validator="x-warnings", validator_value=entry)


def _recommended_words(_validator: Any, limit: dict[str, int], instance: Any, _schema: Any) -> Errors:
    if isinstance(instance, str) and (excess := WordLimit(**limit).excess(instance)):
        yield ValidationError(excess)


def _body_bytes(_validator: Any, limit: dict[str, int], instance: Any, _schema: Any) -> Errors:
    if finding := BodyLimit(**limit).finding(body_bytes(instance)):
        yield ValidationError("", validator_value=finding)


# Its stubs leave `extend` without types.
ExplainingValidator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"x-warnings": _warnings, "x-recommended-words": _recommended_words, "x-body-bytes": _body_bytes},
)
"""JSON Schema 2020-12 and our keywords."""
