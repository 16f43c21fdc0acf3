"""Reading tasks from any JSON at all."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from runner.core.outcomes import RemoteStatus
from runner.core.wire import read_task
from tests.core.test_wire import URL

KEYS = st.sampled_from(
    [
        "id",
        "task_id",
        "status",
        "progress",
        "metadata",
        "url",
        "video_url",
        "content",
        "data",
        "code",
        "output",
        "results",
        "error",
        "message",
        "fail_reason",
        "detail",
        "last_frame_url",
        "completed_at",
        "type",
        "request_id",
    ]
)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**200, max_value=10**400)
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=()))
    | st.sampled_from(
        [
            URL,
            "succeeded",
            "failed",
            "success",
            "task_1",
            "http://[",
            "https://a:b/",
            "50%",
            "{",
            '{"error": {}}',
        ]
    )
)


HOSTILE = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=30,
)


@given(HOSTILE)
def test_hostile_json_never_succeeds_by_accident(body: Any) -> None:
    """
    Whatever JSON arrives: no exception, success only by the status, only http(s) URLs.
    """
    task = read_task(body)

    if task.status is RemoteStatus.SUCCEEDED:
        assert task.raw_status is not None
        assert task.video_urls or task.raw_status.lower() in {"succeeded", "completed", "success", "succeed"}
    else:
        assert () == task.video_urls
    for url in (*task.video_urls, *task.last_frame_urls):
        parts = urlsplit(url)
        assert parts.scheme in {"http", "https"}
        assert parts.hostname
    assert (task.error is not None) == (task.status in {"failed", "cancelled", "expired"})
    if task.error is not None:
        assert 0 < len(task.error.message) <= 500
        assert task.error.message.isprintable()
