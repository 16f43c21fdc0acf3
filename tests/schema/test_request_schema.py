"""Texts that matter by their length alone: with any of them, a clean request stays clean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.schema import catalog
from runner.schema.limits import length_only_fields
from runner.schema.request_schema import ValueSchema

CATALOG = catalog.load_catalog()
CASES = [
    (schema, {**schema.document["x-example"], "model": model}, key)
    for schema in map(CATALOG.schema, CATALOG.names)
    for model in schema.models
    for key in schema.length_only_fields({**schema.document["x-example"], "model": model})
]


def test_prompt_is_length_only() -> None:
    """No rule but one about its length applies to a prompt, so rows that differ in it need no check each."""
    schema = CATALOG.schema("seedance-1")

    assert {"prompt": 500} == schema.length_only_fields(
        {"model": "seedance-1-0-pro-250528", "prompt": "A kitten"}
    )


@pytest.mark.slow
@settings(max_examples=200)
@given(st.sampled_from(CASES), st.data())
def test_any_text_is_clean(case: Any, data: Any) -> None:
    """With any text up to the length, the request has no findings."""
    schema, request, key = case
    limit = schema.length_only_fields(request)[key]
    length = data.draw(st.integers(1, limit) | st.sampled_from([1, limit]))
    start = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=length))
    changed = {**request, key: start.ljust(length, data.draw(st.sampled_from("x猫 \0🎬")))}
    assume(not changed[key].isspace())

    assert [] == schema.findings(changed)
    assert changed is schema.normalize(changed)
    assert schema is CATALOG.select(changed, schema.name)


def test_counted_request_has_no_length_only_fields() -> None:
    """If a prompt had to be counted, another one may make the body too large."""
    schema = CATALOG.schema("seedance-1")
    request = {"model": "seedance-1-0-pro-250528", "prompt": "cat " * 200}

    assert schema.is_clean(request)
    assert {} == schema.length_only_fields(request)


def test_texts_of_other_rules_are_not_length_only() -> None:
    """A rule may compare a text with another key, or apply to keys that it does not name."""
    text = {"type": "string", "maxLength": 9}
    properties = {"a": text, "b": text, "c": {**text, "pattern": "x"}, "d": {**text, "minLength": 2}}
    named = {"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}}
    unnamed = {"not": {"patternProperties": {"^b": {"const": "x"}}}}

    assert {"b": 9} == length_only_fields({"properties": properties, "allOf": [named]})
    assert {} == length_only_fields({"properties": properties, "allOf": [unnamed]})


def test_a_value_that_the_fast_validator_cannot_represent() -> None:
    """A key that is not text, which no JSON has, is a finding and no traceback."""
    findings = ValueSchema({"type": "object"}, "the value").findings({1: 2})

    assert ["the key 1 is a number, not text"] == [finding.message for finding in findings]
