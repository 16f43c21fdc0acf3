"""The gateway's routes, the asset origin, and the ledger."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from runner.errors import UsageError
from runner.simulator.server import Simulator, serve
from runner.simulator.state import request_digest
from tests.simulator.simulator_client import KEY, SEEDANCE, SimulatorClient, start_simulator

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
    """Any key is accepted, unless the scenario lists keys."""
    async with start_simulator(scenario) as client:
        responses = [
            await client.request("GET", path, headers=headers) for path in ("/v1/models", "/v1/videos/task_x")
        ]

    assert [status, status if status == 401 else 400] == [response.status for response in responses]
    if status == 401:
        assert "access_denied" == responses[0].json["error"]["code"]
        assert "(request id: " in responses[0].json["error"]["message"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({**SEEDANCE, "seconds": "13"}, "seconds"),
        ({**SEEDANCE, "size": "720P"}, "size"),
        ({"prompt": "A kitten"}, "model"),
        ({"model": ["x"]}, "model"),
        ({"model": "wan2.7-i2v", "media": []}, "media"),
        ([], "the body is not a JSON object"),
    ],
)
async def test_an_invalid_body_is_refused(request_: Any, message: str) -> None:
    """The answer is 400 with a message in the form of the model's page, and nothing is in the ledger."""
    async with start_simulator() as client:
        response = await client.submit(request_)

        assert 400 == response.status
        assert message in (response.json.get("message") or response.json["error"]["message"])
        assert [] == client.simulator.ledger.accepted


@pytest.mark.parametrize(
    "request_",
    [
        {**SEEDANCE, "a_new_field": 1},
        {**FIRST_FRAME, "model": "first-frame-video-model"},
        {**FIRST_FRAME, "model": "x"},
        {**SEEDANCE, "model": "seedance-9"},
    ],
)
async def test_what_the_gateway_ignores_is_accepted(request_: Any) -> None:
    """Undocumented fields are accepted, and a first frame for a model of any name."""
    async with start_simulator() as client:
        assert 200 == (await client.submit(request_)).status


async def test_a_body_that_is_not_json_is_refused() -> None:
    """The answer is 400 with an error object."""
    async with start_simulator() as client:
        response = await client.request("POST", "/v1/videos", data=b"{")

    assert (400, "bad_request_body") == (response.status, response.json["error"]["code"])


async def test_a_body_of_megabytes_is_read() -> None:
    """Requests may contain pictures."""
    body = json.dumps({**SEEDANCE, "image": "data:image/png;base64," + "A" * 4_000_000}).encode()
    async with start_simulator() as client:
        assert 200 == (await client.request("POST", "/v1/videos", data=io.BytesIO(body))).status


async def test_the_models_are_listed() -> None:
    """The answer has every documented model with the type of its endpoint."""
    async with start_simulator() as client:
        models = (await client.request("GET", "/v1/models")).json["data"]

    assert {"wan2.7-i2v", "wan2.2-kf2v-flash", "seedance-1-5-pro-251215"} <= {model["id"] for model in models}
    assert ["openai-video"] == models[0]["supported_endpoint_types"]


async def test_what_does_not_exist_is_not_found() -> None:
    """Unknown routes and methods are 404, unknown tasks 400 task_not_exist, unknown content 404."""
    async with start_simulator() as client:
        route = await client.request("DELETE", "/v1/videos/task_x")
        task = await client.poll("task_x")
        content = await client.request("GET", "/v1/videos/task_x/content")

    assert (404, 400, 404) == (route.status, task.status, content.status)
    assert {"code": "task_not_exist", "message": "task_not_exist", "data": None} == task.json


async def test_content_exists_once_the_task_succeeded() -> None:
    """Before, the answer is 400 task_not_ready; then it is the whole video, whatever range is requested."""
    async with start_simulator() as client:
        task_id = await client.accepted()
        early = await client.request("GET", f"/v1/videos/{task_id}/content")
        client.clock.now += 100
        late = await client.request(
            "GET", f"/v1/videos/{task_id}/content", headers={**KEY, "Range": "bytes=5-"}
        )

    assert (400, "task_not_ready") == (early.status, early.json["code"])
    assert (200, "video/mp4", b"ftyp") == (late.status, late.headers["Content-Type"], late.body[4:8])
    assert "ETag" not in late.headers


async def test_an_asset_can_be_fetched_in_ranges() -> None:
    """206 with the part, 200 if If-Range does not match, 416 past the end; always the same ETag."""
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

    assert (200, b"ftyp", "bytes") == (whole.status, whole.body[4:8], whole.headers["Accept-Ranges"])
    assert (206, f"bytes 100-199/{size}") == (part.status, part.headers["Content-Range"])
    assert whole.body[100:200] == part.body
    assert (206, whole.body[100:]) == (rest.status, rest.body)
    assert (206, whole.body[-7:]) == (tail.status, tail.body)
    assert (200, whole.body) == (other.status, other.body) == (odd.status, odd.body)
    assert (416, f"bytes */{size}") == (past.status, past.headers["Content-Range"])
    assert whole.headers["ETag"] == part.headers["ETag"]


async def test_a_signed_url_expires_and_can_be_renewed() -> None:
    """An expired URL and a wrong signature get 403; a poll returns a new URL."""
    async with start_simulator("url_valid_s: 60") as client:
        url = await client.video_url()
        good = await client.fetch(url)
        forged = await client.fetch(url.replace("Signature=", "Signature=0"))
        client.clock.now += 61
        late = await client.fetch(url)
        fresh = (await client.poll(client.simulator.ledger.accepted[0].task_id)).json["video_url"]
        renewed = await client.fetch(fresh)

    assert [200, 403, 403, 200] == [response.status for response in (good, forged, late, renewed)]
    assert b"AccessDenied" in late.body
    assert url != fresh


async def test_a_key_that_is_sent_to_an_asset_origin_is_counted() -> None:
    """No client may send its key there."""
    async with start_simulator() as client:
        url = await client.video_url()
        await client.fetch(url)
        before = client.simulator.ledger.asset_requests_with_key
        await client.fetch(url, **KEY)

        assert (0, 1) == (before, client.simulator.ledger.asset_requests_with_key)


async def test_the_rate_limit_allows_an_even_stream() -> None:
    """Requests beyond the rate and the burst get 429, and are not in the ledger."""
    async with start_simulator("rate_limit: {submit_per_s: 2, burst: 2}") as client:
        at_once = [(await client.submit()).status for _ in range(4)]
        client.clock.now += 0.5
        later = [(await client.submit()).status for _ in range(2)]

        assert [200, 200, 429, 429] == at_once
        assert [200, 429] == later
        assert 3 == len(client.simulator.ledger.accepted)


async def test_polls_have_their_own_rate() -> None:
    """Polls beyond the rate get 429; submissions are not counted as polls."""
    async with start_simulator("rate_limit: {poll_per_s: 1}") as client:
        task_id = await client.accepted()

        assert [200, 429] == [(await client.poll(task_id)).status for _ in range(2)]


async def test_an_outage_lasts_from_its_start_to_its_end() -> None:
    """During an outage every route gives its answer, and nothing is accepted."""
    async with start_simulator(
        "outages: [{from_s: 10, to_s: 20}, {from_s: 30, to_s: 40, answer: unavailable}]"
    ) as client:
        statuses = []
        for _ in range(5):
            statuses.append((await client.submit()).status)
            client.clock.now += 10

        assert [200, 502, 200, 503, 200] == statuses
        assert 3 == len(client.simulator.ledger.accepted)


async def test_the_ledger_shows_what_was_paid_for() -> None:
    """Every accepted POST has an entry with the digest of the request, a label, and a fingerprint of the key."""
    second = {**SEEDANCE, "prompt": "job two"}
    async with start_simulator("job_label: 'job (\\S+)'") as client:
        for request in (SEEDANCE, second, second):
            await client.submit(request)
        await client.submit({**SEEDANCE, "seconds": "99"})
        shown = (await client.request("GET", "/simulator/ledger", headers={})).json
    ledger = client.simulator.ledger

    assert {request_digest(SEEDANCE): 1, request_digest(second): 2} == Counter(
        entry.digest for entry in ledger.accepted
    )
    assert {None: 1, "two": 2} == Counter(entry.label for entry in ledger.accepted)
    assert [1, 2, 3] == [entry.number for entry in ledger.accepted]
    assert 4 == ledger.requests["POST /v1/videos"]
    assert [entry.task_id for entry in ledger.accepted] == [entry["task_id"] for entry in shown["accepted"]]
    assert "sk-sim-key" not in json.dumps(shown)


async def test_a_simulator_knows_the_tasks_of_its_ledger(tmp_path: Path) -> None:
    """Started again with the same file, it has the same tasks and videos, and continues to count."""
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
    assert [1, 2] == [json.loads(line)["number"] for line in path.read_bytes().splitlines()]


async def test_a_submission_is_in_the_file_before_it_is_answered(tmp_path: Path) -> None:
    """While its line can't be written, there is no answer."""
    path = tmp_path / "ledger.jsonl"
    async with start_simulator(ledger_path=path) as client:
        with blocked_writes(client):
            waiting = asyncio.create_task(client.submit())
            await wait_for_entries(client, 1)
            answered_early, content = waiting.done(), path.read_bytes()
        await waiting

        assert (False, b"") == (answered_early, content)
        assert 1 == len(path.read_bytes().splitlines())


async def test_a_client_that_disconnects_does_not_remove_its_line(tmp_path: Path) -> None:
    """A submission that was accepted is in the file even if nobody waits for the answer; the order is kept."""
    path = tmp_path / "ledger.jsonl"
    async with start_simulator(ledger_path=path) as client:
        with blocked_writes(client):
            waiting = asyncio.create_task(client.submit())
            await wait_for_entries(client, 1)
            waiting.cancel()
            next_one = asyncio.create_task(client.submit({**SEEDANCE, "prompt": "Another"}))
            await wait_for_entries(client, 2)
        await next_one

        assert waiting.cancelled()
        assert [1, 2] == [json.loads(line)["number"] for line in path.read_bytes().splitlines()]


@contextmanager
def blocked_writes(client: SimulatorClient) -> Iterator[None]:
    """Keep the thread that writes the ledger busy."""
    gate = threading.Event()
    executor = client.simulator.ledger._executor
    assert executor is not None
    executor.submit(gate.wait)
    try:
        yield
    finally:
        gate.set()


async def wait_for_entries(client: SimulatorClient, count: int) -> None:
    """Wait until the ledger has a number of entries, and for a few more requests."""
    async with asyncio.timeout(30):
        while len(client.simulator.ledger.accepted) < count:
            await client.request("GET", "/simulator/ledger")
        for _ in range(20):
            await client.request("GET", "/simulator/ledger")


async def test_a_file_that_is_not_a_ledger_is_refused(tmp_path: Path) -> None:
    """The message has its name, and not a byte of it changes."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"job_id": "sky"}\n')

    with pytest.raises(UsageError, match="is not a ledger of the simulator"):
        await Simulator(ledger_path=path).start()

    assert b'{"job_id": "sky"}\n' == path.read_bytes()


async def test_the_simulator_stops_even_while_an_answer_hangs() -> None:
    """A client that waits for an answer is disconnected; the job that was accepted stays in the ledger."""
    async with start_simulator("rules: [{submit: hang}]") as client:
        waiting = asyncio.create_task(client.submit())
        for _ in range(100):
            if not client.simulator.ledger.accepted:
                await client.request("GET", "/simulator/ledger")
        async with asyncio.timeout(30):
            await client.simulator.stop()

        with pytest.raises(aiohttp.ClientError):
            await waiting
        assert 1 == len(client.simulator.ledger.accepted)


async def test_serve_runs_until_it_is_canceled() -> None:
    """The base URL is reported once it can be used, and its port is free afterwards."""
    reported: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(None, port=0, ledger_path=None, ready=reported.set_result))
    url = await reported
    serving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await serving
    async with Simulator(port=int(url.rpartition(":")[2])) as again:
        assert url == again.base_url
