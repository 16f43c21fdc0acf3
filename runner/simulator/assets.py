"""Send files: complete, in ranges if these are offered, or damaged as a scenario says."""

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
from runner.simulator.faults import Fault, RequestKind
from runner.simulator.state import SimulatorState
from runner.simulator.task_shapes import Task
from runner.simulator.video import MediaBody, last_frame, video

_CHUNK_BYTES = 256 * 1024
_TERABYTE = 10**12
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class ServedFile(Struct, frozen=True):
    """
    A file to send.

    Attributes:
        etag: Changes with the content.
        with_ranges: Whether ranges are offered; the content route offers none (fact F81).
    """

    body: MediaBody
    content_type: str
    etag: str
    with_ranges: bool


class _Transfer(Struct, frozen=True):
    """
    What is sent of a file.

    Attributes:
        start, stop: The part of the file.
        content_length: None for no such header.
        pause_s: How long to wait before the end; None to end at once.
    """

    start: int
    stop: int
    content_length: int | None
    status: int = 200
    pause_s: float | None = None
    bytes_per_s: float | None = None


async def send_file(
    request: web.BaseRequest, file: ServedFile, fault: Fault | None, on_sent: Callable[[int], None]
) -> web.StreamResponse:
    """
    Send a file.

    Args:
        fault: A fault of files, or None.
        on_sent: Is called with numbers of bytes that were sent.
    """
    name = fault.name if fault else None
    size = file.body.size
    etag = file.etag
    if name == "etag_changed":
        etag = f'"{uuid4().hex}"'
    span = _requested_range(request, size, etag) if file.with_ranges and name != "range_ignored" else None
    if name == "range_refused" and "Range" in request.headers:
        span = (size, size)
    if span and span[0] >= size:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    start, stop = span or (0, size)
    transfer = _Transfer(start, stop, stop - start, status=206 if span else 200)
    body = file.body
    headers = {"Content-Type": file.content_type}
    if file.with_ranges:
        headers |= {"ETag": etag, "Accept-Ranges": "bytes"}
    if span:
        headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
    if name == "gzip":
        compressed = gzip.compress(body[:], compresslevel=1)
        body = MediaBody(compressed, len(compressed))
        transfer = _Transfer(0, body.size, body.size)
        headers["Content-Encoding"] = "gzip"
    elif fault:
        transfer = _with_fault(transfer, fault)
    return await _send(request, body, transfer, headers, on_sent)


def _with_fault(transfer: _Transfer, fault: Fault) -> _Transfer:
    """Return what is sent with a fault."""
    length = transfer.stop - transfer.start
    match fault.name:
        case "truncated":
            return replace(transfer, stop=transfer.start + int(length * float(fault.option("at"))))
        case "short_file":
            part = int(length * float(fault.option("at")))
            return replace(transfer, stop=transfer.start + part, content_length=part)
        case "stall":
            part = int(length * float(fault.option("at")))
            return replace(transfer, stop=transfer.start + part, pause_s=float(fault.option("for_s")))
        case "wrong_length":
            return replace(transfer, content_length=length + int(fault.option("extra")))
        case "huge_length":
            return replace(transfer, content_length=_TERABYTE, pause_s=3600.0)
        case "no_length":
            return replace(transfer, content_length=None)
        case "slow":
            return replace(transfer, bytes_per_s=max(1.0, float(fault.option("bytes_per_s"))))
    return transfer


def _requested_range(request: web.BaseRequest, size: int, etag: str) -> tuple[int, int] | None:
    """Return the requested part, its end excluded, or None for the whole file (RFC 9110, 14)."""
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
    transfer: _Transfer,
    headers: dict[str, str],
    on_sent: Callable[[int], None],
) -> web.StreamResponse:
    length = transfer.stop - transfer.start
    is_plain = transfer.content_length == length and transfer.pause_s is None and transfer.bytes_per_s is None
    if is_plain and length <= _CHUNK_BYTES:
        on_sent(length)
        return web.Response(
            status=transfer.status, body=body[transfer.start : transfer.stop], headers=headers
        )
    response = web.StreamResponse(status=transfer.status, headers=headers)
    if transfer.content_length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = transfer.content_length
        if transfer.content_length != length:
            # The connection can't serve another request after a body of the wrong length.
            response.force_close()
    await response.prepare(request)
    async for chunk in _chunks(body, transfer):
        await response.write(chunk)
        on_sent(len(chunk))
    if transfer.pause_s is not None:
        await asyncio.sleep(transfer.pause_s)
    return response


async def _chunks(body: MediaBody, transfer: _Transfer) -> AsyncIterator[bytes]:
    """Yield what is sent in chunks; if it is sent slowly, each is what a tenth of a second takes."""
    step = _CHUNK_BYTES
    if transfer.bytes_per_s is not None:
        step = max(1, int(transfer.bytes_per_s / 10))
    for start in range(transfer.start, transfer.stop, step):
        yield body[start : min(start + step, transfer.stop)]
        if transfer.bytes_per_s is not None:
            await asyncio.sleep(step / transfer.bytes_per_s)


_ASSET_PATH = re.compile(r"/(task_[0-9a-f]{32})/(video\.mp4|video\.mov|last_frame\.png)")


class AssetServer:
    """
    Answers requests for assets.

    Attributes:
        other_origin: Where redirects lead; None for the origin without faults.
    """

    def __init__(self, state: SimulatorState) -> None:
        self._state = state
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
        task = self._state.tasks.get(found[1]) if found else None
        if not found or not task:
            return _xml_error(404, "NoSuchKey")
        if reason := self._state.refusal(task, request.path, request.query):
            return _xml_error(403, reason)
        return await self._serve(request, task, found[2])

    async def _serve(self, request: web.BaseRequest, task: Task, name: str) -> web.StreamResponse:
        kind = RequestKind.LAST_FRAME if name == "last_frame.png" else RequestKind.ASSET
        fault = task.next_fault(kind) if self.other_origin is not None else None
        if fault:
            self._state.ledger.faults[f"{kind} {fault.name}"] += 1
            response = await self._fault_response(request, task, fault)
            if response is not None:
                return response
        file = asset_file(task, name, fault)
        return await send_file(
            request, file, fault, self._state.ledger.byte_counter(f"{task.task_id}/{name}")
        )

    async def _fault_response(
        self, request: web.BaseRequest, task: Task, fault: Fault
    ) -> web.StreamResponse | None:
        if fault.name == "expired_url":
            task.revoked = task.issued
            return _xml_error(403, "AccessDenied: Request has expired")
        if fault.name == "redirect_loop":
            return web.Response(status=302, headers={"Location": request.raw_path})
        return await answers.respond_with_fault(
            request,
            fault,
            request_id=self._state.new_request_id(),
            right_answer=None,
            other_origin=self.other_origin or "",
        )


def asset_file(task: Task, name: str, fault: Fault | None, *, with_ranges: bool = True) -> ServedFile:
    """Return an asset of a succeeded task."""
    if name == "last_frame.png":
        body, content_type = last_frame(task.video), "image/png"
    else:
        behavior, with_moov = task.rule.task, fault is None or fault.name != "no_moov"
        body = video(
            task.video, moov_first=behavior.moov_first, with_moov=with_moov, size=behavior.asset_bytes
        )
        content_type = task.video.content_type
    return ServedFile(body, content_type, f'"{task.video.digest[:24]}-{body.size:x}"', with_ranges)


def _xml_error(status: int, code: str) -> web.Response:
    """Return an error in the form of object stores."""
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return web.Response(status=status, text=xml, content_type="application/xml")
