"""Answers have the documented shapes, page by page and phase by phase (facts F69, F72)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulator.simulator_client import SEEDANCE, start_simulator

I2V = {
    "model": "wan2.7-i2v",
    "media": [
        {"type": "first_frame", "url": "https://example.com/a.png"},
        {"type": "last_frame", "url": "https://example.com/b.png"},
    ],
}
KF2V = {
    "model": "wan2.2-kf2v-flash",
    "prompt": "A kitten",
    "images": ["https://example.com/a.png", "https://example.com/b.png"],
}
FIRST_FRAME = {"model": "first-frame-video-model", "prompt": "A kitten", "image": "https://example.com/a.png"}
R2V = {
    "model": "wan2.7-r2v",
    "prompt": "A kitten",
    "subject_reference": [{"type": "character", "image": ["https://example.com/a.png"]}],
}
SEEDANCE_1_0 = {"model": "seedance-1-0-pro-250528", "prompt": "A kitten", "return_last_frame": True}
OBJECT = {"id", "task_id", "object", "model", "status", "progress", "created_at"}


@pytest.mark.parametrize(
    ("request_", "keys", "word"),
    [
        (I2V, OBJECT, "queued"),
        (R2V, OBJECT, "queued"),
        (KF2V, OBJECT, "pending"),
        (FIRST_FRAME, OBJECT, "pending"),
        (SEEDANCE, {"id"}, None),
        (SEEDANCE_1_0, {"id"}, None),
    ],
)
async def test_a_submission_is_answered_as_documented(
    request_: dict[str, Any], keys: set[str], word: str | None
) -> None:
    """The pages of Wan show a task; those of Seedance show only an id."""
    async with start_simulator() as client:
        response = await client.submit(request_)

    assert (200, keys, word) == (response.status, response.json.keys(), response.json.get("status"))


@pytest.mark.parametrize(
    ("request_", "words", "path"),
    [
        (I2V, ["queued", "in_progress", "completed"], ("metadata", "url")),
        (R2V, ["queued", "in_progress", "completed"], ("metadata", "url")),
        (KF2V, ["pending", "running", "succeeded"], ("video_url",)),
        (FIRST_FRAME, ["pending", "running", "succeeded"], ("video_url",)),
        (SEEDANCE, ["queued", "running", "succeeded"], ("video_url",)),
        (SEEDANCE_1_0, ["queued", "running", "succeeded"], ("content", "video_url")),
    ],
)
async def test_a_task_has_the_status_words_of_its_page(
    request_: dict[str, Any], words: list[str], path: tuple[str, ...]
) -> None:
    """It is queued, running, then succeeded, and only then has a URL, in the documented field."""
    async with start_simulator() as client:
        task_id = await client.accepted(request_)
        seen = []
        for wait_s in (0, 5, 5.5):
            client.clock.now += wait_s
            seen.append((await client.poll(task_id)).json)

    assert words == [body["status"] for body in seen]
    assert [False, False, True] == ["http" in str(body.get(path[0])) for body in seen]
    assert value_at(seen[2], path).startswith("http://127.0.0.1:")


def value_at(body: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path of keys."""
    for key in path:
        body = body[key]
    return body


async def test_completed_at_exists_while_running() -> None:
    """In the unified shape it is the time of the last change, and does not mean the end."""
    async with start_simulator() as client:
        task_id = await client.accepted(I2V)
        client.clock.now += 5
        body = (await client.poll(task_id)).json

    assert ("in_progress", 50) == (body["status"], body["progress"])
    assert body["completed_at"] >= body["created_at"]


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ({**SEEDANCE, "return_last_frame": True}, ("last_frame_url",)),
        (SEEDANCE_1_0, ("content", "last_frame_url")),
    ],
)
async def test_a_last_frame_has_a_url_if_it_is_requested(
    request_: dict[str, Any], path: tuple[str, ...]
) -> None:
    """The URL leads to a PNG picture; without the request there is none."""
    async with start_simulator() as client:
        task_id = await client.accepted(request_)
        plain_id = await client.accepted(SEEDANCE)
        client.clock.now += 100
        body, plain = (await client.poll(task_id)).json, (await client.poll(plain_id)).json
        picture = await client.fetch(value_at(body, path))

    assert (
        picture.status,
        picture.headers["Content-Type"],
        picture.body[:4],
    ) == (200, "image/png", b"\x89PNG")
    assert "last_frame_url" not in plain


ERROR = {"code": "X1", "message": "no luck"}


@pytest.mark.parametrize(
    ("shape", "end", "error_in", "word", "expected"),
    [
        ("unified", "failed", None, "failed", {"error": ERROR}),
        ("byteplus", "failed", None, "failed", {"metadata": {"error": ERROR}}),
        ("ark", "failed", None, "failed", {"error": ERROR}),
        ("wrapped", "failed", None, "FAILURE", {"fail_reason": "no luck"}),
        ("ali", "moderation", None, "failed", {"metadata": {"error": ERROR}}),
        ("unified", "failed", "metadata_url", "failed", {"metadata": {"url": "no luck"}}),
        ("unified", "failed", "error_text", "failed", {"error": "no luck"}),
        ("ali", "failed", "output", "failed", {"output": ERROR}),
        ("ark", "cancelled", None, "cancelled", {"error": ERROR}),
        ("byteplus", "expired", None, "expired", {"metadata": {"error": ERROR}}),
    ],
)
async def test_a_failure_is_where_its_shape_has_it(
    shape: str, end: str, error_in: str | None, word: str, expected: dict[str, Any]
) -> None:
    """Each end has its status word, and its reason in the documented field or in that of the scenario."""
    location = f", error_in: {error_in}" if error_in else ""
    task = f"rules: [{{task: {{shape: {shape}, end: {end}, code: X1, message: no luck{location}}}}}]"
    async with start_simulator(task) as client:
        task_id = await client.accepted()
        client.clock.now += 100
        body = (await client.poll(task_id)).json
    body = body.get("data", body)

    assert word == body["status"]
    assert "video_url" not in str(body)
    key, value = next(iter(expected.items()))
    assert body[key] == value or body[key] == {**body[key], **value}


async def test_the_ali_shape_has_no_field_for_an_error() -> None:
    """As documented, there is the status failed without a reason."""
    async with start_simulator("rules: [{task: {shape: ali, end: failed}}]") as client:
        task_id = await client.accepted()
        client.clock.now += 100
        body = (await client.poll(task_id)).json

    assert OBJECT == body.keys()


async def test_the_wrapped_form() -> None:
    """The task is in `data`, with words in capitals and progress as text (fact F72)."""
    async with start_simulator("rules: [{task: {shape: wrapped}}]") as client:
        task_id = await client.accepted()
        client.clock.now += 5
        running = (await client.poll(task_id)).json
        client.clock.now += 50
        done = (await client.poll(task_id)).json["data"]

    assert (
        running["code"],
        running["data"]["status"],
        running["data"]["progress"],
    ) == ("success", "IN_PROGRESS", "50%")
    assert ("SUCCESS", "100%") == (done["status"], done["progress"])
    assert done["result_url"] == done["data"]["content"]["video_url"]


async def test_ids_may_differ_from_the_documentation() -> None:
    """There is only `task_id`, or an `id` that polls don't know next to a `task_id` that they do."""
    rules = "rules: [{match: {prompt: one}, task: {ids: task_id}}, {match: {prompt: two}, task: {ids: different}}]"
    async with start_simulator(rules) as client:
        one = (await client.submit({**SEEDANCE, "prompt": "one"})).json
        two = (await client.submit({**SEEDANCE, "prompt": "two"})).json
        unknown, known = await client.poll(two["id"]), await client.poll(two["task_id"])

    assert {"task_id"} == one.keys()
    assert (400, 200) == (unknown.status, known.status)
    assert "task_not_exist" == unknown.json["code"]


async def test_status_words_can_be_replaced() -> None:
    """A scenario can choose any word for a phase."""
    async with start_simulator(
        "rules: [{task: {words: {running: ' Processing ', succeeded: Success}}}]"
    ) as client:
        task_id = await client.accepted()
        words = []
        for _ in range(2):
            client.clock.now += 6
            words.append((await client.poll(task_id)).json["status"])

    assert [" Processing ", "Success"] == words
