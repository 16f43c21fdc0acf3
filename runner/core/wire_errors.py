"""
Find the error in whatever the API, a proxy or an upstream wrote.

The places are those of fact F53: two documented forms of error body, the fields of a failed task, HTML,
plain text, nothing at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from msgspec import Struct

from runner import jsontext
from runner.core.model import Json
from runner.core.sanitize import sanitize_line

MESSAGE_CHARS = 500
_PAGE_CHARS = 300
_PAGE_READ_BYTES = 8192
_CODE_CHARS = 100
_SEARCH_CHARS = 4000
_SUFFIX_CHARS = 300

SUCCESS_CODES = frozenset({"success", "succeed", "ok", "0", "200"})
"""Values of an envelope's ``code`` that mean there is no error."""

_REQUEST_ID_HEADERS = ("x-oneapi-request-id", "x-request-id")
# A relay behind a relay appends its own; the last one is of the gateway that we use.
_REQUEST_ID_SUFFIX = re.compile(r"\s*[(（]request id:\s*([\w.:-]{1,200})\s*[)）]\s*$", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]*>([^<]*)</title", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_PAGE = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml|!--|h\d|center|title)\b", re.IGNORECASE)


class ApiErrorInfo(Struct, frozen=True):
    """
    The error in an answer.

    Attributes:
        message: One line for a person, without secrets, at most 500 characters.
        code: The API's own code as text, or None; of its upstream, if the message is the upstream's error.
        own_code: The API's own code in lower case; empty if there is none.
        request_id: The API's id of the request, or None.
        search_text: Code, type and message in lower case, for classification; never shown.
        is_explicit: Whether the API itself wrote it as JSON, rather than a proxy as HTML, plain text or nothing.
        is_page: Whether it was an HTML page, which this API never writes.
    """

    message: str
    code: str | None = None
    request_id: str | None = None
    search_text: str = ""
    own_code: str = ""
    is_explicit: bool = False
    is_page: bool = False


def read_json(body: bytes) -> Json:
    """
    Parse a body as JSON; None if it is not JSON, or is ``null``.

    Too deeply nested JSON counts as no JSON.
    """
    try:
        return jsontext.loads(body)
    except (ValueError, RecursionError):
        return _read_leniently(body)


def _read_leniently(body: bytes) -> Json:
    """Parse what is nearly JSON: an id next to a NaN, half of a surrogate pair or a byte order mark is still an id."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def read_error(
    status: int | None, headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str] = ()
) -> ApiErrorInfo:
    """
    Read the error in an answer; the message is never empty.

    >>> error = read_error(401, {}, b'{"error": {"message": "Invalid token (request id: 7f)", "code": ""}}')
    >>> error.message, error.code, error.request_id
    ('Invalid token', None, '7f')
    >>> read_error(502, {}, b"<html><title>502 Bad Gateway</title><body>nginx</body></html>").message
    '502 Bad Gateway'
    >>> read_error(429, {}, b"").message
    'HTTP 429 Too Many Requests'
    """
    request_id = _request_id_of(headers)
    found = find_error(read_json(body), secrets=secrets, request_id=request_id)
    if found is not None:
        return found
    text = body[:_PAGE_READ_BYTES].decode("utf-8", "replace")
    is_page = _PAGE.match(text) is not None or "html" in _header(headers, "content-type").lower()
    message = sanitize_line(_text_of_page(text) if is_page else text, max_chars=_PAGE_CHARS, secrets=secrets)
    return ApiErrorInfo(
        message or _status_text(status), request_id=request_id, search_text=message.lower(), is_page=is_page
    )


def find_error(
    body: Json, *, secrets: Iterable[str] = (), request_id: str | None = None
) -> ApiErrorInfo | None:
    """
    Find the error in a JSON body, in the order of fact F53; None if there is none.

    Args:
        request_id: The id to return if the body has none itself.
    """
    if not isinstance(body, dict):
        return None
    for place in _places(body):
        if error := _error_at(place, body, tuple(secrets), request_id):
            return error
    return None


def _places(body: dict[str, Json]) -> Iterable[Json]:
    """Yield every value that may be the error, the most specific first."""
    yield body.get("error")
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        yield metadata.get("error")
    if _text(body.get("code")).lower() not in SUCCESS_CODES:
        yield {"code": body.get("code"), "message": body.get("message"), "type": body.get("type")}
    yield body.get("fail_reason")
    yield body.get("output")
    detail = body.get("detail")
    yield detail[0] if isinstance(detail, list) and detail else detail


def _error_at(
    place: Json, body: dict[str, Json], secrets: tuple[str, ...], request_id: str | None
) -> ApiErrorInfo | None:
    if isinstance(place, dict):
        code, kind = _text(place.get("code")), _text(place.get("type"))
        text = _text(place.get("message")) or _text(place.get("msg")) or _text(place.get("detail"))
    else:
        code, kind, text = "", "", _text(place)
    if not code and not text:
        return None
    search_text = f"{code} {kind} {text}"[:_SEARCH_CHARS].lower()
    text, inner_code, inner_id = _unwrap_upstream(text)
    text, suffix_id = _split_request_id(text)
    own_code, code = code, inner_code or code
    message = sanitize_line(text, max_chars=MESSAGE_CHARS, secrets=secrets)
    own_id = suffix_id or _text(body.get("request_id")) or inner_id or request_id
    return ApiErrorInfo(
        message or sanitize_line(code, max_chars=MESSAGE_CHARS, secrets=secrets) or "no reason was given",
        code=sanitize_line(code, max_chars=_CODE_CHARS, secrets=secrets) or None,
        request_id=sanitize_line(own_id, max_chars=_CODE_CHARS, secrets=secrets) or None if own_id else None,
        search_text=search_text,
        own_code=own_code.lower(),
        is_explicit=True,
    )


def _unwrap_upstream(text: str) -> tuple[str, str, str | None]:
    """
    Read a message that is an upstream's error body as text, as the gateway passes it on (fact F51).

    Returns:
        Message, code and request id; the code is empty if the message is not such a body.
    """
    if not text.startswith("{"):
        return text, "", None
    document = read_json(text.encode("utf-8", "replace"))
    if not isinstance(document, dict):
        return text, "", None
    error = document.get("error")
    place = error if isinstance(error, dict) else document
    inner = _text(place.get("message")) or _text(error)
    return inner or text, _text(place.get("code")), _text(document.get("request_id")) or None


def _split_request_id(text: str) -> tuple[str, str | None]:
    last = None
    # Only the end is searched: a long text of blanks would take very long.
    while found := _REQUEST_ID_SUFFIX.search(text, max(len(text) - _SUFFIX_CHARS, 0)):
        last = last or found[1]
        text = text[: found.start()]
    return text, last


def _request_id_of(headers: Mapping[str, str]) -> str | None:
    for name in _REQUEST_ID_HEADERS:
        if value := sanitize_line(_header(headers, name), max_chars=_CODE_CHARS):
            return value
    return None


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


def _text(value: Json) -> str:
    """Return text as it is, an integer as text, and an empty text for everything else."""
    if isinstance(value, str):
        return value.strip()
    # Python refuses to convert integers of thousands of digits; no code has them.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    return ""


def _text_of_page(page: str) -> str:
    # It has a table of 2,000 names, and most runs never get a page.
    from html import unescape

    title = _TITLE.search(page)
    if title and title[1].strip():
        return unescape(title[1])
    return unescape(_TAG.sub(" ", _UNSEEN.sub(" ", page)))


def _status_text(status: int | None) -> str:
    if status is None:
        return "no answer"
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


# A prompt that was refused will be refused again, so such a job fails for good, and no rerun submits it unless
# told to. So these must be specific: codes that prove it, and words that no other error has.
#
# Alibaba Model Studio: DataInspectionFailed (400, "Input or output data may contain inappropriate
# content"), IPInfringementSuspect. Volcengine Ark: {Input,Output}{Text,Image,Video,Audio}SensitiveContentDetected
# with suffixes such as .PolicyViolation and .PrivacyInformation, and …RiskDetection for the optional
# content security service. OpenAI: moderation_blocked, content_policy_violation.
_MODERATION_CODE = re.compile(
    r"data_?inspection_?failed|ip_?infringement_?suspect|sensitive_?content_?detected"
    r"|(?:input|output)(?:text|image|video|audio)risk_?detection|content_?risk_?blocked"
    r"|content_policy_violation|moderation_blocked|policy_?violation|content_filter(?:ed)?\b"
    r"|\bsensitive_words_detected\b|\bprompt_blocked\b"
)
_MODERATION_WORDS = re.compile(
    r"content[ _-]policy|usage polic(?:y|ies)|safety (?:system|policy|filter)"
    r"|(?:inappropriate|sensitive|prohibited|harmful|unsafe) (?:content|information|words?|material)"
    r"|green net|content moderation|(?:blocked|rejected|refused|flagged) by moderation"
    r"|copyright (?:restriction|infringement)"
    r"|敏感|违规|违禁|内容安全|(?:未通过|不通过|没有通过).{0,6}审核|审核(?:未|不|失败|拒绝|拦截)"
)


def is_moderation_code(search_text: str) -> bool:
    """
    Return whether an error's code, or a code in its message, is one of a content policy.

    Args:
        search_text: Code and message in lower case.

    >>> is_moderation_code("inputtextsensitivecontentdetected.policyviolation")
    True
    """
    return _MODERATION_CODE.search(search_text) is not None


def is_moderation(search_text: str) -> bool:
    """
    Return whether code or wording of an error is that of a content policy.

    >>> is_moderation("输入内容包含敏感信息"), is_moderation("first frame is missing")
    (True, False)
    """
    return is_moderation_code(search_text) or _MODERATION_WORDS.search(search_text) is not None
