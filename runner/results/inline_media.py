"""
Placeholders for pictures that were sent inside a request: results have their digest and source, not their content.

A data URI of megabytes becomes a string of about 150 characters::

    data:image/png;bytes=40960;sha256=9f2c…;source=/home/ada/frames/1.png

It is a string because the same field has a public URL in other jobs: DuckDB and `datasets` give a column one
type, and refuse or convert one with both texts and objects. It can't be confused with a real data URI, which
has a comma (RFC 2397): commas and semicolons in the path are percent-encoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast
from urllib.parse import quote, unquote

from msgspec import Struct

from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.disk import open_regular

_INLINE = re.compile(r"data:([\w.+/-]*)(?:;[\w.+/=\"-]*)*?;base64,", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"data:(?P<media_type>[^;,]*);bytes=(?P<bytes>\d{1,15});sha256=(?P<sha256>[0-9a-f]{64})"
    r"(?:;source=(?P<source>[^;,]+))?"
)


def replace_inline_media(value: Json) -> Json:
    """
    Replace local files and data URIs, however deep, by placeholders.

    >>> replace_inline_media({"prompt": "a kitten", "image": "data:text/plain;base64,aGk="})["image"][:32]
    'data:text/plain;bytes=2;sha256=8'
    """
    if type(value) is str:
        # The colon first, since lower() makes a new text.
        return _replace_data_uri(value) if value[4:5] == ":" and value[:4].lower() == "data" else value
    # The type first: comparing it takes a tenth of the time of isinstance with an abstract class.
    if type(value) is dict or isinstance(value, Mapping):
        if is_file_reference(value):
            return _placeholder(value["media_type"], value["bytes"], value["sha256"], value[FILE_KEY])
        return {key: replace_inline_media(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_inline_media(item) for item in value]
    return value


def _replace_data_uri(text: str) -> str:
    match = _INLINE.match(text)
    if match is None:
        return text
    payload = text[match.end() :]
    try:
        content = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        # It was sent as it is; the digest is that of the text.
        content = payload.encode("utf-8", "replace")
    return _placeholder(match[1] or "text/plain", len(content), hashlib.sha256(content).hexdigest(), None)


def _placeholder(media_type: str, size_bytes: int, sha256: str, source: str | None) -> str:
    text = f"data:{media_type};bytes={size_bytes};sha256={sha256}"
    return text if not source else f"{text};source={quote(source, safe='/:', errors='surrogateescape')}"


class Restored(Struct, frozen=True):
    """
    A request from the results, with its local files as far as this machine has them.

    Attributes:
        request: With ``{"$file": …}`` references, whether or not the local files are unchanged.
        missing: Why it can't be submitted, one sentence for each file; empty if it can.
    """

    request: Mapping[str, Json]
    missing: tuple[str, ...]


def restore_inline_media(request: Mapping[str, Json]) -> Restored:
    """
    Find the local files that a request from the results was sent with.

    A file is found only if its content has the recorded digest, so a results file from elsewhere can't make
    this machine send a file that its author has not seen.
    """
    missing: list[str] = []
    restored = _restore(request, "request", missing)
    return Restored(cast("Mapping[str, Json]", restored), tuple(missing))


def _restore(value: Json, path: str, missing: list[str]) -> Json:
    if isinstance(value, str):
        match = _PLACEHOLDER.fullmatch(value) if value.startswith("data:") else None
        return value if match is None else _file_reference(match, path, missing)
    if isinstance(value, Mapping):
        return {key: _restore(item, f"{path}.{key}", missing) for key, item in value.items()}
    if isinstance(value, list):
        return [_restore(item, f"{path}[{place}]", missing) for place, item in enumerate(value)]
    return value


def _file_reference(match: re.Match[str], path: str, missing: list[str]) -> Json:
    """Return a reference to the file even if it is missing: a placeholder that is sent as it is might be paid for."""
    source, size_bytes = unquote(match["source"] or "", errors="surrogateescape"), int(match["bytes"])
    if not source:
        missing.append(
            f"{path}: its picture was written in the manifest, and the results have only its digest"
        )
    elif reason := _difference(source, size_bytes, match["sha256"]):
        missing.append(f"{path}: {source!r} {reason}")
    return {
        FILE_KEY: source,
        "sha256": match["sha256"],
        "media_type": match["media_type"],
        "bytes": size_bytes,
    }


def _difference(source: str, size_bytes: int, sha256: str) -> str | None:
    try:
        file = Path(source)
        if not file.is_absolute() or not file.is_file():
            return "is not on this machine"
        if file.stat().st_size != size_bytes:
            return f"has {file.stat().st_size} bytes now, but had {size_bytes} when it was sent"
        with open_regular(file) as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                return "has other content now than when it was sent"
    except (OSError, ValueError) as error:
        return f"can't be read ({error.__class__.__name__})"
    return None
