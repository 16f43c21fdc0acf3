"""Answers of real shapes, mutated: nothing is paid for twice, no id is lost, every video is fetched."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runner.core.classify import classify_poll, classify_submit
from runner.core.outcomes import Accepted, Ambiguous, Polled, RemoteStatus, submit_transition

ID, FILM = "task_01ABC", "https://cdn.example/v.mp4"
ID_KEYS = ("id", "task_id", "taskId", "video_id", "job_id", "request_id")
LAYERS = ("", "data", "output", "task", "result", "data[0]")
NOISE_KEYS = ("message", "msg", "prompt", "created_at", "progress", "model", "usage", "object", "seconds")
NOISE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=30),
    st.lists(st.integers()),
)
NOISES = st.dictionaries(st.sampled_from(NOISE_KEYS), NOISE, max_size=5)
MONEY = st.sampled_from(
    ["your balance is insufficient", "recharge", "invalid_api_key", "余额不足", "no channel"]
)
TRAILING = st.sampled_from([b"", b"\n", b"GARBAGE", b'\n{"code": "x", "message": "y"}', b"\x00\x01"])
LEADING = st.sampled_from([b"", b"\xef\xbb\xbf", b"\n  "])
PLACES = st.sampled_from(
    [
        {"metadata": {"url": FILM}},
        {"video_url": FILM},
        {"content": {"video_url": FILM}},
        {"url": FILM},
        {"video": {"url": FILM}},
        {"videos": [{"url": FILM}]},
        {"video_url": [FILM]},
        {"result_url": FILM},
        {"content": {"url": FILM}},
        {"resultJson": json.dumps({"resultUrls": [FILM]})},
    ]
)
DONE = st.sampled_from(
    ["succeeded", "COMPLETED", "success", "Done", "complete", "finished", "ok", " Succeed ", "whatever"]
)


def placed(layer: str, fields: dict[str, Any], around: dict[str, Any]) -> dict[str, Any]:
    """Put the fields of a task at the top, or into an object inside."""
    if not layer:
        return {**around, **fields}
    return {**around, layer.removesuffix("[0]"): [fields] if layer.endswith("[0]") else fields}


def written(document: Any, leading: bytes, trailing: bytes, *, gbk: bool) -> bytes:
    """Write a document as badly as some gateways do."""
    text = json.dumps(document, ensure_ascii=not gbk)
    if gbk:
        return text.encode("gb18030", "replace") + trailing
    return leading + text.encode() + trailing


@given(
    st.sampled_from(ID_KEYS), st.sampled_from(LAYERS), NOISES, NOISES, LEADING, TRAILING, st.booleans(),
    st.sampled_from([200, 201, 202]),
)  # fmt: skip
def test_id_is_never_lost(
    key: str,
    layer: str,
    inside: dict[str, Any],
    around: dict[str, Any],
    leading: bytes,
    trailing: bytes,
    gbk: bool,
    status: int,
) -> None:
    """
    An id under any known name and in any known place makes the job accepted; the request's own id at the top only.
    """
    layer = "" if key == "request_id" else layer
    body = written(placed(layer, {**inside, key: ID}, around), leading, trailing, gbk=gbk)

    outcome = classify_submit(status, {}, body, 0.0)

    assert isinstance(outcome, Accepted), outcome
    assert ID == outcome.task.ids[0]


@given(
    DONE,
    PLACES,
    st.sampled_from(["status", "task_status", "state"]),
    st.sampled_from(LAYERS),
    NOISES,
    LEADING,
    TRAILING,
)
def test_success_is_always_fetched(
    word: str,
    place: dict[str, Any],
    key: str,
    layer: str,
    noise: dict[str, Any],
    leading: bytes,
    trailing: bytes,
) -> None:
    """
    Any word of success, or a word that nobody knows, beside an address of a video is a success with that address.
    """
    document = placed(layer, {**noise, "id": ID, key: word, **place}, {})

    outcome = classify_poll(200, {}, written(document, leading, trailing, gbk=False), 0.0)

    assert isinstance(outcome, Polled)
    assert (RemoteStatus.SUCCEEDED, FILM) == (outcome.task.status, outcome.task.video_urls[0])


@given(NOISES, MONEY, st.sampled_from(["message", "msg", "detail", "fail_reason", "error"]),
       st.sampled_from([200, 201, 202, 204, 206, 408, 500, 502, 503, 504, 524]), TRAILING)  # fmt: skip
def test_wording_frees_no_doubt(
    noise: dict[str, Any], words: str, key: str, status: int, trailing: bytes
) -> None:
    """
    Whatever a success without an id, a 408 or a 5xx says, it is never submitted again by itself.
    """
    body = written({**noise, key: words}, b"", trailing, gbk=False)

    outcome = classify_submit(status, {}, body, 0.0)

    assert isinstance(outcome, Ambiguous)
    assert "uncertain" == submit_transition(outcome).attempt_outcome


@given(st.data(), st.sampled_from([200, 303, 400, 402, 408, 429, 500, 503]))
def test_cut_and_changed_bytes(data: st.DataObject, status: int) -> None:
    """
    A real answer with some bytes changed or missing: no exception, and accepted only with an id.
    """
    document = {
        "code": 0,
        "data": {"task_id": ID, "status": "SUCCESS", "data": {"content": {"video_url": FILM}}},
    }
    body = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])

    submitted = classify_submit(status, {}, cut, 0.0)
    classify_poll(status, {}, cut, 0.0, base_url="https://api.example")

    assert isinstance(submitted, Accepted) <= (status in (200, 303) and b"id" in cut)
