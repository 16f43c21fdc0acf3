"""Answers that are no task: the refusals and failures of the gateway, in its documented forms (facts F42, F43)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import MappingProxyType

from aiohttp import web
from msgspec import Struct, field

from runner import jsontext
from runner.core.model import Json
from runner.simulator.faults import Fault

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"


class SimulatedAnswer(Struct, frozen=True):
    """A whole answer."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def json_answer(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> SimulatedAnswer:
    """Return an answer with a JSON body."""
    return SimulatedAnswer(status, jsontext.dumps(body), _JSON, headers or {})


def error_object(
    status: int, message: str, code: Json, kind: str = "api_error", request_id: str = ""
) -> SimulatedAnswer:
    """Return an error of the OpenAI form, E1; its message ends with the request's id as the gateway's do."""
    suffix = f" (request id: {request_id})" if request_id else ""
    error = {"message": message + suffix, "type": kind, "param": None, "code": code}
    return json_answer({"error": error}, status)


def code_and_message(status: int, code: str, message: str) -> SimulatedAnswer:
    """Return an error of the task form, E2."""
    return json_answer({"code": code, "message": message, "data": None}, status)


def page(status: int, title: str) -> SimulatedAnswer:
    """Return an HTML page, as a proxy in front of the gateway sends it."""
    html = (
        f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\r\n"
    )
    return SimulatedAnswer(status, html.encode(), _HTML)


def invalid(model: str, message: str, request_id: str) -> SimulatedAnswer:
    """Return the refusal of a body: Wan's pages show the task form, the others the OpenAI form."""
    if model.startswith("wan"):
        return code_and_message(400, "invalid_request", message)
    return error_object(400, message, "invalid_request", "invalid_request_error", request_id)


def not_authorised(request_id: str) -> SimulatedAnswer:
    """Return the answer to a request without a key that is accepted."""
    return error_object(401, "Invalid token", "access_denied", "api_error", request_id)


def task_not_exist() -> SimulatedAnswer:
    """Return the answer to a query for a task that the gateway does not know."""
    return code_and_message(400, "task_not_exist", "task_not_exist")


def task_not_ready(phase: str) -> SimulatedAnswer:
    """Return the content route's answer while there is no content."""
    return code_and_message(400, "task_not_ready", f"task is not completed yet, current status: {phase}")


def _throttled(request_id: str, headers: Mapping[str, str] | None = None) -> SimulatedAnswer:
    answer = error_object(
        429, "Rate limit exceeded, too many requests", "rate_limit_exceeded", "api_error", request_id
    )
    return SimulatedAnswer(answer.status, answer.body, answer.content_type, headers or {})


def _after_seconds(fault: Fault, request_id: str) -> SimulatedAnswer:
    return _throttled(request_id, {"Retry-After": f"{fault.option('after_s'):g}"})


def _after_date(fault: Fault, request_id: str) -> SimulatedAnswer:
    then = datetime.now(UTC) + timedelta(seconds=float(fault.option("after_s")))
    return _throttled(request_id, {"Retry-After": format_datetime(then, usegmt=True)})


def _after_milliseconds(fault: Fault, request_id: str) -> SimulatedAnswer:
    return _throttled(request_id, {"retry-after-ms": f"{1000 * float(fault.option('after_s')):.0f}"})


_NO_QUOTA = "insufficient_user_quota"
_QUOTA_TEXT = "user quota is not enough"

_ANSWERS: Mapping[str, Callable[[Fault, str], SimulatedAnswer]] = MappingProxyType(
    {
        "bad_request": lambda _, at: error_object(
            400, "Invalid request body", "bad_request_body", "invalid_request_error", at
        ),
        "invalid_request": lambda _, __: code_and_message(
            400, "invalid_request", "unsupported media combination"
        ),
        "unauthorized": lambda _, at: not_authorised(at),
        "payment_required": lambda _, at: error_object(402, "Insufficient balance", "", "api_error", at),
        "forbidden": lambda _, at: error_object(403, "User has been banned", "", "api_error", at),
        "quota_403": lambda _, __: code_and_message(403, _NO_QUOTA, _QUOTA_TEXT),
        "not_found": lambda _, __: code_and_message(404, "task_not_found", "task not found"),
        "gone": lambda _, __: code_and_message(410, "gone", "no longer available"),
        "too_large": lambda _, __: code_and_message(
            413, "read_request_body_failed", "request body too large"
        ),
        "task_not_exist": lambda _, __: task_not_exist(),
        "quota": lambda _, at: error_object(429, _QUOTA_TEXT, _NO_QUOTA, "api_error", at),
        "token_invalid": lambda _, at: error_object(
            500, "The token is invalid", "token_invalid", "api_error", at
        ),
        "throttled": lambda _, at: _throttled(at),
        "throttled_chinese": lambda _, at: error_object(
            429, "当前分组上游负载已饱和，请稍后再试", "", "api_error", at
        ),
        "throttled_empty": lambda _, __: SimulatedAnswer(429),
        "throttled_seconds": _after_seconds,
        "throttled_date": _after_date,
        "throttled_ms": _after_milliseconds,
        "server_error": lambda _, __: code_and_message(500, "get_task_failed", "get task failed"),
        "bad_gateway": lambda _, __: page(502, "502 Bad Gateway"),
        "no_channel": lambda _, at: error_object(
            503, "No available channel for this model", "get_channel_failed", "api_error", at
        ),
        "unavailable": lambda _, __: page(503, "503 Service Temporarily Unavailable"),
        "html": lambda _, __: page(200, "Welcome"),
        "json": lambda _, at: error_object(200, "upstream error", "bad_response", "api_error", at),
        "empty": lambda _, __: SimulatedAnswer(200),
    }
)


def answer_for(fault: Fault, request_id: str) -> SimulatedAnswer | None:
    """
    Return the answer that a fault consists of, or None where it is not an answer but a deed.

    Args:
        request_id: Of the request, for the message.
    """
    make = _ANSWERS.get(fault.name)
    return make(fault, request_id) if make else None


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def whole(answer: SimulatedAnswer, headers: Mapping[str, str] = _NO_HEADERS) -> web.Response:
    """Return an answer as aiohttp sends it, with more headers if there are any."""
    response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    if answer.content_type:
        response.headers["Content-Type"] = answer.content_type
    response.headers.update(headers)
    return response


async def perform(
    request: web.BaseRequest,
    fault: Fault,
    *,
    request_id: str,
    good: SimulatedAnswer | None,
    other_origin: str,
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
    good = good or SimulatedAnswer(200)
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


async def _half(request: web.BaseRequest, answer: SimulatedAnswer) -> web.StreamResponse:
    """Send half of an answer that declares its whole length, then close."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = max(2, len(answer.body))
    response.content_type = answer.content_type or "application/octet-stream"
    response.force_close()
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    return response
