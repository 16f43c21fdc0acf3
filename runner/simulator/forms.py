"""Requests as SDKs send them: a multipart form, whose fields are text."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

from aiohttp import web

from runner import jsontext
from runner.core.model import Json
from runner.core.problem import Finding
from runner.schema import catalog
from runner.simulator.task_shapes import FROM_FORM


async def read_body(request: web.BaseRequest) -> Json:
    """
    Return the body of a submission; the texts of a form get the types that the model's schema has.

    Raises:
        ValueError: It is neither JSON nor a form.
        web.HTTPRequestEntityTooLarge: It is too large.
    """
    content = await request.read()
    if request.content_type != "multipart/form-data":
        return jsontext.loads(content)
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
        raise ValueError("the body is no form")
    return [part for part in message.get_payload() if isinstance(part, Message)]


def text_of(part: Message) -> str:
    """Return the text of a field."""
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
