"""Every fault does what its name says, for as many requests as the scenario says."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from runner.simulator.faults import FAULTS, RequestKind
from tests.simulator.simulator_client import KEY, SEEDANCE, Response, SimulatorClient, start_simulator

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
TABLE = [(kind, name) for name in ANSWERS for kind in RequestKind]


@pytest.mark.parametrize(("kind", "name"), TABLE, ids=[f"{kind}-{name}" for kind, name in TABLE])
async def test_an_answer_is_given_to_every_kind_of_request_and_once(kind: RequestKind, name: str) -> None:
    """Each answer has its status and its text for all requests; the next request is answered normally."""
    async with start_simulator(f"rules: [{{{kind}: {name}}}]") as client:
        url = await prepare(client, kind)
        bad, good = await send(client, kind, url), await send(client, kind, url)

        status, text = ANSWERS[name]
        assert (status, True) == (bad.status, text in bad.body.decode())
        assert bad.body or name in ("throttled_empty", "empty")
        assert 200 == good.status
        assert 1 == client.simulator.ledger.faults[f"{kind} {name}"]
        assert 1 == len(client.simulator.ledger.accepted)


async def prepare(client: SimulatorClient, kind: RequestKind) -> str:
    """Create the task that a kind of request needs, and return the URL to request."""
    if kind is RequestKind.SUBMIT:
        return "/v1/videos"
    task_id = await client.accepted({**SEEDANCE, "return_last_frame": True})
    client.clock.now += 100
    if kind is RequestKind.POLL:
        return f"/v1/videos/{task_id}"
    if kind is RequestKind.CONTENT:
        return f"/v1/videos/{task_id}/content"
    body = (await client.poll(task_id)).json
    return str(body["video_url" if kind is RequestKind.ASSET else "last_frame_url"])


async def send(client: SimulatorClient, kind: RequestKind, url: str, **headers: str) -> Response:
    """Send a request of a kind."""
    if kind is RequestKind.SUBMIT:
        return await client.submit()
    return await client.request("GET", url, headers=headers if url.startswith("http") else {**KEY, **headers})


def test_every_fault_is_in_a_table_here() -> None:
    """A new fault needs a test."""
    others = {
        "no_id",
        "unknown_status",
        "poll_after",
        "reset",
        "hang",
        "partial_answer",
        "redirect",
        "truncated",
        "stall",
        "slow",
    }
    others |= {
        "wrong_length",
        "short_file",
        "no_length",
        "no_moov",
        "gzip",
        "huge_length",
        "etag_changed",
        "range_ignored",
    }
    others |= {"range_refused", "expired_url", "redirect_loop"}

    assert FAULTS.keys() == ANSWERS.keys() | others


@pytest.mark.parametrize(
    ("name", "header", "expected"),
    [("throttled_seconds", "Retry-After", "7"), ("throttled_ms", "retry-after-ms", "7000")],
)
async def test_a_throttled_answer_has_the_wait(name: str, header: str, expected: str) -> None:
    """The wait is in the header and the unit of the fault's name."""
    async with start_simulator(f"rules: [{{submit: {{fault: {name}, after_s: 7}}}}]") as client:
        assert expected == (await client.submit()).headers[header]


async def test_a_throttled_answer_may_have_a_date() -> None:
    """Retry-After is an HTTP date."""
    async with start_simulator("rules: [{submit: {fault: throttled_date, after_s: 60}}]") as client:
        headers = (await client.submit()).headers

    wait = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
    assert 55 <= wait.total_seconds() <= 65


async def test_faults_apply_in_their_order_and_number() -> None:
    """The first applies as often as it says, then the next, then none; each job starts with the first."""
    async with start_simulator("rules: [{submit: [{fault: throttled, times: 2}, bad_gateway]}]") as client:
        statuses = [(await client.submit()).status for _ in range(4)]
        other = (await client.submit({**SEEDANCE, "prompt": "Another"})).status

    assert [429, 429, 502, 200] == statuses
    assert 429 == other


async def test_a_fault_may_apply_always() -> None:
    """Every request gets it."""
    async with start_simulator("rules: [{poll: {fault: bad_gateway, times: always}}]") as client:
        task_id = await client.accepted()

        assert {502} == {(await client.poll(task_id)).status for _ in range(5)}


@pytest.mark.parametrize("fault", ["reset", "{fault: hang, for_s: 0}", "partial_answer"])
@pytest.mark.parametrize("created", [True, False])
async def test_a_lost_answer_leaves_a_paid_task_or_none(fault: str, created: bool) -> None:
    """The client gets a broken connection; only the ledger shows whether the task was created."""
    fault = fault.strip("{}") if "{" in fault else f"fault: {fault}"
    async with start_simulator(
        f"rules: [{{submit: {{{fault}, created: {str(created).lower()}}}}}]"
    ) as client:
        with pytest.raises(aiohttp.ClientError):
            await client.submit()

        assert int(created) == len(client.simulator.ledger.accepted)


async def test_a_reset_is_a_tcp_reset() -> None:
    """The socket gets RST, not FIN."""
    async with start_simulator("rules: [{submit: reset}]") as client:
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await client.submit()


@pytest.mark.parametrize("name", ["bad_gateway", "html", "empty", "throttled"])
async def test_any_answer_may_hide_a_paid_task(name: str) -> None:
    """Whatever a POST is answered, a task may have been created."""
    async with start_simulator(f"rules: [{{submit: {{fault: {name}, created: true}}}}]") as client:
        response = await client.submit()

        assert b"task_" not in response.body
        assert 1 == len(client.simulator.ledger.accepted)


async def test_an_answer_without_an_id_hides_a_paid_task() -> None:
    """The answer is 200 with a status and no id."""
    async with start_simulator("rules: [{submit: no_id}]") as client:
        response = await client.submit()

        assert (200, "queued", False) == (response.status, response.json["status"], "id" in response.json)
        assert 1 == len(client.simulator.ledger.accepted)


async def test_a_redirected_post_that_is_followed_is_counted() -> None:
    """307 leads to another origin, where a POST is counted as stray and creates nothing."""
    async with start_simulator("rules: [{submit: redirect}]") as client:
        response = await client.submit()
        await client.request("POST", response.headers["Location"], json=SEEDANCE)
        ledger = client.simulator.ledger

        assert 307 == response.status
        assert not response.headers["Location"].startswith(client.simulator.base_url)
        assert (1, 1, 0) == (ledger.stray_posts, ledger.asset_requests_with_key, len(ledger.accepted))


@pytest.mark.parametrize("name", ["reset", "{fault: hang, for_s: 0}", "partial_answer"])
async def test_a_poll_may_get_no_answer(name: str) -> None:
    """The next poll gets one."""
    async with start_simulator(f"rules: [{{poll: {name}}}]") as client:
        task_id = await client.accepted()
        with pytest.raises(aiohttp.ClientError):
            await client.poll(task_id)

        assert 200 == (await client.poll(task_id)).status


async def test_polls_may_get_the_status_unknown_or_a_wait() -> None:
    """The status is unknown, and a normal answer has the header openai-poll-after-ms."""
    async with start_simulator(
        "rules: [{poll: [unknown_status, {fault: poll_after, after_s: 3}]}]"
    ) as client:
        task_id = await client.accepted()
        unknown, after = await client.poll(task_id), await client.poll(task_id)

    assert "unknown" == unknown.json["status"]
    assert ("queued", "3000") == (after.json["status"], after.headers["openai-poll-after-ms"])


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
async def test_a_task_goes_through_its_phases(task: str, expected: list[str | None]) -> None:
    """The status at 0, 6 and 12 seconds of a video that takes 10; None if the API does not know the task."""
    async with start_simulator(f"rules: [{{task: {{{task}}}}}]") as client:
        task_id = await client.accepted()
        words = []
        for _ in range(3):
            response = await client.poll(task_id)
            words.append(response.json["status"] if response.status == 200 else None)
            client.clock.now += 6

    assert expected == words


async def test_faults_may_depend_on_the_key() -> None:
    """A rule for one key does not apply to others, and the job keeps its number."""
    async with start_simulator(
        "rules: [{match: {key: 'sk-poor*'}, submit: {fault: quota, times: always}}]"
    ) as client:
        poor = await client.submit(headers={"Authorization": "Bearer sk-poor-1"})
        rich = await client.submit(headers={"Authorization": "Bearer sk-rich-1"})

        assert (429, 200) == (poor.status, rich.status)
        assert 1 == client.simulator.ledger.accepted[0].number
