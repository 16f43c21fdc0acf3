"""Explanations for any schema: one sentence for each mistake, about the form that was meant, without secrets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runner.schema.explain import explain
from runner.schema.wording import MAX_VALUE_CHARS, format_value

RATE = {"type": "string", "pattern": r"^\d+/(s|min|h)$", "title": "a rate", "examples": ["60/min"]}
JOB = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "request": {"type": "object"}, "matrix": {"type": "object"}},
    "required": ["request"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "instance", "expected"),
    [
        ({"type": "object"}, [], "request: a list is not a mapping"),
        (
            {"properties": {"a": {"type": ["string", "array"]}}},
            {"a": 5},
            "a: 5 is a number, not text or a list",
        ),
        ({"properties": {"a": RATE}}, {"a": "fast"}, "a: 'fast' is not a rate; for example '60/min'"),
        (
            {"properties": {"a": {"anyOf": [RATE, {"type": "number", "minimum": 1}]}}},
            {"a": "fast"},
            "a: 'fast' is not a rate; for example '60/min'",
        ),
        (
            {"properties": {"a": {"anyOf": [RATE, {"type": "number", "minimum": 1}]}}},
            {"a": 0},
            "a: 0 is not allowed (1 or more)",
        ),
        (
            {"properties": {"a": {"oneOf": [RATE, {"type": "null"}]}}},
            {"a": []},
            "a: a list is not text or null",
        ),
        (
            {"properties": {"a": {"anyOf": [{"const": "all"}, {"enum": ["none", "some"]}]}}},
            {"a": "nonee"},
            "a: 'nonee' is not allowed (all, none, some); did you mean 'none'?",
        ),
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": 1, "b": 2},
            "request: fits more than one of the forms that exclude each other",
        ),
        (
            {"anyOf": [{"required": ["from"]}, {"required": ["request"]}]},
            {},
            "request: needs 'from' or 'request'",
        ),
        (
            {"properties": {"jobs": {"type": "array", "items": JOB}}},
            {"jobs": [{"request": {}, "matix": {}}]},
            "unknown key 'matix' in jobs[0]; did you mean 'matrix'?",
        ),
        (
            {"properties": {"jobs": {"type": "array", "items": {"anyOf": [JOB, {"type": "string"}]}}}},
            {"jobs": [{"id": "x"}]},
            "missing key 'request' in jobs[0]",
        ),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "missing key 'b' in request"),
        (
            {"propertyNames": {"pattern": "^[a-z]+$", "title": "a name of small letters"}},
            {"A b": 1},
            "request: the key 'A b' is not a name of small letters",
        ),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [1, 1]}, "a: an item is there twice"),
        ({"properties": {"a": {"minItems": 1}}}, {"a": []}, "a: 0 items, where at least 1 is needed"),
        ({"properties": {"a": {"exclusiveMinimum": 0}}}, {"a": 0}, "a: 0 is not allowed (more than 0)"),
        ({"properties": {"a": {"const": 1}}}, {"a": 2}, "a: 2 is not allowed (only 1)"),
        ({"properties": {"a": {"not": {"const": 2}}}}, {"a": 2}, "a: 2 is not allowed here"),
        ({"properties": {"a": {"maxLength": 3}}}, {"a": "abcd"}, "a: 4 characters, more than the 3 allowed"),
        ({"minProperties": 1}, {}, "request: is empty"),
        ({}, {"a": {1: "x"}}, "a: the key 1 is a number, not text; put it in quotes"),
    ],
)
def test_mistake_is_one_sentence(schema: dict[str, Any], instance: Any, expected: str) -> None:
    """Each kind of mistake has its sentence, and a union is explained by the form that was meant."""
    findings = explain(schema, instance)

    assert [expected] == [
        finding.message + (f"; {finding.hint}" if finding.hint else "") for finding in findings
    ]


def test_root_and_subject_are_named() -> None:
    """The caller names the whole, and for whom something is not allowed."""
    schema = {"properties": {"size": {"enum": ["a", "b"]}}, "additionalProperties": False}

    messages = [
        finding.message
        for finding in explain(schema, {"size": "c", "x": 1}, root="the manifest", subject="m1")
    ]

    assert messages == ["size: 'c' is not allowed for m1 (a, b)", "unknown key 'x' in the manifest"]


def test_path_leads_to_the_key() -> None:
    """A finding about an unknown key points at the key; one about a missing key at the mapping that lacks it."""
    schema = {"properties": {"jobs": {"items": JOB}}}

    findings = explain(schema, {"jobs": [{"x": 1}]})

    assert {("jobs", 0), ("jobs", 0, "x")} == {finding.path for finding in findings}


@pytest.mark.parametrize(
    "secret",
    [
        "sk-0123456789abcdefghij",
        "Bearer abcdefgh12345678",
        "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "x sk_live0123456789ab y",
    ],
)
def test_keys_are_redacted(secret: str) -> None:
    """A key in the wrong field does not reach a log."""
    (finding,) = explain({"properties": {"size": {"enum": ["a"]}}}, {"size": secret})

    assert re.fullmatch(
        r"size: '(Bearer |x )?\[redacted\]( y)?' is not allowed \(only 'a'\)", finding.message
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("dreamina-seedance-2-0-mini-260615", "'dreamina-seedance-2-0-mini-260615'"),
        ("https://user:pw@cdn.example/a.png?sig=1&x=2", "'https://cdn.example/a.png'"),
        ("https://user:pw@cdn.example/a.png", "'https://cdn.example/a.png'"),
        ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB", "'data:image/png;base64,…'"),
        ("two\nlines", r"'two\nlines'"),
        (10**100, "a number of over 60 digits"),
        (float("nan"), "NaN"),
    ],
)
def test_value_is_shown_briefly(value: Any, expected: str) -> None:
    """Names stay readable; signatures, passwords and data do not appear."""
    assert expected == format_value(value)


@pytest.mark.parametrize("value", ["word " * 100, "https://example.com/" + "a/" * 200, "猫" * 500])
def test_long_value_is_cut(value: str) -> None:
    """A message shows the beginning of a long value only."""
    assert len(format_value(value)) <= MAX_VALUE_CHARS
