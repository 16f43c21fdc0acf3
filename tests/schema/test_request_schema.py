"""Texts that no rule looks into: whatever they are, a clean request stays clean."""

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.schema import catalog
from runner.schema.request_schema import length_only_fields

CATALOG = catalog.load()
CASES = [
    (schema, {**schema.document["x-example"], "model": model}, key)
    for schema in map(CATALOG.schema, CATALOG.names)
    for model in schema.models
    for key in schema.length_only_fields({**schema.document["x-example"], "model": model})
]


def test_prompts_are_free():
    """Where a prompt stands by itself, a million rows that differ in it are checked as one."""
    schema = CATALOG.schema("seedance-1")

    assert {"prompt": 500} == schema.length_only_fields(
        {"model": "seedance-1-0-pro-250528", "prompt": "A kitten"}
    )


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CASES), st.data())
def test_any_text_will_do(case, data):
    """What is called free is free: any text up to the length that is named leaves nothing to be said."""
    schema, request, key = case
    longest = schema.length_only_fields(request)[key]
    length = data.draw(st.integers(1, longest) | st.sampled_from([1, longest]))
    start = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=length))
    changed = {**request, key: start.ljust(length, data.draw(st.sampled_from("x猫 \0🎬")))}

    assert [] == schema.findings(changed)
    assert changed is schema.normalise(changed)
    assert schema is CATALOG.select(changed, schema.name)


def test_a_request_that_was_looked_into_promises_nothing():
    """A prompt that was counted by hand says nothing about the sum of all that is in the next request."""
    schema = CATALOG.schema("seedance-1")
    request = {"model": "seedance-1-0-pro-250528", "prompt": "cat " * 200}

    assert schema.is_clean(request)
    assert {} == schema.length_only_fields(request)


def test_texts_that_another_rule_names_are_not_free():
    """A rule may hold a text against another key, or reach keys that it does not name."""
    text = {"type": "string", "maxLength": 9}
    properties = {"a": text, "b": text, "c": {**text, "pattern": "x"}, "d": {**text, "minLength": 2}}
    named = {"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}}
    unnamed = {"not": {"patternProperties": {"^b": {"const": "x"}}}}

    assert {"b": 9} == length_only_fields({"properties": properties, "allOf": [named]})
    assert {} == length_only_fields({"properties": properties, "allOf": [unnamed]})
