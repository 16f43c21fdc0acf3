"""What an answer says that a task consumed, in every form of the pages, and never more than a line can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.wire import read_task
from runner.core.wire_vocabulary import completed_usage, read_usage
from tests.results.records import VIDEO

ARK = {
    "id": "cgt-1",
    "status": "succeeded",
    "content": {"video_url": "https://cdn.example.com/v.mp4"},
    "usage": {"completion_tokens": 108900, "total_tokens": 108900},
    "resolution": "720p",
    "duration": 5,
}
WAN3 = {
    "id": "task_1",
    "status": "completed",
    "video_url": "https://example.com/v.mp4",
    "metadata": {"video_duration": 5.0, "input_video_duration": 3.5, "fps": 30, "SR": 720, "ratio": "16:9"},
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (ARK, {"completion_tokens": 108900, "total_tokens": 108900, "seconds": 5, "resolution": "720p"}),
        (WAN3, {"seconds": 5.0, "input_seconds": 3.5, "resolution": "720p"}),
        (
            {**WAN3, "metadata": {"SR": "1080", "usage": {"duration": "10"}}},
            {"duration": "10", "resolution": "1080p"},
        ),
        (
            {"data": ARK, "code": "success"},
            {"completion_tokens": 108900, "total_tokens": 108900, "seconds": 5, "resolution": "720p"},
        ),
        ({"id": "task_1", "status": "completed"}, None),
        ({**ARK, "usage": 5, "duration": True, "resolution": "<b>"}, None),
        (
            {**ARK, "usage": {"a": {"b": 1, "c": []}, "d": [1]}},
            {"a": {"b": 1}, "seconds": 5, "resolution": "720p"},
        ),
    ],
)
def test_usage_of_an_answer(body: Any, expected: Any) -> None:
    """Tokens, seconds and the resolution are found where the pages have them; nonsense is left out."""
    assert expected == read_task(body).usage


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["usage", "metadata", "duration", "SR", "x"]), inner),
    )
)
def test_any_answer_is_survived(body: Any) -> None:
    """Whatever the answer is, the usage is None or JSON of a bounded size."""
    usage = read_usage([body])

    assert usage is None or len(json.dumps(usage, allow_nan=False)) < 100_000


def test_the_video_completes_it() -> None:
    """What the API does not say is measured; what it says stands."""
    assert {"seconds": 5.0, "resolution": "1080p"} == completed_usage(None, (VIDEO,))
    assert {"seconds": 4, "resolution": "1080p", "total_tokens": 1} == completed_usage(
        {"seconds": 4, "total_tokens": 1}, (VIDEO,)
    )
    assert completed_usage(None, ()) is None
