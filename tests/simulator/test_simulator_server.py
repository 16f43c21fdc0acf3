"""The gateway's routes, the asset origin, and the ledger."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simulator_client import KEY, SEEDANCE, start_simulator

from runner.errors import UsageError
from runner.simulator.server import Simulator, serve
from runner.simulator.state import digest_of

FIRST_FRAME = {"prompt": "A kitten", "image": "https://example.com/a.png", "seconds": "5"}


@pytest.mark.parametrize(
    ("scenario", "headers", "status"),
    [
        ("", KEY, 200),
        ("", {}, 401),
        ("", {"Authorization": "Bearer "}, 401),
        ("keys: sk-sim-key", KEY, 200),
        ("keys: [sk-sim-other]", KEY, 401),
    ],
)
async def test_a_key_is_needed(scenario: str, headers: dict[str, str], status: int) -> None:
    """Any key will do, unless the scenario names them."""
    async with start_simulator(scenario) as client:
        replies = [
            await client.request("GET", path, headers=headers) for path in ("/v1/models", "/v1/videos/task_x")
        ]

    assert [status, status if status == 401 else 400] == [reply.status for reply in replies]
    if status == 401:
        assert replies[0].json["error"]["code"] == "access_denied"
        assert "(request id: " in replies[0].json["error"]["message"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({**SEEDANCE, "seconds": "13"}, "seconds"),
        ({**SEEDANCE, "size": "720P"}, "size"),
        ({**SEEDANCE, "model": "seedance-9"}, "seedance-9"),
        ({"prompt": "A kitten"}, "model"),
        ({"model": ["x"]}, "model"),
        ({"model": "wan2.7-i2v", "media": []}, "media"),
        ([], "the body is not a JSON object"),
    ],
)
async def test_a_body_that_breaks_the_document_is_refused(request_: Any, message: str) -> None:
    """400 with a sentence, in the form that the model's page has, and nothing in the ledger."""
    async with start_simulator() as client:
        reply = await client.submit(request_)

        assert reply.status == 400
        assert message in (reply.json.get("message") or reply.json["error"]["message"])
        assert client.simulator.ledger.accepted == []


@pytest.mark.parametrize(
    "request_",
    [
        {**SEEDANCE, "a_new_field": 1},
        {**FIRST_FRAME, "model": "first-frame-video-model"},
        {**FIRST_FRAME, "model": "x"},
    ],
)
async def test_what_the_gateway_lets_pass_is_accepted(request_: Any) -> None:
    """Fields that no document lists, and a first frame for a model of any name."""
    async with start_simulator() as client:
        assert (await client.submit(request_)).status == 200


async def test_a_body_that_is_not_json_is_refused() -> None:
    """400 with an error object."""
    async with start_simulator() as client:
        reply = await client.request("POST", "/v1/videos", data=b"{")

    assert (reply.status, reply.json["error"]["code"]) == (400, "bad_request_body")


async def test_a_body_of_megabytes_is_read() -> None:
    """Pictures travel inside requests."""
    body = json.dumps({**SEEDANCE, "image": "data:image/png;base64," + "A" * 4_000_000}).encode()
    async with start_simulator() as client:
        assert (await client.request("POST", "/v1/videos", data=io.BytesIO(body))).status == 200


async def test_the_models_are_listed() -> None:
    """Every model of the documents, with the type of its endpoint."""
    async with start_simulator() as client:
        models = (await client.request("GET", "/v1/models")).json["data"]

    assert {"wan2.7-i2v", "wan2.2-kf2v-flash", "seedance-1-5-pro-251215"} <= {model["id"] for model in models}
    assert models[0]["supported_endpoint_types"] == ["openai-video"]


async def test_what_does_not_exist_is_not_found() -> None:
    """Unknown routes and methods are 404, unknown tasks 400 task_not_exist, unknown content 404."""
    async with start_simulator() as client:
        route = await client.request("DELETE", "/v1/videos/task_x")
        task = await client.poll("task_x")
        content = await client.request("GET", "/v1/videos/task_x/content")

    assert (route.status, task.status, content.status) == (404, 400, 404)
    assert task.json == {"code": "task_not_exist", "message": "task_not_exist", "data": None}


async def test_content_is_there_once_the_task_succeeded() -> None:
    """400 task_not_ready before; then the whole video, whatever range was asked for."""
    async with start_simulator() as client:
        task_id = await client.accepted()
        early = await client.request("GET", f"/v1/videos/{task_id}/content")
        client.clock.now += 100
        late = await client.request(
            "GET", f"/v1/videos/{task_id}/content", headers={**KEY, "Range": "bytes=5-"}
        )

    assert (early.status, early.json["code"]) == (400, "task_not_ready")
    assert (late.status, late.headers["Content-Type"], late.body[4:8]) == (200, "video/mp4", b"ftyp")
    assert "ETag" not in late.headers


async def test_an_asset_comes_in_ranges() -> None:
    """206 with the part, 200 where If-Range no longer holds, 416 past the end; the same ETag every time."""
    async with start_simulator() as client:
        url = await client.video_url()
        whole = await client.fetch(url)
        part = await client.fetch(url, Range="bytes=100-199")
        rest = await client.fetch(url, Range="bytes=100-", **{"If-Range": whole.headers["ETag"]})
        tail = await client.fetch(url, Range="bytes=-7")
        other = await client.fetch(url, Range="bytes=100-", **{"If-Range": '"another"'})
        past = await client.fetch(url, Range="bytes=99999999-")
        odd = await client.fetch(url, Range="bytes=9-5")
    size = len(whole.body)

    assert (whole.status, whole.body[4:8], whole.headers["Accept-Ranges"]) == (200, b"ftyp", "bytes")
    assert (206, f"bytes 100-199/{size}") == (part.status, part.headers["Content-Range"])
    assert whole.body[100:200] == part.body
    assert (206, whole.body[100:]) == (rest.status, rest.body)
    assert (206, whole.body[-7:]) == (tail.status, tail.body)
    assert (200, whole.body) == (other.status, other.body) == (odd.status, odd.body)
    assert (416, f"bytes */{size}") == (past.status, past.headers["Content-Range"])
    assert whole.headers["ETag"] == part.headers["ETag"]


async def test_a_signed_address_expires_and_can_be_renewed() -> None:
    """403 after its time, and with a signature that is not its own; a query gives a fresh one."""
    async with start_simulator("url_valid_s: 60") as client:
        url = await client.video_url()
        good = await client.fetch(url)
        forged = await client.fetch(url.replace("Signature=", "Signature=0"))
        client.clock.now += 61
        late = await client.fetch(url)
        fresh = (await client.poll(client.simulator.ledger.accepted[0].task_id)).json["video_url"]
        renewed = await client.fetch(fresh)

    assert [reply.status for reply in (good, forged, late, renewed)] == [200, 403, 403, 200]
    assert b"AccessDenied" in late.body
    assert url != fresh


async def test_a_key_that_reaches_an_asset_origin_is_noticed() -> None:
    """The ledger counts it: no client should ever send its key there."""
    async with start_simulator() as client:
        url = await client.video_url()
        await client.fetch(url)
        before = client.simulator.ledger.asset_requests_with_key
        await client.fetch(url, **KEY)

        assert (before, client.simulator.ledger.asset_requests_with_key) == (0, 1)


async def test_the_rate_limit_lets_an_even_stream_through() -> None:
    """So many a second, with a burst; 429 beyond it, and nothing in the ledger for these."""
    async with start_simulator("rate_limit: {submit_per_s: 2, burst: 2}") as client:
        at_once = [(await client.submit()).status for _ in range(4)]
        client.clock.now += 0.5
        later = [(await client.submit()).status for _ in range(2)]

        assert at_once == [200, 200, 429, 429]
        assert later == [200, 429]
        assert len(client.simulator.ledger.accepted) == 3


async def test_queries_have_a_rate_of_their_own() -> None:
    """Polls beyond it are 429; submissions are not counted with them."""
    async with start_simulator("rate_limit: {poll_per_s: 1}") as client:
        task_id = await client.accepted()

        assert [(await client.poll(task_id)).status for _ in range(2)] == [200, 429]


async def test_an_outage_has_its_time() -> None:
    """Within its window every route of the API gives its answer, and nothing is accepted."""
    async with start_simulator(
        "outages: [{from_s: 10, to_s: 20}, {from_s: 30, to_s: 40, answer: unavailable}]"
    ) as client:
        statuses = []
        for _ in range(5):
            statuses.append((await client.submit()).status)
            client.clock.now += 10

        assert statuses == [200, 502, 200, 503, 200]
        assert len(client.simulator.ledger.accepted) == 3


async def test_the_ledger_says_what_was_paid_for() -> None:
    """An entry for every accepted POST, with the digest of its request, a label, and the key as a fingerprint."""
    second = {**SEEDANCE, "prompt": "job two"}
    async with start_simulator("job_label: 'job (\\S+)'") as client:
        for request in (SEEDANCE, second, second):
            await client.submit(request)
        await client.submit({**SEEDANCE, "seconds": "99"})
        shown = (await client.request("GET", "/simulator/ledger", headers={})).json
    ledger = client.simulator.ledger

    assert {digest_of(SEEDANCE): 1, digest_of(second): 2} == ledger.count_by("digest")
    assert ledger.count_by("label") == {None: 1, "two": 2}
    assert [entry.number for entry in ledger.accepted] == [1, 2, 3]
    assert ledger.requests["POST /v1/videos"] == 4
    assert [entry.task_id for entry in ledger.accepted] == [entry["task_id"] for entry in shown["accepted"]]
    assert "sk-sim-key" not in json.dumps(shown)


async def test_tasks_outlive_the_simulator_in_its_ledger(tmp_path: Path) -> None:
    """Started again with the same file it knows the tasks, gives the same video, and goes on counting."""
    path = tmp_path / "new" / "ledger.jsonl"
    async with start_simulator(ledger_path=path) as client:
        task_id = await client.accepted({**SEEDANCE, "size": "720p"})
        client.clock.now += 100
        before = await client.request("GET", f"/v1/videos/{task_id}/content")
    with path.open("ab") as file:
        file.write(b'{"torn')
    async with start_simulator(ledger_path=path) as client:
        client.clock.now += 100
        after = await client.request("GET", f"/v1/videos/{task_id}/content")
        await client.submit()

    assert before.body == after.body
    assert [json.loads(line)["number"] for line in path.read_bytes().splitlines()] == [1, 2]


async def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    """It is refused by name, and not a byte of it changes."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"job_id": "sky"}\n')

    with pytest.raises(UsageError, match="is not a ledger of the simulator"):
        await Simulator(ledger_path=path).start()

    assert path.read_bytes() == b'{"job_id": "sky"}\n'


async def test_it_stops_at_once_even_while_an_answer_hangs() -> None:
    """Whoever waits for an answer is cut off; the job that was made stays in the ledger."""
    async with start_simulator("rules: [{submit: hang}]") as client:
        waiting = asyncio.create_task(client.submit())
        for _ in range(100):
            if not client.simulator.ledger.accepted:
                await client.request("GET", "/simulator/ledger")
        started = time.monotonic()
        await client.simulator.stop()

        with pytest.raises(aiohttp.ClientError):
            await waiting
        assert time.monotonic() - started < 5
        assert len(client.simulator.ledger.accepted) == 1


async def test_serve_runs_until_it_is_cancelled() -> None:
    """The address is told once it can be used, and is free again afterwards."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(None, port=0, ledger_path=None, ready=told.set_result))
    url = await told
    serving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await serving
    async with Simulator(port=int(url.rpartition(":")[2])) as again:
        assert url == again.base_url
