"""Every fault of the vocabulary can be acted out, and is over when its turns are."""

from __future__ import annotations

import asyncio
import gzip
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from simulator_client import KEY, SEEDANCE, Response, SimulatorClient, start_simulator

from runner.simulator.faults import FAULTS, Place

ANSWERS = {
    "bad_request": (400, "bad_request_body"),
    "invalid_request": (400, "invalid_request"),
    "unauthorized": (401, "access_denied"),
    "payment_required": (402, "Insufficient balance"),
    "forbidden": (403, "(request id: "),
    "quota_403": (403, "insufficient_user_quota"),
    "not_found": (404, "task_not_found"),
    "gone": (410, "gone"),
    "too_large": (413, "read_request_body_failed"),
    "task_not_exist": (400, "task_not_exist"),
    "quota": (429, "insufficient_user_quota"),
    "token_invalid": (500, "token_invalid"),
    "throttled": (429, "Rate limit"),
    "throttled_chinese": (429, "上游负载"),
    "throttled_empty": (429, ""),
    "throttled_seconds": (429, "Rate limit"),
    "throttled_date": (429, "Rate limit"),
    "throttled_ms": (429, "Rate limit"),
    "server_error": (500, "get_task_failed"),
    "bad_gateway": (502, "<html>"),
    "no_channel": (503, "get_channel_failed"),
    "unavailable": (503, "<html>"),
    "html": (200, "<html>"),
    "json": (200, "upstream error"),
    "empty": (200, ""),
}
TABLE = [(place, name) for name in ANSWERS for place in Place]


@pytest.mark.parametrize(("place", "name"), TABLE, ids=[f"{place}-{name}" for place, name in TABLE])
async def test_an_answer_is_given_at_every_place_and_once(place: Place, name: str) -> None:
    """Each refusal has its status and its words wherever it is asked for; the next request is answered well."""
    async with start_simulator(f"rules: [{{{place}: {name}}}]") as client:
        url = await reach(client, place)
        bad, good = await request(client, place, url), await request(client, place, url)

        status, words = ANSWERS[name]
        assert (status, True) == (bad.status, words in bad.body.decode())
        assert bad.body or name in ("throttled_empty", "empty")
        assert good.status == 200
        assert client.simulator.ledger.faults[f"{place} {name}"] == 1
        assert len(client.simulator.ledger.accepted) == 1


async def reach(client: SimulatorClient, place: Place) -> str:
    """Bring a task to where a place can be asked for, and return the address to ask."""
    if place is Place.SUBMIT:
        return "/v1/videos"
    task_id = await client.accepted({**SEEDANCE, "return_last_frame": True})
    client.clock.now += 100
    if place is Place.POLL:
        return f"/v1/videos/{task_id}"
    if place is Place.CONTENT:
        return f"/v1/videos/{task_id}/content"
    body = (await client.poll(task_id)).json
    return str(body["video_url" if place is Place.ASSET else "last_frame_url"])


async def request(client: SimulatorClient, place: Place, url: str, **headers: str) -> Response:
    """Ask for a place."""
    if place is Place.SUBMIT:
        return await client.submit()
    return await client.request("GET", url, headers=headers if url.startswith("http") else {**KEY, **headers})


def test_every_fault_is_in_a_table_here() -> None:
    """A fault that is added to the vocabulary has to be shown."""
    deeds = {
        "no_id",
        "unknown",
        "poll_after",
        "reset",
        "hang",
        "half",
        "redirect",
        "truncated",
        "stall",
        "slow",
    }
    deeds |= {"wrong_length", "cut", "no_length", "no_moov", "gzip", "huge", "etag_changes", "range_ignored"}
    deeds |= {"range_refused", "expired_url", "redirect_loop"}

    assert FAULTS.keys() == ANSWERS.keys() | deeds


@pytest.mark.parametrize(
    ("name", "header", "expected"),
    [("throttled_seconds", "Retry-After", "7"), ("throttled_ms", "retry-after-ms", "7000")],
)
async def test_a_throttled_answer_says_when_to_come_back(name: str, header: str, expected: str) -> None:
    """In the header and the unit that its name says."""
    async with start_simulator(f"rules: [{{submit: {{fault: {name}, after_s: 7}}}}]") as client:
        assert expected == (await client.submit()).headers[header]


async def test_a_throttled_answer_may_name_a_date() -> None:
    """Retry-After as an HTTP date."""
    async with start_simulator("rules: [{submit: {fault: throttled_date, after_s: 60}}]") as client:
        headers = (await client.submit()).headers

    wait = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
    assert 55 <= wait.total_seconds() <= 65


async def test_faults_come_in_their_order_and_number() -> None:
    """So many of the first, then of the next, then none; for each job anew."""
    async with start_simulator("rules: [{submit: [{fault: throttled, times: 2}, bad_gateway]}]") as client:
        statuses = [(await client.submit()).status for _ in range(4)]
        other = (await client.submit({**SEEDANCE, "prompt": "Another"})).status

    assert statuses == [429, 429, 502, 200]
    assert other == 429


async def test_a_fault_may_last() -> None:
    """Always means always."""
    async with start_simulator("rules: [{poll: {fault: bad_gateway, times: always}}]") as client:
        task_id = await client.accepted()

        assert {502} == {(await client.poll(task_id)).status for _ in range(5)}


@pytest.mark.parametrize("fault", ["reset", "{fault: hang, for_s: 0}", "half"])
@pytest.mark.parametrize("created", [True, False])
async def test_a_lost_answer_leaves_a_paid_task_or_none(fault: str, created: bool) -> None:
    """The client sees a broken connection; only the ledger knows whether the task was made."""
    fault = fault.strip("{}") if "{" in fault else f"fault: {fault}"
    async with start_simulator(
        f"rules: [{{submit: {{{fault}, created: {str(created).lower()}}}}}]"
    ) as client:
        with pytest.raises(aiohttp.ClientError):
            await client.submit()

        assert int(created) == len(client.simulator.ledger.accepted)


async def test_a_reset_is_a_reset() -> None:
    """The socket gets RST, not an orderly end."""
    async with start_simulator("rules: [{submit: reset}]") as client:
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await client.submit()


@pytest.mark.parametrize("name", ["bad_gateway", "html", "empty", "throttled"])
async def test_any_answer_may_hide_a_paid_task(name: str) -> None:
    """What a POST is answered, and whether a task was made, are two things."""
    async with start_simulator(f"rules: [{{submit: {{fault: {name}, created: true}}}}]") as client:
        reply = await client.submit()

        assert b"task_" not in reply.body
        assert len(client.simulator.ledger.accepted) == 1


async def test_an_answer_without_an_id_hides_a_paid_task() -> None:
    """200, a status, and no id."""
    async with start_simulator("rules: [{submit: no_id}]") as client:
        reply = await client.submit()

        assert (reply.status, reply.json["status"], "id" in reply.json) == (200, "queued", False)
        assert len(client.simulator.ledger.accepted) == 1


async def test_a_redirected_post_that_is_followed_is_noticed() -> None:
    """307 to another origin, where a POST is counted as a stray and makes nothing."""
    async with start_simulator("rules: [{submit: redirect}]") as client:
        reply = await client.submit()
        await client.request("POST", reply.headers["Location"], json=SEEDANCE)
        ledger = client.simulator.ledger

        assert reply.status == 307
        assert not reply.headers["Location"].startswith(client.simulator.base_url)
        assert (ledger.stray_posts, ledger.asset_requests_with_key, len(ledger.accepted)) == (1, 1, 0)


@pytest.mark.parametrize("name", ["reset", "{fault: hang, for_s: 0}", "half"])
async def test_a_query_may_get_no_answer(name: str) -> None:
    """And the next one does."""
    async with start_simulator(f"rules: [{{poll: {name}}}]") as client:
        task_id = await client.accepted()
        with pytest.raises(aiohttp.ClientError):
            await client.poll(task_id)

        assert (await client.poll(task_id)).status == 200


async def test_queries_may_say_unknown_or_ask_for_patience() -> None:
    """The status word unknown, and the header openai-poll-after-ms with a good answer."""
    async with start_simulator("rules: [{poll: [unknown, {fault: poll_after, after_s: 3}]}]") as client:
        task_id = await client.accepted()
        unknown, after = await client.poll(task_id), await client.poll(task_id)

    assert unknown.json["status"] == "unknown"
    assert (after.json["status"], after.headers["openai-poll-after-ms"]) == ("queued", "3000")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("unknown_s: 5", ["unknown", "running", "succeeded"]),
        ("missing_s: 5", [None, "running", "succeeded"]),
        ("end: never", ["queued", "running", "running"]),
        ("end: lost", [None, None, None]),
        ("end: cancelled", ["queued", "running", "cancelled"]),
        ("end: expired", ["queued", "running", "expired"]),
        ("end: moderation", ["queued", "running", "failed"]),
        ("generate_s: 1000", ["queued", "queued", "queued"]),
    ],
)
async def test_a_task_takes_its_course(task: str, expected: list[str | None]) -> None:
    """Its words at 0, 6 and 12 seconds of a video that takes 10; None where the API does not know it."""
    async with start_simulator(f"rules: [{{task: {{{task}}}}}]") as client:
        task_id = await client.accepted()
        words = []
        for _ in range(3):
            reply = await client.poll(task_id)
            words.append(reply.json["status"] if reply.status == 200 else None)
            client.clock.now += 6

    assert expected == words


async def spoilt(fault: str, **headers: str) -> tuple[Response, Response]:
    """Fetch an asset under a fault, and once more."""
    async with start_simulator(f"rules: [{{asset: {fault}}}]") as client:
        url = await client.video_url()
        return await client.fetch(url, **headers), await client.fetch(url, **headers)


@pytest.mark.parametrize(
    "fault", ["{fault: truncated, at: 0.3}", "{fault: stall, for_s: 0}", "wrong_length", "reset"]
)
async def test_a_download_may_break_off(fault: str) -> None:
    """Fewer bytes come than were declared; the next download is whole."""
    async with start_simulator(f"rules: [{{asset: {fault}}}]") as client:
        url = await client.video_url()
        with pytest.raises(aiohttp.ClientError):
            await client.fetch(url)

        assert (await client.fetch(url)).status == 200


async def test_a_truncated_download_has_its_share() -> None:
    """The ledger says how much was served."""
    async with start_simulator("rules: [{asset: {fault: truncated, at: 0.5}}]") as client:
        url = await client.video_url()
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.fetch(url)
        half = client.simulator.ledger.bytes_served.total()
        whole = len((await client.fetch(url)).body)

    assert whole // 2 == half


async def test_a_file_may_be_cut_and_look_whole() -> None:
    """Its Content-Length is that of the cut file, so only the MP4 structure gives it away."""
    cut, whole = await spoilt("{fault: cut, at: 0.5}")

    assert len(whole.body) // 2 == len(cut.body) == int(cut.headers["Content-Length"])


async def test_a_file_may_lack_its_moov() -> None:
    """Whole by its length, and not playable."""
    bare, whole = await spoilt("no_moov")

    assert (b"moov" in bare.body, b"moov" in whole.body) == (False, True)


async def test_a_file_may_come_packed_or_without_a_length() -> None:
    """Content-Encoding: gzip, and chunked."""
    packed, whole = await spoilt("[gzip]")
    chunked, _ = await spoilt("no_length")

    assert packed.headers["Content-Encoding"] == "gzip"
    assert whole.body == gzip.decompress(packed.body)
    assert "Content-Length" not in chunked.headers
    assert chunked.body[4:8] == b"ftyp"


async def test_a_file_may_be_sent_slowly() -> None:
    """No faster than the scenario says, and complete in the end."""
    rule = "{task: {asset_bytes: 50000}, asset: {fault: slow, bytes_per_s: 100000}}"
    async with start_simulator(f"rules: [{rule}]") as client:
        url = await client.video_url()
        loop = asyncio.get_running_loop()
        started = loop.time()
        body = (await client.fetch(url)).body

        assert len(body) / (loop.time() - started) < 200_000
        assert 50_000 == len(body)


async def test_a_terabyte_may_be_declared() -> None:
    """And is not sent."""
    async with start_simulator("rules: [{asset: huge}]") as client:
        url = await client.video_url()
        async with client.session.get(url) as response:
            assert response.headers["Content-Length"] == "1000000000000"
            assert (await response.content.readexactly(8))[4:] == b"ftyp"


async def test_ranges_may_be_ignored_refused_or_changed_under_ones_feet() -> None:
    """200 with the whole file, 416, and an ETag that no longer matches."""
    ignored, fine = await spoilt("range_ignored", Range="bytes=10-")
    refused, _ = await spoilt("range_refused", Range="bytes=10-")
    one, two = await spoilt("{fault: etag_changes, times: 2}")

    assert (ignored.status, fine.status) == (200, 206)
    assert refused.status == 416
    assert one.headers["ETag"] != two.headers["ETag"]


async def test_an_address_may_have_expired_until_it_is_asked_for_anew() -> None:
    """403 for all addresses that were given out before; a query gives one that works."""
    async with start_simulator("rules: [{asset: expired_url}]") as client:
        url = await client.video_url()
        refused = [(await client.fetch(url)).status for _ in range(2)]
        fresh = (await client.poll(client.simulator.ledger.accepted[0].task_id)).json["video_url"]

        assert refused == [403, 403]
        assert (await client.fetch(fresh)).status == 200


async def test_an_asset_may_be_elsewhere() -> None:
    """A redirect to another origin, which has it; or to itself, for ever."""
    async with start_simulator("rules: [{asset: [redirect, redirect_loop]}]") as client:
        url = await client.video_url()
        away, loop = await client.fetch(url), await client.fetch(url)
        there = await client.fetch(away.headers["Location"])

    assert (away.status, loop.status, there.status) == (302, 302, 200)
    assert away.headers["Location"].split("/")[2] != url.split("/")[2]
    assert url.endswith(loop.headers["Location"])


@pytest.mark.parametrize(
    ("task", "place"),
    [("url: gateway", "/v1/videos/task_"), ("url: nowhere", None), ("shape: ark", "127.0.0.1")],
)
async def test_the_address_may_be_the_gateways_own_or_absent(task: str, place: str | None) -> None:
    """On the API's origin, where it needs the key; or nowhere, while the content route still has the video."""
    async with start_simulator(f"rules: [{{task: {{{task}}}}}]") as client:
        task_id = await client.accepted()
        client.clock.now += 100
        body = (await client.poll(task_id)).json
        url: Any = body.get("video_url") or body.get("content", {}).get("video_url")
        content = await client.request("GET", f"/v1/videos/{task_id}/content")

        assert (place or "None") in str(url)
        assert content.status == 200
        if "gateway" in task:
            assert ((await client.fetch(url)).status, (await client.fetch(url, **KEY)).status) == (401, 200)


async def test_assets_may_be_of_any_size_and_order() -> None:
    """Padded to so many bytes, with mdat before moov."""
    async with start_simulator("rules: [{task: {asset_bytes: 1000000, moov_first: false}}]") as client:
        body = (await client.fetch(await client.video_url())).body

    assert len(body) == 1_000_000
    assert body.index(b"mdat") < body.index(b"moov")


async def test_a_last_frame_may_be_missing() -> None:
    """Asked for, and not in the answer."""
    async with start_simulator("rules: [{task: {last_frame: false}}]") as client:
        task_id = await client.accepted({**SEEDANCE, "return_last_frame": True})
        client.clock.now += 100
        body = (await client.poll(task_id)).json

    assert ("video_url" in body, "last_frame_url" in body) == (True, False)


async def test_keys_may_fare_differently() -> None:
    """A rule for one key leaves the others alone, and the job keeps its number."""
    async with start_simulator(
        "rules: [{match: {key: 'sk-poor*'}, submit: {fault: quota, times: always}}]"
    ) as client:
        poor = await client.submit(headers={"Authorization": "Bearer sk-poor-1"})
        rich = await client.submit(headers={"Authorization": "Bearer sk-rich-1"})

        assert (poor.status, rich.status) == (429, 200)
        assert client.simulator.ledger.accepted[0].number == 1
