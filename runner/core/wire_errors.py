"""
Find the error in whatever the API, a proxy or an upstream wrote.

The places are those of fact F53: two documented forms of error body, the fields of a failed task, HTML,
plain text, nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from msgspec import Struct

from runner.core.model import Json
from runner.core.sanitize import sanitize_line
from runner.core.wire_vocabulary import (
    CODE_KEYS,
    FAILURE_PATHS,
    REASON_PATHS,
    TEXT_KEYS,
    at,
    decode,
    read_json,
)

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
        has_text: Whether it has a reason in words, not only a code.
        is_page: Whether it was an HTML page, which this API never writes.
    """

    message: str
    code: str | None = None
    request_id: str | None = None
    search_text: str = ""
    own_code: str = ""
    is_explicit: bool = False
    has_text: bool = False
    is_page: bool = False


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
    text = decode(body[:_PAGE_READ_BYTES])
    is_page = _PAGE.match(text) is not None or "html" in _header(headers, "content-type").lower()
    message = sanitize_line(_text_of_page(text) if is_page else text, max_chars=_PAGE_CHARS, secrets=secrets)
    return ApiErrorInfo(
        message or _status_text(status), request_id=request_id, search_text=message.lower(), is_page=is_page
    )


def find_error(
    body: Json, *, secrets: Iterable[str] = (), request_id: str | None = None
) -> ApiErrorInfo | None:
    """
    Find the error in a JSON body, in the order of facts F53 and F54; None if there is none.

    Args:
        request_id: The id to return if the body has none itself.
    """
    if not isinstance(body, dict):
        return None
    places = [at(body, path) for path in _FIRST_PATHS]
    if _text(body.get("code")).lower() not in SUCCESS_CODES:
        keys = ("code", "message", "msg", "type")
        # A task that failed may stand in an envelope that says success.
        places.append(
            {key: body.get(key) for key in keys if _text(body.get(key)).lower() not in SUCCESS_CODES}
        )
    places.append(_base_response(body))
    places += [at(body, path) for path in _NEXT_PATHS]
    return _first_error(places, body, tuple(secrets), request_id)


def find_failure(body: Json, *, secrets: Iterable[str] = ()) -> ApiErrorInfo | None:
    """
    Find an error where nothing but an error can be; None if there is none.

    >>> find_failure({"message": "queued"}), find_failure({"fail_reason": "no image"}).message
    (None, 'no image')
    """
    if not isinstance(body, dict):
        return None
    places = [_base_response(body), *(at(body, path) for path in FAILURE_PATHS)]
    return _first_error(places, body, tuple(secrets), None)


_FIRST_PATHS, _NEXT_PATHS = (
    FAILURE_PATHS[:2],
    (*FAILURE_PATHS[2:3], *REASON_PATHS[:2], *FAILURE_PATHS[3:], *REASON_PATHS[2:]),
)


def _base_response(body: dict[str, Json]) -> Json:
    """Return ``base_resp`` if it has the code of an error (fact F54)."""
    response = body.get("base_resp")
    is_error = isinstance(response, dict) and _text(response.get("status_code")) not in ("", *SUCCESS_CODES)
    return response if is_error else None


def _first_error(
    places: Iterable[Json], body: dict[str, Json], secrets: tuple[str, ...], request_id: str | None
) -> ApiErrorInfo | None:
    """Return the error at the first place that has a text, with the first code; without any text, the first code."""
    first: tuple[str, str] | None = None
    for place in places:
        code, kind, text = _parts(place)
        if text:
            if not code and first is not None:
                code, kind = first
            return _error(code, kind, text, body, secrets, request_id)
        if code and first is None:
            first = code, kind
    return None if first is None else _error(*first, "", body, secrets, request_id)


def _parts(place: Json) -> tuple[str, str, str]:
    """Return code, type and text of what may be an error."""
    if isinstance(place, list):
        place = place[0] if place else None
    if not isinstance(place, dict):
        text = _text(place)
        # Where errors have a reason, successes may have an address.
        return "", "", "" if text.startswith(("http://", "https://")) else text
    code = next(filter(None, (_text(place.get(key)) for key in CODE_KEYS)), "")
    text = next(filter(None, (_text(place.get(key)) for key in TEXT_KEYS)), "")
    return code, _text(place.get("type")), text


def _error(
    code: str,
    kind: str,
    text: str,
    body: dict[str, Json],
    secrets: tuple[str, ...],
    request_id: str | None,
) -> ApiErrorInfo:
    search_text = f"{code} {kind} {text}"[:_SEARCH_CHARS].lower()
    has_text = bool(text)
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
        has_text=has_text,
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


# A prompt that was refused will be refused again, so such a job fails permanently, and no rerun submits it unless
# told to. So these must be specific: codes that prove it, and words that no other error has.
#
# Alibaba Model Studio: DataInspectionFailed (400, "Input or output data may contain inappropriate
# content"), IPInfringementSuspect. Volcengine Ark: {Input,Output}{Text,Image,Video,Audio}SensitiveContentDetected
# with suffixes such as .PolicyViolation and .PrivacyInformation, and …RiskDetection for the optional
# content security service. OpenAI: moderation_blocked, content_policy_violation.
# Texts, not compiled patterns: they are long, and most runs meet no error.
_MODERATION_CODE = (
    r"data_?inspection_?failed|ip_?infringement_?suspect|sensitive_?content_?detected"
    r"|(?:input|output)(?:text|image|video|audio)risk_?detection|content_?risk_?blocked"
    r"|content_policy_violation|moderation_blocked|policy_?violation|content_filter(?:ed)?\b"
    r"|\bsensitive_words_detected\b|\bprompt_blocked\b"
)
_MODERATION_WORDS = (
    r"content[ _-]polic|(?:usage|safety|community) polic|polic(?:y|ies) violation|violat\w+ (?:\w+ ){0,4}polic"
    r"|due to (?:\w+ ){0,3}polic|\bsafety (?:system|filter|check|guideline|reason|concern|restriction)"
    r"|(?:inappropriate|prohibited|harmful|unsafe) (?:content|information|words?|material|terms?|use)"
    r"|(?<!case[ -])\bsensitive (?:content|information|words?|material|terms?|topics?|data)"
    r"|green net|\bmoderation\b|\bnsfw\b|\bguardrails?\b|\brisk[ _-]?control\b"
    r"|copyright (?:restriction|infringement)"
    r"|敏感|违规|违禁|内容安全|风控|审核"
)


def is_moderation_code(search_text: str) -> bool:
    """
    Return whether an error's code, or a code in its message, is one of a content policy.

    Args:
        search_text: Code and message in lower case.

    >>> is_moderation_code("inputtextsensitivecontentdetected.policyviolation")
    True
    """
    return re.search(_MODERATION_CODE, search_text) is not None


_OUTPUT_MODERATION = (
    r"output_?(?:video|audio|image)_?(?:sensitive|risk)|output (?:video|audio)|输出(?:的)?(?:视频|音频)"
)


def is_output_moderation(search_text: str) -> bool:
    """
    Return whether an error of a content policy is about what was made, not about what was asked for.

    >>> is_output_moderation("outputvideosensitivecontentdetected")
    True
    >>> is_output_moderation("datainspectionfailed input or output data may contain inappropriate content")
    False
    """
    return re.search(_OUTPUT_MODERATION, search_text) is not None


def is_moderation(search_text: str) -> bool:
    """
    Return whether code or wording of an error is that of a content policy.

    >>> is_moderation("输入内容包含敏感信息"), is_moderation("first frame is missing")
    (True, False)
    """
    return is_moderation_code(search_text) or re.search(_MODERATION_WORDS, search_text) is not None
