"""
The simulated asset library: uploads, their review, and groups (fact F28).

Paths may begin with ``/api``, as on one of the vendor's hosts. A library lasts as long as its simulator.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import count
from pathlib import PurePosixPath

from aiohttp import web
from msgspec import Struct

from runner.core.model import Json
from runner.jsontext import loads
from runner.simulator.answers import SimulatedAnswer, json_answer, parts
from runner.simulator.scenario import LibraryRules

_PATH = re.compile(r"(?:/api)?/v1/asset/(upload|jobs/get-asset-id|get-authorize-url|groups/[a-z]+)")
_KINDS = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif"), 1),
    **dict.fromkeys((".mp4", ".mov"), 2),
    **dict.fromkeys((".wav", ".mp3"), 3),
}
_REVIEW, _APPROVED, _REFUSED = 1, 2, 3
_REASONS = {_REVIEW: "is still under review", _REFUSED: "was refused"}
_DEFAULT_GROUP = "1"


class UploadedAsset(Struct, frozen=True):
    """A file that was uploaded."""

    number: int
    task_id: str
    asset_id: str
    name: str
    group: str
    kind: int
    bytes: int
    sha256: str
    at: float


class AssetLibrary:
    """
    The library of one simulator.

    Args:
        now: Returns the time in seconds since 1970.
    """

    def __init__(self, rules: LibraryRules, now: Callable[[], float]) -> None:
        self._rules = rules
        self._now = now
        self._numbers = count(1)
        self._groups: dict[str, str] = {_DEFAULT_GROUP: "default"}
        self.assets: dict[str, UploadedAsset] = {}

    @staticmethod
    def route(path: str) -> str | None:
        """Return what a path of the library asks for, such as ``upload``; None for any other path."""
        found = _PATH.fullmatch(path)
        return found[1] if found else None

    async def answer(self, request: web.BaseRequest, route: str) -> SimulatedAnswer:
        """Answer a request to the library."""
        if not request.headers.get("User-Agent"):
            return _error(403, "a User-Agent is required")
        if route == "jobs/get-asset-id":
            return self._asset_id(request.query.get("task_id", ""))
        content = await request.read()
        try:
            if route == "upload":
                return await asyncio.to_thread(self._upload, request.headers.get("Content-Type", ""), content)
            body = loads(content or b"{}")
        except ValueError:
            return _error(400, "the body can't be read")
        if not isinstance(body, dict):
            return _error(400, "the body is not a JSON object")
        if route == "get-authorize-url":
            return _data("https://example.com/authorize")
        return self._group(route.removeprefix("groups/"), body)

    def refusal(self, request: Json) -> str | None:
        """
        Return why a submission is refused for an asset that it names, or None.

        Names that this library did not give are accepted: they may be of an account's earlier uploads.
        """
        for name in _asset_names(request):
            status = self._status(asset) if (asset := self.assets.get(name)) else _APPROVED
            if status != _APPROVED:
                return f"asset://{name} {_REASONS[status]}"
        return None

    def _upload(self, content_type: str, content: bytes) -> SimulatedAnswer:
        fields = {
            str(p.get_param("name", header="content-disposition")): p for p in parts(content_type, content)
        }
        file = fields.get("file")
        name = file.get_filename() if file is not None else None
        if file is None or name is None:
            return _error(400, "file is required")
        kind = _KINDS.get(PurePosixPath(name).suffix.lower())
        if kind is None:
            return _error(400, f"unsupported file type: {name}")
        data = file.get_payload(decode=True)
        data = data if isinstance(data, bytes) else b""
        group_part = fields.get("group_id")
        group = str(group_part.get_payload()).strip() if group_part is not None else _DEFAULT_GROUP
        if group not in self._groups:
            return _error(400, "no such group")
        number = next(self._numbers)
        asset = UploadedAsset(
            number=number,
            task_id=f"asset_task_{number}",
            asset_id=f"asset-{number}",
            name=name,
            group=group,
            kind=kind,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            at=self._now(),
        )
        self.assets[asset.asset_id] = asset
        return _data({"task_id": asset.task_id})

    def _asset_id(self, task_id: str) -> SimulatedAnswer:
        for asset in self.assets.values():
            if asset.task_id == task_id:
                is_ready = self._now() >= asset.at + self._rules.job_s
                return _data({"asset_id": asset.asset_id if is_ready else ""})
        return _error(404, "task not found")

    def _status(self, asset: UploadedAsset) -> int:
        if self._now() < asset.at + self._rules.job_s + self._rules.review_s:
            return _REVIEW
        is_refused = self._rules.refuse is not None and fnmatchcase(asset.name, self._rules.refuse)
        return _REFUSED if is_refused else _APPROVED

    def _group(self, action: str, body: dict[str, Json]) -> SimulatedAnswer:
        group, name = str(body.get("group_id", "")), body.get("group_name")
        match action:
            case "create":
                group = str(len(self._groups) + 1)
                self._groups[group] = str(name)
                return _data({"group_id": group, "group_name": name})
            case "list":
                groups = [{"group_id": key, "group_name": value} for key, value in self._groups.items()]
                return _data({"list": _page(groups, body), "total": len(groups)})
            case "assets" | "rename" | "delete" if group not in self._groups:
                return _error(400, "no such group")
            case "assets":
                found = [self._shown(asset) for asset in self.assets.values() if asset.group == group]
                for key in ("asset_id", "name", "type", "status"):
                    found = [asset for asset in found if body.get(key) in (None, "", asset[key])]
                return _data({"list": _page(found, body), "total": len(found)})
            case "rename":
                self._groups[group] = str(name)
                return _data({"group_id": group, "group_name": name})
            case "delete":
                del self._groups[group]
                return _data({})
        return _error(404, "no such route")

    def _shown(self, asset: UploadedAsset) -> dict[str, Json]:
        status = self._status(asset)
        return {
            "id": asset.number,
            "asset_id": asset.asset_id,
            "name": asset.name,
            "type": asset.kind,
            "file_url": f"https://example.com/library/{asset.asset_id}",
            "thumbnail_url": "",
            "file_size": asset.bytes,
            "duration": 0,
            "ext": PurePosixPath(asset.name).suffix.removeprefix("."),
            "source": "upload",
            "created_at": int(asset.at),
            "updated_at": int(asset.at),
            "status": status,
            "fail_reason": "it was refused by the review" if status == _REFUSED else "",
        }


def _page(items: list[dict[str, Json]], body: dict[str, Json]) -> list[dict[str, Json]]:
    page, size = body.get("page"), body.get("page_size")
    size = size if type(size) is int and size > 0 else 10
    first = size * ((page if type(page) is int and page > 0 else 1) - 1)
    return items[first : first + size]


def _asset_names(value: Json) -> Iterator[str]:
    if isinstance(value, str) and value.lower().startswith("asset://"):
        yield value[len("asset://") :]
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _asset_names(child)


def _data(data: Json) -> SimulatedAnswer:
    return json_answer({"code": 200, "data": data, "msg": ""})


def _error(status: int, message: str) -> SimulatedAnswer:
    return json_answer({"code": status, "data": None, "msg": message}, status)
