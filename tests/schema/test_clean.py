"""The fast check and the explanation agree on which requests are clean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.schema import catalog
from runner.schema.request_schema import LONG_MEDIA_CHARS

CATALOG = catalog.load_catalog()
URL = "https://example.com/a.png"
MODELS = [*CATALOG.models, "other", ""]
FIELDS = {
    "model": st.sampled_from(MODELS),
    "prompt": st.sampled_from(["A kitten", "", "猫" * 501, "x" * 801, "cat " * 1001, "c " * 600, 5]),
    "negative_prompt": st.sampled_from(["blur", "", "x" * 501]),
    "image": st.sampled_from(
        [
            URL,
            "a.png",
            "data:image/png;base64,AA",
            "QUJD" * 40,
            "asset://x",
            "oss://b/x",
            "",
            None,
            [URL],
            "https://x/\n",
            "https://x/ y",
        ]
    ),
    "images": st.lists(st.sampled_from([URL, URL + "?b", "a.png", 5]), max_size=3),
    "media": st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["first_frame", "last_frame", "driving_audio", "text", "first_clip"])},
            optional={
                "url": st.sampled_from([URL, "x", "data:image/png;base64,A"]),
                "text": st.sampled_from(["A cat", "", "猫" * 501]),
            },
        ),
        max_size=4,
    ),
    "subject_reference": st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["character", "dog", ""])},
            optional={"image": st.lists(st.sampled_from([URL, "x"]), max_size=2)},
        ),
        max_size=2,
    ),
    "seconds": st.sampled_from(["-1", "1", "2", "5", "12", "13", "15", "16", 5, 5.5, None]),
    "size": st.sampled_from(["480P", "720P", "1080P", "480p", "720p", "1080p", "4k", 720]),
    "ratio": st.sampled_from(["16:9", "adaptive", "2:1", 969]),
    "seed": st.sampled_from(
        [-2, -1, 0, 2147483647, 2147483648, 4294967295, 4294967296, 1.0, 1.5, True, "1", 10**30]
    ),
    **{
        key: st.sampled_from([True, False, "true", 1])
        for key in (
            "watermark",
            "camera_fixed",
            "generate_audio",
            "draft",
            "return_last_frame",
            "prompt_extend",
        )
    },
    "seeds": st.just(1),
}


@st.composite
def cases(draw: st.DrawFn) -> Any:
    """Change a few fields of a document's example, so that many requests are nearly valid."""
    schema = CATALOG.schema(draw(st.sampled_from(CATALOG.names)))
    request = dict(schema.document["x-example"])
    for key in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True)):
        if key in schema.document["properties"] or draw(st.integers(0, 5)) == 0:
            request[key] = draw(FIELDS[key])
    for key in draw(st.lists(st.sampled_from(sorted(request)), max_size=1)):
        del request[key]
    return schema, request


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.slow
@given(cases())
def test_clean_means_no_findings(case: Any) -> None:
    """A request is clean exactly if it has no findings, normalized or not."""
    schema, request = case
    normalized = schema.normalize(request)

    assert schema.is_clean(request) == (schema.findings(request) == [])
    assert schema.is_clean(normalized) == (schema.findings(normalized) == [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({5: "x"}, "the key 5 is a number, not text"),
        (
            {"image": "data:image/png;base64," + "A" * 10_000_000},
            "the request has 10 MB; more than 10 MB may be refused",
        ),
        (
            {"image": "data:image/png;base64," + "A" * 64_000_000},
            "the request has 64 MB; more than 64 MB is refused",
        ),
    ],
    ids=["key", "big", "too-big"],
)
def test_unusual_findings(change: dict[str, Any], message: str) -> None:
    """A key that JSON can't carry, and a body that is too large, are findings and no traceback."""
    schema = CATALOG.schema("seedance-1")
    request = {**schema.document["x-example"], **change}

    assert not schema.is_clean(request)
    assert [message] == [finding.message for finding in schema.findings(request)]


@pytest.mark.parametrize(
    "change",
    [{"image": "data:image/png;base64," + "A" * 2 * LONG_MEDIA_CHARS}, {"prompt": "A kitten runs. " * 100}],
    ids=["media", "prompt"],
)
def test_long_texts_are_clean(change: dict[str, Any]) -> None:
    """A large image and a long prompt within the limits are clean, though they have to be counted."""
    schema = CATALOG.schema("seedance-1")

    assert schema.is_clean({**schema.document["x-example"], **change})
