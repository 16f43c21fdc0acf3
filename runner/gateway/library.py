"""The vendor's asset library over HTTP (fact F28)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import aiohttp
from msgspec import Struct

from runner.core.model import Json
from runner.core.sanitize import sanitize_line
from runner.core.settings import Timeouts
from runner.errors import UploadError
from runner.jsontext import loads
from runner.network import USER_AGENT, Deadline, describe_network_error

_TRIES = 4
_RETRY_S = 1.0
"""The first pause; each further one is twice as long."""
_MIN_BYTES_PER_S = 50_000.0
_MAX_ANSWER_BYTES = 1 << 20
_HINT = (
    "check the key with runner doctor, and that the account accepted the library's terms on the vendor's page"
)
_GROUP = "runner"
_PAGE = 100
_MAX_PAGES = 100
_APPROVED, _REFUSED = 2, 3


class UnknownTask(UploadError):
    """The library answered 404."""


class LibraryAsset(Struct, frozen=True):
    """
    An asset.

    Attributes:
        is_approved: None while it is under review.
        reason: Why it is refused.
    """

    asset_id: str
    is_approved: bool | None
    reason: str = ""


class LibraryClient:
    """
    The asset library of one account; an asynchronous context manager. All requests are free.

    A request that fails for reasons that may pass is repeated some times: an upload too, since a caller that looks
    for an asset by its name first makes at most a copy.

    Args:
        root: Of the gateway, without a slash at its end.
        sleep: Waits between tries.
    """

    def __init__(
        self,
        root: str,
        key: str,
        timeouts: Timeouts,
        *,
        sleep: Callable[[float], Awaitable[None]],
        proxy: str | None = None,
    ) -> None:
        self._root = root
        self._key = key
        self._timeouts = timeouts
        self._sleep = sleep
        self._proxy = proxy
        self._group_id: str | None = None
        self._group_lock = asyncio.Lock()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {self._key}", "User-Agent": USER_AGENT},
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def upload(self, name: str, content: bytes, media_type: str) -> str:
        """
        Upload a file, and return the id of the task that makes an asset of it.

        Raises:
            UploadError: The library can't be used.
        """
        group_id = await self._group()

        def form() -> aiohttp.FormData:
            data = aiohttp.FormData()
            data.add_field("group_id", group_id)
            data.add_field("group_name", _GROUP)
            data.add_field("file", content, filename=name, content_type=media_type)
            return data

        upload_s = len(content) / _MIN_BYTES_PER_S + self._timeouts.submit_s
        data = await self._call("POST", "upload", upload_s, form=form)
        return _text(data, "task_id")

    async def asset_id(self, task_id: str) -> str | None:
        """Return the id of the asset that a task made; "" if there is none yet, None if there is no such task."""
        try:
            data = await self._call(
                "GET", "jobs/get-asset-id", self._timeouts.poll_s, query={"task_id": task_id}
            )
        except UnknownTask:
            return None
        return str(data.get("asset_id") or "")

    async def find(self, **fields: str) -> LibraryAsset | None:
        """Return the asset with this ``name`` or ``asset_id``, or None."""
        body = {"page": 1, "page_size": _PAGE, "group_id": await self._group(), **fields}
        for page in range(1, _MAX_PAGES + 1):
            data = await self._call(
                "POST", "groups/assets", self._timeouts.poll_s, body={**body, "page": page}
            )
            listed = _items(data)
            for item in listed:
                if all(item.get(key) == value for key, value in fields.items()) and item.get("asset_id"):
                    return _asset(item)
            if len(listed) < _PAGE:
                return None
        return None

    async def _group(self) -> str:
        """Return the id of the program's own group of assets; create it if there is none."""
        async with self._group_lock:
            if self._group_id is None:
                self._group_id = (await self.groups()).get(_GROUP) or await self._create_group()
            return self._group_id

    async def groups(self) -> dict[str, str]:
        """Return the ids of the account's groups of assets, by name."""
        found: dict[str, str] = {}
        for page in range(1, _MAX_PAGES + 1):
            body = {"page": page, "page_size": _PAGE}
            listed = _items(await self._call("POST", "groups/list", self._timeouts.poll_s, body=body))
            found |= {str(item.get("group_name")): str(item.get("group_id")) for item in listed}
            if len(listed) < _PAGE:
                break
        return found

    async def _create_group(self) -> str:
        body = {"group_name": _GROUP}
        return _text(await self._call("POST", "groups/create", self._timeouts.poll_s, body=body), "group_id")

    async def _call(
        self,
        method: str,
        path: str,
        timeout_s: float,
        *,
        query: dict[str, str] | None = None,
        body: Json = None,
        form: Callable[[], aiohttp.FormData] | None = None,
    ) -> dict[str, Json]:
        """Send a request until it is answered, and return the ``data`` of the answer."""
        trouble = ""
        for attempt in range(_TRIES):
            if attempt:
                await self._sleep(_RETRY_S * 2 ** (attempt - 1))
            try:
                with Deadline(self._timeouts.connect_s + timeout_s):
                    status, text = await self._exchange(method, path, query, body, form)
            except (aiohttp.ClientError, OSError) as error:
                trouble = describe_network_error(
                    error, "the asset library", connect_s=self._timeouts.connect_s, timeout_s=timeout_s
                )
                continue
            answer = _parsed(text)
            code = answer.get("code", status)
            if status == 200 and code == 200 and isinstance(answer.get("data"), dict):
                data: dict[str, Json] = answer["data"]
                return data
            said = _line(answer.get("msg") or answer.get("message"), self._key)
            trouble = f"HTTP {status}" + (f", {said}" if said else "")
            if 404 in (status, code):
                raise UnknownTask(f"the asset library answers {trouble}", hint=_HINT)
            if status < 500 and status not in (408, 429):
                break
        raise UploadError(f"the asset library does not take files: {trouble}", hint=_HINT)

    async def _exchange(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: Json,
        form: Callable[[], aiohttp.FormData] | None,
    ) -> tuple[int, bytes]:
        async with self._session.request(
            method,
            f"{self._root}/v1/asset/{path}",
            params=query,
            json=body,
            data=None if form is None else form(),
            allow_redirects=False,
            proxy=self._proxy,
        ) as response:
            return response.status, await response.content.read(_MAX_ANSWER_BYTES)


def _parsed(text: bytes) -> dict[str, Json]:
    try:
        answer = loads(text)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _items(data: dict[str, Json]) -> list[dict[str, Json]]:
    listed = data.get("list")
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _asset(item: dict[str, Json]) -> LibraryAsset:
    status = item.get("status")
    is_approved = True if status == _APPROVED else False if status == _REFUSED else None
    return LibraryAsset(str(item["asset_id"]), is_approved, _line(item.get("fail_reason")))


def _line(text: Json, *secrets: str) -> str:
    return sanitize_line(str(text or ""), max_chars=200, secrets=secrets)


def _text(data: dict[str, Json], key: str) -> str:
    value = data.get(key)
    if not value or not isinstance(value, str | int):
        raise UploadError(
            f"the asset library's answer has no {key}", hint="look at the vendor's page, and try again"
        )
    return str(value)
