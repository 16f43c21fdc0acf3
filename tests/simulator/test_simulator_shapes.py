"""Answers have the documented shapes, page by page and phase by phase (facts F69, F72)."""

from __future__ import annotations

from typing import Any

import pytest
from simulator_client import SEEDANCE, start_simulator

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
async def test_a_submit_is_answered_as_its_page_shows(
    request_: dict[str, Any], keys: set[str], word: str | None
) -> None:
    """Wan's pages show a task; Seedance's show an id and nothing else."""
    async with start_simulator() as client:
        reply = await client.submit(request_)

    assert (200, keys, word) == (reply.status, reply.json.keys(), reply.json.get("status"))


@pytest.mark.parametrize(
    ("request_", "words", "place"),
    [
        (I2V, ["queued", "in_progress", "completed"], ("metadata", "url")),
        (R2V, ["queued", "in_progress", "completed"], ("metadata", "url")),
        (KF2V, ["pending", "running", "succeeded"], ("video_url",)),
        (FIRST_FRAME, ["pending", "running", "succeeded"], ("video_url",)),
        (SEEDANCE, ["queued", "running", "succeeded"], ("video_url",)),
        (SEEDANCE_1_0, ["queued", "running", "succeeded"], ("content", "video_url")),
    ],
)
async def test_a_task_moves_through_the_words_of_its_page(
    request_: dict[str, Any], words: list[str], place: tuple[str, ...]
) -> None:
    """Queued, then running, then succeeded with the address where the page has it, and nowhere before."""
    async with start_simulator() as client:
        task_id = await client.accepted(request_)
        seen = []
        for wait_s in (0, 5, 5.5):
            client.clock.now += wait_s
            seen.append((await client.poll(task_id)).json)

    assert words == [body["status"] for body in seen]
    assert ["http" in str(body.get(place[0])) for body in seen] == [False, False, True]
    assert at(seen[2], place).startswith("http://127.0.0.1:")


def at(body: Any, place: tuple[str, ...]) -> Any:
    """Follow keys."""
    for key in place:
        body = body[key]
    return body


async def test_completed_at_is_filled_while_running() -> None:
    """The trap of the unified shape: it is the row's last change, and proves nothing."""
    async with start_simulator() as client:
        task_id = await client.accepted(I2V)
        client.clock.now += 5
        body = (await client.poll(task_id)).json

    assert (body["status"], body["progress"]) == ("in_progress", 50)
    assert body["completed_at"] >= body["created_at"]


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        ({**SEEDANCE, "return_last_frame": True}, ("last_frame_url",)),
        (SEEDANCE_1_0, ("content", "last_frame_url")),
    ],
)
async def test_a_last_frame_comes_where_it_was_asked_for(
    request_: dict[str, Any], place: tuple[str, ...]
) -> None:
    """Its address leads to a PNG picture; without the wish there is none."""
    async with start_simulator() as client:
        task_id = await client.accepted(request_)
        plain_id = await client.accepted(SEEDANCE)
        client.clock.now += 100
        body, plain = (await client.poll(task_id)).json, (await client.poll(plain_id)).json
        picture = await client.fetch(at(body, place))

    assert (
        picture.status,
        picture.headers["Content-Type"],
        picture.body[:4],
    ) == (200, "image/png", b"\x89PNG")
    assert "last_frame_url" not in plain


WRONG = {"code": "X1", "message": "no luck"}


@pytest.mark.parametrize(
    ("shape", "end", "error_in", "word", "expected"),
    [
        ("unified", "failed", None, "failed", {"error": WRONG}),
        ("byteplus", "failed", None, "failed", {"metadata": {"error": WRONG}}),
        ("ark", "failed", None, "failed", {"error": WRONG}),
        ("wrapped", "failed", None, "FAILURE", {"fail_reason": "no luck"}),
        ("ali", "moderation", None, "failed", {"metadata": {"error": WRONG}}),
        ("unified", "failed", "metadata_url", "failed", {"metadata": {"url": "no luck"}}),
        ("unified", "failed", "error_text", "failed", {"error": "no luck"}),
        ("ali", "failed", "output", "failed", {"output": WRONG}),
        ("ark", "cancelled", None, "cancelled", {"error": WRONG}),
        ("byteplus", "expired", None, "expired", {"metadata": {"error": WRONG}}),
    ],
)
async def test_a_failure_is_told_where_its_shape_has_it(
    shape: str, end: str, error_in: str | None, word: str, expected: dict[str, Any]
) -> None:
    """Each end has its word, and its reason at the documented place or at that of the scenario."""
    where = f", error_in: {error_in}" if error_in else ""
    task = f"rules: [{{task: {{shape: {shape}, end: {end}, code: X1, message: no luck{where}}}}}]"
    async with start_simulator(task) as client:
        task_id = await client.accepted()
        client.clock.now += 100
        body = (await client.poll(task_id)).json
    body = body.get("data", body)

    assert word == body["status"]
    assert "video_url" not in str(body)
    key, value = next(iter(expected.items()))
    assert body[key] == value or body[key] == {**body[key], **value}


async def test_the_ali_shape_has_no_place_for_an_error() -> None:
    """As documented: the word failed, and nothing that says why."""
    async with start_simulator("rules: [{task: {shape: ali, end: failed}}]") as client:
        task_id = await client.accepted()
        client.clock.now += 100
        body = (await client.poll(task_id)).json

    assert body.keys() == OBJECT


async def test_the_wrapped_form() -> None:
    """The task stands in `data`, with words in capitals and progress as text (fact F72)."""
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
    assert (done["status"], done["progress"]) == ("SUCCESS", "100%")
    assert done["result_url"] == done["data"]["content"]["video_url"]


async def test_ids_may_be_odd() -> None:
    """`task_id` alone, or an `id` that queries don't know beside one that they do."""
    rules = "rules: [{match: {prompt: one}, task: {ids: task_id}}, {match: {prompt: two}, task: {ids: different}}]"
    async with start_simulator(rules) as client:
        one = (await client.submit({**SEEDANCE, "prompt": "one"})).json
        two = (await client.submit({**SEEDANCE, "prompt": "two"})).json
        unknown, known = await client.poll(two["id"]), await client.poll(two["task_id"])

    assert {"task_id"} == one.keys()
    assert (unknown.status, known.status) == (400, 200)
    assert unknown.json["code"] == "task_not_exist"


async def test_words_of_other_vocabularies() -> None:
    """A scenario may put any word in the place of a phase's own."""
    async with start_simulator(
        "rules: [{task: {words: {running: ' Processing ', succeeded: Success}}}]"
    ) as client:
        task_id = await client.accepted()
        words = []
        for _ in range(2):
            client.clock.now += 6
            words.append((await client.poll(task_id)).json["status"])

    assert words == [" Processing ", "Success"]
