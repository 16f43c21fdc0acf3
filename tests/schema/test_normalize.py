"""Normalization converts values to the types that the document requires, and loses nothing."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.schema import catalog

CATALOG = catalog.load_catalog()
# A busy machine is not a failure.
UNHURRIED = settings(suppress_health_check=[HealthCheck.too_slow])
SEEDANCE = CATALOG.schema("seedance-1")

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(
        ["5", "-1", "TRUE", "false", "720P", "1080p", "42", "007", " 5", "1e3", "5.0", "Adaptive", "-0"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "url"]), inner),
    max_leaves=6,
)


def requests(schema: Any) -> Any:
    return st.dictionaries(st.sampled_from(sorted(schema.document["properties"])), VALUES, max_size=6)


SCHEMA_AND_REQUEST = st.sampled_from(CATALOG.names).flatmap(
    lambda name: st.tuples(st.just(CATALOG.schema(name)), requests(CATALOG.schema(name)))
)


def meaning(value: Any) -> Any:
    """Reduce a value to its meaning, whatever its type."""
    if isinstance(value, dict):
        return {key: meaning(child) for key, child in value.items()}
    if isinstance(value, list):
        return [meaning(child) for child in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().lower()
    if whole := re.fullmatch(r"(-?[0-9]+)\.0+", text):
        text = whole[1]
    return "0" if text == "-0" else text


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"seconds": 5}, {"seconds": "5"}),
        ({"seconds": -1}, {"seconds": "-1"}),
        ({"seconds": 13}, {"seconds": "13"}),
        ({"seconds": " 5.0 "}, {"seconds": "5"}),
        ({"seed": "42"}, {"seed": 42}),
        ({"seed": 42.0}, {"seed": 42}),
        ({"watermark": "TRUE"}, {"watermark": True}),
        ({"size": "720P"}, {"size": "720p"}),
        ({"ratio": "Adaptive"}, {"ratio": "adaptive"}),
    ],
)
def test_value_is_converted(given_: dict[str, Any], expected: dict[str, Any]) -> None:
    """A value with an exact counterpart becomes it."""
    converted = SEEDANCE.normalize(given_)

    assert expected == converted
    assert [type(value) for value in expected.values()] == [type(value) for value in converted.values()]


@pytest.mark.parametrize(
    "request_",
    [
        {"seconds": 5.5},
        {"seconds": True},
        {"seconds": "5s"},
        {"seconds": 10**5000},
        {"seed": "007"},
        {"seed": "4 2"},
        {"seed": "1e3"},
        {"seed": 4.5},
        {"seed": True},
        {"seed": float("inf")},
        {"watermark": 1},
        {"watermark": "yes"},
        {"prompt": 5},
        {"size": 720},
        {"seeds": "5"},
        {"seed": None},
        {"seed": "٤٢"},
    ],
    ids=lambda request: (
        f"{next(iter(request))}-{str(next(iter(request.values())))[:8] if next(iter(request)) != 'seconds' else 'odd'}"
    ),
)
def test_value_without_exact_counterpart_is_left(request_: dict[str, Any]) -> None:
    """What can't be converted without loss or guessing is left for the schema to refuse: the same object is returned."""
    assert SEEDANCE.normalize(request_) is request_


def test_items_of_media_are_converted() -> None:
    """The letter case of an enum is corrected inside a list too, and the given list is not changed."""
    given_ = {"media": [{"type": "First_Frame", "url": "x"}, {"type": "last_frame", "url": "y"}]}
    before = copy.deepcopy(given_)

    converted = CATALOG.schema("wan2.7-i2v").normalize(given_)

    assert converted["media"][0] == {"type": "first_frame", "url": "x"}
    assert converted["media"][1] is given_["media"][1]
    assert before == given_


@UNHURRIED
@given(SCHEMA_AND_REQUEST)
def test_normalizing_is_idempotent_and_keeps_the_meaning(case: Any) -> None:
    """A second time changes nothing; the given request is not changed; only types, letter case and blanks at the ends are."""
    schema, request = case
    before = copy.deepcopy(request)

    once = schema.normalize(request)

    assert schema.normalize(once) is once
    assert before == request
    assert meaning(before) == meaning(once)


@UNHURRIED
@given(SCHEMA_AND_REQUEST)
def test_normalizing_never_makes_things_worse(case: Any) -> None:
    """A clean request stays the same, byte for byte."""
    schema, request = case

    if schema.is_clean(request):
        assert json.dumps(request) == json.dumps(schema.normalize(request))
