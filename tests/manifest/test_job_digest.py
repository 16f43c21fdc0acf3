"""The digest of a request."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.model import Json
from runner.manifest.unchecked_job import DigestTemplate, request_digest

VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["\ud800", '"$file"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
REQUESTS = st.dictionaries(st.text(), VALUES, max_size=4)


def _shuffled(value: Json, order: random.Random) -> Json:
    if isinstance(value, dict):
        items = [(key, _shuffled(item, order)) for key, item in value.items()]
        order.shuffle(items)
        return dict(items)
    return [_shuffled(item, order) for item in value] if isinstance(value, list) else value


@settings(max_examples=50)
@given(REQUESTS, st.randoms(use_true_random=False))
def test_order_of_keys(request: dict[str, Json], order: random.Random) -> None:
    """A request with its keys in another order has the same digest."""
    assert request_digest(request) == request_digest(_shuffled(request, order))


@settings(max_examples=100)
@given(REQUESTS, st.data())
def test_digest_template(request: dict[str, Json], data: st.DataObject) -> None:
    """A digest by way of a template is the digest of the whole request."""
    varying = data.draw(st.sets(st.sampled_from(sorted(request))) if request else st.just(set[str]()))
    other = {key: data.draw(VALUES) if key in varying else value for key, value in request.items()}

    assert request_digest(other) == DigestTemplate(request, varying).digest(other)


def test_frozen() -> None:
    """Stores have digests for years: this one must never change."""
    request = {"model": "m", "prompt": '小猫\u007f\n"', "seed": 2**70, "x": [1e16, 1e-7, 0.1, True, None]}

    assert "1cf19b90aa4885a1d3232f831e88a41c" == request_digest(request)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_not_json(number: float) -> None:
    """A request with a number that JSON does not have has no digest."""
    with pytest.raises(ValueError, match="JSON compliant"):
        request_digest({"seed": number})


def test_files_count_by_content() -> None:
    """A local file that was moved is the same; a changed one is not."""

    def request(path: str, sha256: str) -> dict[str, Json]:
        return {"image": {"$file": path, "sha256": sha256, "media_type": "image/png", "bytes": 9}}

    assert request_digest(request("/a.png", "1f")) == request_digest(request("/b.png", "1f"))
    assert request_digest(request("/a.png", "1f")) != request_digest(request("/a.png", "2e"))
