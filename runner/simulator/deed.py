"""Act out the faults that can befall any request: refusals, lost connections, redirects."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

from runner.simulator.answer import Answer, answer_for, json_answer
from runner.simulator.fault import Fault

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def whole(answer: Answer, headers: Mapping[str, str] = _NO_HEADERS) -> web.Response:
    """Return an answer as aiohttp sends it, with more headers if there are any."""
    response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    if answer.content_type:
        response.headers["Content-Type"] = answer.content_type
    response.headers.update(headers)
    return response


async def act(
    request: web.BaseRequest, fault: Fault, *, request_id: str, good: Answer | None, other_origin: str
) -> web.StreamResponse | None:
    """
    Act out a fault, or return None where it is about the file that would be sent.

    Args:
        good: The answer that there would have been; None where it was no such answer.
        other_origin: Where a redirect leads.
    """
    answer = answer_for(fault, request_id)
    if answer is not None:
        return whole(answer)
    good = good or Answer(200)
    match fault.name:
        case "reset":
            return reset(request)
        case "hang":
            await asyncio.sleep(float(fault.option("for_s")))
            return reset(request)
        case "half":
            return await _half(request, good)
        case "redirect":
            # 307 keeps the method: a client that follows it sends its POST a second time.
            status = 302 if request.method in ("GET", "HEAD") else 307
            return web.Response(status=status, headers={"Location": f"{other_origin}{request.raw_path}"})
        case "no_id":
            return whole(json_answer({"object": "video", "status": "queued", "progress": 0}))
        case "poll_after":
            return whole(good, {"openai-poll-after-ms": f"{1000 * float(fault.option('after_s')):.0f}"})
    return None


def reset(request: web.BaseRequest) -> web.Response:
    """Reset the connection: the client sees ECONNRESET, not an end."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            # With a linger time of zero, closing sends RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    # Nobody reads it any more.
    return web.Response(status=500)


async def _half(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send half of an answer that declares its whole length, then close."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = max(2, len(answer.body))
    response.content_type = answer.content_type or "application/octet-stream"
    response.force_close()
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    return response
