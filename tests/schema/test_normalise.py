"""Normalisation gives values the type that the document wants, and loses nothing."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.schema import catalog

CATALOG = catalog.load()
# A busy machine is no failure.
CALMLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


def requests(schema):
    return st.dictionaries(st.sampled_from(sorted(schema.document["properties"])), VALUES, max_size=6)


SCHEMA_AND_REQUEST = st.sampled_from(CATALOG.names).flatmap(
    lambda name: st.tuples(st.just(CATALOG.schema(name)), requests(CATALOG.schema(name)))
)


def meaning(value):
    """Reduce a value to what it means, whatever type carries it."""
    if isinstance(value, dict):
        return {key: meaning(child) for key, child in value.items()}
    if isinstance(value, list):
        return [meaning(child) for child in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower().replace("-0", "0") if value in ("-0", 0) else str(value).lower()


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"seconds": 5}, {"seconds": "5"}),
        ({"seconds": -1}, {"seconds": "-1"}),
        ({"seconds": 13}, {"seconds": "13"}),
        ({"seed": "42"}, {"seed": 42}),
        ({"seed": 42.0}, {"seed": 42}),
        ({"watermark": "TRUE"}, {"watermark": True}),
        ({"size": "720P"}, {"size": "720p"}),
        ({"ratio": "Adaptive"}, {"ratio": "adaptive"}),
    ],
)
def test_value_is_mended(given_, expected):
    """What has an exact counterpart becomes it."""
    mended = SEEDANCE.normalise(given_)

    assert expected == mended
    assert [type(value) for value in expected.values()] == [type(value) for value in mended.values()]


@pytest.mark.parametrize(
    "request_",
    [
        {"seconds": 5.0},
        {"seconds": True},
        {"seconds": "5s"},
        {"seconds": 10**5000},
        {"seed": "007"},
        {"seed": " 4"},
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
def test_value_without_exact_counterpart_is_left(request_):
    """What can't be converted without loss or guessing stays for the schema to refuse: the same object comes back."""
    assert SEEDANCE.normalise(request_) is request_


def test_items_of_media_are_mended():
    """The letter case of an enum is mended inside a list too, and the given list is not touched."""
    given_ = {"media": [{"type": "First_Frame", "url": "x"}, {"type": "last_frame", "url": "y"}]}
    before = copy.deepcopy(given_)

    mended = CATALOG.schema("wan2.7-i2v").normalise(given_)

    assert mended["media"][0] == {"type": "first_frame", "url": "x"}
    assert mended["media"][1] is given_["media"][1]
    assert before == given_


@CALMLY
@given(SCHEMA_AND_REQUEST)
def test_normalising_is_idempotent_and_keeps_the_meaning(case):
    """Twice is once; the given request is untouched; nothing changes but types and letter case."""
    schema, request = case
    before = copy.deepcopy(request)

    once = schema.normalise(request)

    assert schema.normalise(once) is once
    assert before == request
    assert meaning(before) == meaning(once)


@CALMLY
@given(SCHEMA_AND_REQUEST)
def test_normalising_never_makes_things_worse(case):
    """A request that was fine stays fine, byte for byte."""
    schema, request = case

    if schema.is_clean(request):
        assert json.dumps(request) == json.dumps(schema.normalise(request))
