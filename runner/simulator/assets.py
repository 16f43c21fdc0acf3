"""Send a file: whole, in ranges where they are offered, or spoilt as a scenario asks."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from runner.simulator import answers
from runner.simulator.faults import Fault, Place
from runner.simulator.state import SimulatorState
from runner.simulator.task import Task
from runner.simulator.video import MediaBody, last_frame, video

_CHUNK_BYTES = 256 * 1024
_TERABYTE = 10**12
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class File(Struct, frozen=True):
    """
    What a request asks for.

    Attributes:
        etag: Differs wherever the bytes do.
        with_ranges: Whether it is offered in parts; the content route offers none (fact F81).
    """

    body: MediaBody
    content_type: str
    etag: str
    with_ranges: bool


class _Plan(Struct, frozen=True):
    """
    What is sent.

    Attributes:
        start, stop: The part of the file.
        declared: Content-Length, or None for none.
        halt_s: How long to wait before the end; None to end at once.
    """

    start: int
    stop: int
    declared: int | None
    status: int = 200
    halt_s: float | None = None
    bytes_per_s: float | None = None


async def deliver(
    request: web.BaseRequest, file: File, fault: Fault | None, served: Callable[[int], None]
) -> web.StreamResponse:
    """
    Send a file.

    Args:
        fault: One of those about files, or None.
        served: Is told how many bytes were sent.
    """
    name = fault.name if fault else None
    size = file.body.size
    etag = file.etag
    if name == "etag_changes":
        etag = f'"{uuid4().hex}"'
    span = _asked_range(request, size, etag) if file.with_ranges and name != "range_ignored" else None
    if name == "range_refused" and "Range" in request.headers:
        span = (size, size)
    if span and span[0] >= size:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    plan = _Plan(*(span or (0, size)), declared=0, status=206 if span else 200)
    plan = replace(plan, declared=plan.stop - plan.start)
    body = file.body
    headers = {"Content-Type": file.content_type}
    if file.with_ranges:
        headers |= {"ETag": etag, "Accept-Ranges": "bytes"}
    if span:
        headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
    if name == "gzip":
        packed = gzip.compress(body[:], compresslevel=1)
        body, plan = MediaBody(packed, len(packed)), _Plan(0, len(packed), len(packed))
        headers["Content-Encoding"] = "gzip"
    elif fault:
        plan = _damaged(plan, fault)
    return await _send(request, body, plan, headers, served)


def _damaged(plan: _Plan, fault: Fault) -> _Plan:
    """Return what is sent under a fault."""
    length = plan.stop - plan.start
    match fault.name:
        case "truncated":
            return replace(plan, stop=plan.start + int(length * float(fault.option("at"))))
        case "cut":
            kept = int(length * float(fault.option("at")))
            return replace(plan, stop=plan.start + kept, declared=kept)
        case "stall":
            kept = int(length * float(fault.option("at")))
            return replace(plan, stop=plan.start + kept, halt_s=float(fault.option("for_s")))
        case "wrong_length":
            return replace(plan, declared=length + int(fault.option("extra")))
        case "huge":
            return replace(plan, declared=_TERABYTE, halt_s=3600.0)
        case "no_length":
            return replace(plan, declared=None)
        case "slow":
            return replace(plan, bytes_per_s=max(1.0, float(fault.option("bytes_per_s"))))
    return plan


def _asked_range(request: web.BaseRequest, size: int, etag: str) -> tuple[int, int] | None:
    """Return the part that a request asks for, its end excluded, or None for the whole (RFC 9110, 14)."""
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if not match or match[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start, stop = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    # A last byte before the first makes the header invalid, and an invalid one is ignored.
    return (start, stop) if start < stop or start >= size else None


async def _send(
    request: web.BaseRequest,
    body: MediaBody,
    plan: _Plan,
    headers: dict[str, str],
    served: Callable[[int], None],
) -> web.StreamResponse:
    length = plan.stop - plan.start
    is_plain = plan.declared == length and plan.halt_s is None and plan.bytes_per_s is None
    if is_plain and length <= _CHUNK_BYTES:
        served(length)
        return web.Response(status=plan.status, body=body[plan.start : plan.stop], headers=headers)
    response = web.StreamResponse(status=plan.status, headers=headers)
    if plan.declared is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = plan.declared
        if plan.declared != length:
            # The connection can't serve another request after a body of the wrong length.
            response.force_close()
    await response.prepare(request)
    async for piece in _pieces(body, plan):
        await response.write(piece)
        served(len(piece))
    if plan.halt_s is not None:
        await asyncio.sleep(plan.halt_s)
    return response


async def _pieces(body: MediaBody, plan: _Plan) -> AsyncIterator[bytes]:
    """Cut what is sent into pieces, a tenth of a second's worth each where it trickles."""
    step = _CHUNK_BYTES
    if plan.bytes_per_s is not None:
        step = max(1, int(plan.bytes_per_s / 10))
    for start in range(plan.start, plan.stop, step):
        yield body[start : min(start + step, plan.stop)]
        if plan.bytes_per_s is not None:
            await asyncio.sleep(step / plan.bytes_per_s)


_ASSET_PATH = re.compile(r"/(task_[0-9a-f]{32})/(video\.mp4|last_frame\.png)")


class AssetServer:
    """
    Answers requests for assets.

    Attributes:
        other_origin: Where its redirects lead; None for the origin that plays no faults.
    """

    def __init__(self, world: SimulatorState) -> None:
        self._state = world
        self.other_origin: str | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        ledger = self._state.ledger
        ledger.requests[f"{request.method} asset"] += 1
        if "Authorization" in request.headers:
            ledger.asset_requests_with_key += 1
        if request.method not in ("GET", "HEAD"):
            ledger.stray_posts += 1
            return web.Response(status=405)
        found = _ASSET_PATH.fullmatch(request.path)
        task = self._state.find(found[1]) if found else None
        if not found or not task:
            return _refused(404, "NoSuchKey")
        if why := self._state.why_refused(task, request.path, request.query):
            return _refused(403, why)
        return await self._serve(request, task, found[2])

    async def _serve(self, request: web.BaseRequest, task: Task, name: str) -> web.StreamResponse:
        is_video = name == "video.mp4"
        fault = None
        if self.other_origin is not None:
            fault = task.next_fault(Place.ASSET if is_video else Place.LAST_FRAME)
        if fault:
            place = Place.ASSET if is_video else Place.LAST_FRAME
            self._state.ledger.faults[f"{place} {fault.name}"] += 1
            response = await self._response(request, task, fault)
            if response is not None:
                return response
        file = asset_file(task, name, fault)
        return await deliver(request, file, fault, self._state.ledger.counter(f"{task.task_id}/{name}"))

    async def _response(
        self, request: web.BaseRequest, task: Task, fault: Fault
    ) -> web.StreamResponse | None:
        if fault.name == "expired_url":
            task.revoked = task.issued
            return _refused(403, "AccessDenied: Request has expired")
        if fault.name == "redirect_loop":
            return web.Response(status=302, headers={"Location": request.raw_path})
        return await answers.perform(
            request,
            fault,
            request_id=self._state.new_request_id(),
            good=None,
            other_origin=self.other_origin or "",
        )


def asset_file(task: Task, name: str, fault: Fault | None, *, with_ranges: bool = True) -> File:
    """Return an asset of a succeeded task."""
    if name == "last_frame.png":
        body, content_type = last_frame(task.video), "image/png"
    else:
        plot, with_moov = task.rule.task, fault is None or fault.name != "no_moov"
        body = video(task.video, moov_first=plot.moov_first, with_moov=with_moov, size=plot.asset_bytes)
        content_type = "video/mp4"
    return File(body, content_type, f'"{task.video.digest[:24]}-{body.size:x}"', with_ranges)


def _refused(status: int, code: str) -> web.Response:
    """Return an error as object stores write them."""
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return web.Response(status=status, text=xml, content_type="application/xml")
