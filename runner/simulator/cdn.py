"""The origin of the assets: signed addresses, ranges, no key. A second one, without faults, is where redirects lead."""

from __future__ import annotations

import re

from aiohttp import web

from runner.simulator import deed
from runner.simulator.delivery import File, deliver
from runner.simulator.fault import Fault, Place
from runner.simulator.film import last_frame, video
from runner.simulator.task import Task
from runner.simulator.world import World

_ASSET_PATH = re.compile(r"/(task_[0-9a-f]{32})/(video\.mp4|last_frame\.png)")


class Cdn:
    """
    Answers requests for assets.

    Attributes:
        other_origin: Where its redirects lead; None for the origin that plays no faults.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.other_origin: str | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        ledger = self._world.ledger
        ledger.requests[f"{request.method} asset"] += 1
        if "Authorization" in request.headers:
            ledger.asset_requests_with_key += 1
        if request.method not in ("GET", "HEAD"):
            ledger.stray_posts += 1
            return web.Response(status=405)
        found = _ASSET_PATH.fullmatch(request.path)
        task = self._world.find(found[1]) if found else None
        if not found or not task:
            return _refused(404, "NoSuchKey")
        if why := self._world.why_refused(task, request.path, request.query):
            return _refused(403, why)
        return await self._serve(request, task, found[2])

    async def _serve(self, request: web.BaseRequest, task: Task, name: str) -> web.StreamResponse:
        is_video = name == "video.mp4"
        fault = None
        if self.other_origin is not None:
            fault = task.next_fault(Place.ASSET if is_video else Place.LAST_FRAME)
        if fault:
            place = Place.ASSET if is_video else Place.LAST_FRAME
            self._world.ledger.faults[f"{place} {fault.name}"] += 1
            response = await self._deed(request, task, fault)
            if response is not None:
                return response
        file = asset_file(task, name, fault)
        return await deliver(request, file, fault, self._world.ledger.counter(f"{task.task_id}/{name}"))

    async def _deed(self, request: web.BaseRequest, task: Task, fault: Fault) -> web.StreamResponse | None:
        if fault.name == "expired_url":
            task.revoked = task.issued
            return _refused(403, "AccessDenied: Request has expired")
        if fault.name == "redirect_loop":
            return web.Response(status=302, headers={"Location": request.raw_path})
        return await deed.act(
            request,
            fault,
            request_id=self._world.new_request_id(),
            good=None,
            other_origin=self.other_origin or "",
        )


def asset_file(task: Task, name: str, fault: Fault | None, *, with_ranges: bool = True) -> File:
    """Return an asset of a succeeded task."""
    if name == "last_frame.png":
        body, content_type = last_frame(task.film), "image/png"
    else:
        plot, with_moov = task.rule.task, fault is None or fault.name != "no_moov"
        body = video(task.film, moov_first=plot.moov_first, with_moov=with_moov, size=plot.asset_bytes)
        content_type = "video/mp4"
    return File(body, content_type, f'"{task.film.digest[:24]}-{body.size:x}"', with_ranges)


def _refused(status: int, code: str) -> web.Response:
    """Return an error as object stores write them."""
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return web.Response(status=status, text=xml, content_type="application/xml")
