"""The asset library: an upload gets an id, is reviewed, and is refused to a submission until it is approved."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.simulator.simulator_client import KEY, SimulatorClient, start_simulator


def form(name: str = "frame.png", **fields: str) -> aiohttp.FormData:
    """Return the form of an upload."""
    data = aiohttp.FormData(fields)
    data.add_field("file", b"\x89PNG some bytes", filename=name)
    return data


async def upload(client: SimulatorClient, name: str = "frame.png") -> str:
    """Upload a file, and return the id of its task."""
    response = await client.request("POST", "/v1/asset/upload", data=form(name))
    assert (200, 200, "") == (response.status, response.json["code"], response.json["msg"])
    return str(response.json["data"]["task_id"])


async def asset_id(client: SimulatorClient, task_id: str) -> str:
    """Ask for the id of an upload's asset, without a key."""
    path = f"/api/v1/asset/jobs/get-asset-id?task_id={task_id}"
    return str((await client.request("GET", path, headers={})).json["data"]["asset_id"])


async def listed(client: SimulatorClient, **filters: Any) -> Any:
    """List the assets of the default group."""
    body = {"page": 1, "page_size": 10, "group_id": "1", **filters}
    return (await client.request("POST", "/v1/asset/groups/assets", json=body)).json["data"]


def request_for(name: str) -> dict[str, Any]:
    """Return a submission that names an asset."""
    return {
        "model": "dreamina-seedance-2-0-260128",
        "media": [{"type": "text", "text": "x"}, {"type": "first_frame", "url": f"asset://{name}"}],
    }


async def test_upload_review_and_use() -> None:
    """The id comes after the job, the approval after the review; only then a submission is accepted."""
    async with start_simulator("library: {job_s: 2, review_s: 5}") as client:
        task_id = await upload(client)
        assert "" == await asset_id(client, task_id)
        client.clock.now += 2
        name = await asset_id(client, task_id)
        early = await client.submit(request_for(name))
        (shown,) = (await listed(client))["list"]
        client.clock.now += 5
        late = await client.submit(request_for(name))
        (approved,) = (await listed(client, asset_id=name, status=2))["list"]

    assert (400, 200) == (early.status, late.status)
    assert f"asset://{name} is still under review" in early.json["error"]["message"]
    assert (1, 2, 1, 15, "frame.png", "png") == (
        shown["status"],
        approved["status"],
        shown["type"],
        shown["file_size"],
        shown["name"],
        shown["ext"],
    )
    assert 1 == len(client.simulator.ledger.accepted)


async def test_refused_asset() -> None:
    """A file whose name matches the scenario's pattern fails its review, with a reason."""
    async with start_simulator("library: {refuse: '*face*'}") as client:
        name = await asset_id(client, await upload(client, "a face.jpg"))
        other = await asset_id(client, await upload(client))
        refused = await client.submit(request_for(name))
        found = await listed(client)

    assert 400 == refused.status
    assert "was refused" in refused.json["error"]["message"]
    assert {name: (3, True), other: (2, False)} == {
        asset["asset_id"]: (asset["status"], bool(asset["fail_reason"])) for asset in found["list"]
    }
    assert [] == client.simulator.ledger.accepted


async def test_names_of_others_are_accepted() -> None:
    """The library knows only what it was given; any other name may be of an earlier upload."""
    async with start_simulator() as client:
        assert 200 == (await client.submit(request_for("asset-999"))).status


async def test_groups() -> None:
    """Groups are made, listed, renamed and deleted, and have assets of their own."""
    async with start_simulator() as client:

        async def call(action: str, **body: Any) -> Any:
            return (await client.request("POST", f"/v1/asset/groups/{action}", json=body)).json

        group = (await call("create", group_name="faces"))["data"]["group_id"]
        uploaded = await client.request("POST", "/v1/asset/upload", data=form(group_id=group))
        of_group = await listed(client, group_id=group)
        of_default = await listed(client)
        await call("rename", group_id=group, group_name="people")
        names = [entry["group_name"] for entry in (await call("list", page=1, page_size=9))["data"]["list"]]
        await call("delete", group_id=group)
        gone = await call("assets", page=1, page_size=9, group_id=group)

    assert 200 == uploaded.status
    assert (1, 0) == (of_group["total"], of_default["total"])
    assert ["default", "people"] == names
    assert 400 == gone["code"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"data": form("notes.exe")}, 400),
        ({"data": aiohttp.FormData({"group_id": "1"})}, 400),
        ({"data": form(group_id="9")}, 400),
        ({"json": {}}, 400),
        ({"data": form(), "headers": {}}, 401),
        ({"data": form(), "headers": {**KEY, "User-Agent": ""}}, 403),
    ],
)
async def test_uploads_that_are_refused(options: dict[str, Any], status: int) -> None:
    """A file of another type, a form without a file, an unknown group, no key, and no User-Agent."""
    async with start_simulator() as client:
        response = await client.request("POST", "/v1/asset/upload", **options)

        assert status == response.status
        assert 0 == (await listed(client))["total"]
