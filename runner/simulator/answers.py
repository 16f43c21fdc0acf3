"""Requests as SDKs send them, and answers other than tasks, in their documented forms (facts F42, F43)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from email.utils import format_datetime
from types import MappingProxyType

from aiohttp import web
from msgspec import Struct

from runner.core.model import Json
from runner.core.problem import Finding
from runner.jsontext import dumps, loads
from runner.schema import catalog
from runner.simulator.faults import Fault
from runner.simulator.task_shapes import FROM_FORM

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class SimulatedAnswer(Struct, frozen=True):
    """A complete answer."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = _NO_HEADERS

    def to_response(self, headers: Mapping[str, str] = _NO_HEADERS) -> web.Response:
        """Return the answer as aiohttp sends it, with additional headers."""
        response = web.Response(status=self.status, body=self.body, headers=self.headers)
        if self.content_type:
            response.headers["Content-Type"] = self.content_type
        response.headers.update(headers)
        return response


def json_answer(body: Json, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS) -> SimulatedAnswer:
    """Return an answer with a JSON body."""
    return SimulatedAnswer(status, dumps(body), "application/json", headers)


def error_object(
    status: int,
    message: str,
    code: Json,
    error_type: str = "api_error",
    *,
    request_id: str,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> SimulatedAnswer:
    """Return an error of the OpenAI form, E1; its message ends with the id of the request."""
    text = f"{message} (request id: {request_id})"
    return json_answer(
        {"error": {"message": text, "type": error_type, "param": None, "code": code}}, status, headers
    )


def code_and_message(status: int, code: str, message: str) -> SimulatedAnswer:
    """Return an error of the task form, E2."""
    return json_answer({"code": code, "message": message, "data": None}, status)


def _html_page(status: int, title: str) -> SimulatedAnswer:
    """Return a page as a proxy in front of the gateway sends it."""
    html = (
        f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\r\n"
    )
    return SimulatedAnswer(status, html.encode(), "text/html; charset=utf-8")


def invalid_request(model: str, message: str, request_id: str) -> SimulatedAnswer:
    """Return the answer to an invalid body: the pages of Wan 2 and Hailuo show the task form, the others E1."""
    if model.startswith(("wan2", "MiniMax")):
        return code_and_message(400, "invalid_request", message)
    return error_object(400, message, "invalid_request", "invalid_request_error", request_id=request_id)


def unauthorized(request_id: str) -> SimulatedAnswer:
    """Return the answer to a request without an accepted key."""
    return error_object(401, "Invalid token", "access_denied", request_id=request_id)


def task_not_exist() -> SimulatedAnswer:
    """Return the answer to a poll for a task that the gateway does not know."""
    return code_and_message(400, "task_not_exist", "task_not_exist")


def task_not_ready(phase: str) -> SimulatedAnswer:
    """Return the answer of the content route while there is no content."""
    return code_and_message(400, "task_not_ready", f"task is not completed yet, current status: {phase}")


_NO_QUOTA = "insufficient_user_quota"
_QUOTA_TEXT = "user quota is not enough"
_RATE_LIMIT_TEXT = "Rate limit exceeded, too many requests"

_ERROR_OBJECTS: Mapping[str, tuple[int, str, str, str]] = MappingProxyType(
    {
        "bad_request": (400, "Invalid request body", "bad_request_body", "invalid_request_error"),
        "payment_required": (402, "Insufficient balance", "", "api_error"),
        "forbidden": (403, "User has been banned", "", "api_error"),
        "quota": (429, _QUOTA_TEXT, _NO_QUOTA, "api_error"),
        "token_invalid": (500, "The token is invalid", "token_invalid", "api_error"),
        "throttled": (429, _RATE_LIMIT_TEXT, "rate_limit_exceeded", "api_error"),
        "throttled_chinese": (429, "当前分组上游负载已饱和，请稍后再试", "", "api_error"),
        "no_channel": (503, "No available channel for this model", "get_channel_failed", "api_error"),
        "json": (200, "upstream error", "bad_response", "api_error"),
    }
)
_OTHER_ANSWERS: Mapping[str, SimulatedAnswer] = MappingProxyType(
    {
        "invalid_request": code_and_message(400, "invalid_request", "unsupported media combination"),
        "quota_403": code_and_message(403, _NO_QUOTA, _QUOTA_TEXT),
        "not_found": code_and_message(404, "task_not_found", "task not found"),
        "gone": code_and_message(410, "gone", "no longer available"),
        "too_large": code_and_message(413, "read_request_body_failed", "request body too large"),
        "task_not_exist": task_not_exist(),
        "throttled_empty": SimulatedAnswer(429),
        "server_error": code_and_message(500, "get_task_failed", "get task failed"),
        "bad_gateway": _html_page(502, "502 Bad Gateway"),
        "unavailable": _html_page(503, "503 Service Temporarily Unavailable"),
        "html": _html_page(200, "Welcome"),
        "empty": SimulatedAnswer(200),
        "no_id": json_answer({"object": "video", "status": "queued", "progress": 0}),
    }
)


def answer_for(fault: Fault, request_id: str) -> SimulatedAnswer | None:
    """
    Return the answer that a fault consists of, or None if it is not a complete answer.

    Args:
        request_id: Of the request, for the message.
    """
    name = fault.name
    if name in _ERROR_OBJECTS:
        return error_object(*_ERROR_OBJECTS[name], request_id=request_id)
    if name == "unauthorized":
        return unauthorized(request_id)
    if name in ("throttled_seconds", "throttled_date", "throttled_ms"):
        headers = _retry_after(name, float(fault.option("after_s")))
        return error_object(*_ERROR_OBJECTS["throttled"], request_id=request_id, headers=headers)
    return _OTHER_ANSWERS.get(name)


def _retry_after(fault_name: str, after_s: float) -> dict[str, str]:
    if fault_name == "throttled_seconds":
        return {"Retry-After": f"{after_s:g}"}
    if fault_name == "throttled_ms":
        return {"retry-after-ms": f"{1000 * after_s:.0f}"}
    return {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=after_s), usegmt=True)}


async def respond_with_fault(
    request: web.BaseRequest,
    fault: Fault,
    *,
    request_id: str,
    right_answer: SimulatedAnswer | None,
    other_origin: str,
) -> web.StreamResponse | None:
    """
    Respond to a request as a fault says, or return None if the fault is about a file.

    Args:
        right_answer: What the answer would be without the fault; None if there would be no such answer.
        other_origin: Where redirects lead.
    """
    answer = answer_for(fault, request_id)
    if answer is not None:
        return answer.to_response()
    right_answer = right_answer or SimulatedAnswer(200)
    match fault.name:
        case "reset":
            return _reset(request)
        case "hang":
            await asyncio.sleep(float(fault.option("for_s")))
            return _reset(request)
        case "partial_answer":
            return await _send_half(request, right_answer)
        case "redirect":
            # 307 keeps the method: a client that follows it sends its POST a second time.
            status = 302 if request.method in ("GET", "HEAD") else 307
            return web.Response(status=status, headers={"Location": f"{other_origin}{request.raw_path}"})
        case "poll_after":
            wait_ms = 1000 * float(fault.option("after_s"))
            return right_answer.to_response({"openai-poll-after-ms": f"{wait_ms:.0f}"})
    return None


def _reset(request: web.BaseRequest) -> web.Response:
    """Reset the connection: the client gets ECONNRESET, not an end of file."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            # With a linger time of zero, closing sends RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    # Nobody receives it.
    return web.Response(status=500)


async def _send_half(request: web.BaseRequest, answer: SimulatedAnswer) -> web.StreamResponse:
    """Send half of an answer that declares its whole length, then close the connection."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = max(2, len(answer.body))
    response.content_type = answer.content_type or "application/octet-stream"
    response.force_close()
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    return response


async def read_body(request: web.BaseRequest) -> Json:
    """
    Return the body of a submission; the texts of a form get the types that the model's schema has.

    Raises:
        ValueError: It is neither JSON nor a form.
        web.HTTPRequestEntityTooLarge: It is too large.
    """
    content = await request.read()
    if request.content_type != "multipart/form-data":
        return loads(content)
    fields: dict[str, Json] = {}
    for part in parts(request.headers["Content-Type"], content):
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is None and isinstance(name, str):
            fields[name] = text_of(part)
    schema = catalog.load_catalog().select(fields)
    # The gateway knows a submission by its content type; here it is an option of the task.
    return {**(fields if isinstance(schema, Finding) else schema.normalize(fields)), FROM_FORM: True}


def parts(content_type: str, content: bytes) -> list[Message]:
    """
    Split a form.

    Raises:
        ValueError: It is not one.
    """
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    message = BytesParser(policy=HTTP).parsebytes(head + content)
    if not message.is_multipart():
        raise ValueError("the body is not a form")
    return [part for part in message.get_payload() if isinstance(part, Message)]


def text_of(part: Message) -> str:
    """Return the text of a field."""
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
