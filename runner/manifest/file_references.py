"""
References to local files: what a request has in the place of each file from when it is checked until it is sent.

A reference has the file's path, digest, type and size, so that neither memory nor the store ever has the files.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping

from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.core.problem import JsonPath, find_values
from runner.core.settings import Inputs
from runner.disk import open_regular
from runner.errors import FileChanged
from runner.schema.catalog import Catalog
from runner.schema.request_schema import RequestSchema

_NO_ADDRESSES: Mapping[JsonPath, str] = {}


def uploads_in(
    request: Mapping[str, Json], inputs: Inputs, catalog: Catalog
) -> Iterator[tuple[JsonPath, Mapping[str, Json]]]:
    """
    Yield the references of a request to files that are uploaded, each with its path.

    Args:
        catalog: Has the schema of the request; the asset library is for some fields only.
    """
    if not inputs.is_library:
        yield from _references(request)
    elif isinstance(schema := catalog.select(request), RequestSchema):
        for field in schema.media_fields:
            for path, value in find_values(request, field.path):
                if is_file_reference(value) and field.limits_of(type_beside(request, path)).allows_asset:
                    yield path, value


def only_uploaded(request: Mapping[str, Json], schema: RequestSchema) -> Iterator[JsonPath]:
    """Yield the paths of a request's references that can't be sent inside it."""
    for field in schema.media_fields:
        for path, value in find_values(request, field.path):
            limits = field.limits_of(type_beside(request, path))
            if is_file_reference(value) and not limits.allows_data_uri:
                yield path


def _references(value: Json, path: JsonPath = ()) -> Iterator[tuple[JsonPath, Mapping[str, Json]]]:
    if is_file_reference(value):
        yield path, value
    elif isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _references(child, (*path, key))


def render_request(
    request: Mapping[str, Json], addresses: Mapping[JsonPath, str] = _NO_ADDRESSES
) -> dict[str, Json]:
    """
    Replace each local file of a request by its address, or else by a data URI.

    It reads, hashes and encodes files: call it in a thread.

    Args:
        addresses: Of the files that were uploaded, by their paths in the request.

    Raises:
        FileChanged: A file is missing, unreadable, or not what it was when it was checked.
    """
    for path, address in addresses.items():
        request = replace_at(request, path, address)
    rendered: dict[str, Json] = _rendered(request)
    return rendered


def type_beside(request: Mapping[str, Json], path: JsonPath) -> str:
    """Return the ``type`` of the item that a value is in, or "" if it has none."""
    item: Json = request
    for step in path[:-1]:
        item = item[step]
    kind = item.get("type") if isinstance(item, dict) else None
    # A voice is an audio, whatever the item is.
    return kind if isinstance(kind, str) and path[-1] == "url" else ""


def replace_at(value: Json, path: JsonPath, new: Json) -> Json:
    """Copy a value with a new one at a path; what is not on the path is shared."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replace_at(value[path[0]], path[1:], new)
    return copy


def _rendered(value: Json) -> Json:
    if isinstance(value, dict):
        if is_file_reference(value):
            return _data_uri(value)
        return {key: _rendered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rendered(item) for item in value]
    return value


def read_checked(reference: Mapping[str, Json]) -> bytes:
    """
    Read the file of a reference.

    Raises:
        FileChanged: It is missing, unreadable, or not what it was when it was checked.
    """
    path = reference[FILE_KEY]
    try:
        with open_regular(path) as stream:
            content = stream.read(reference["bytes"] + 1)
    except OSError as error:
        raise FileChanged(
            f"the local file {path} can't be read any more: {error.strerror or error}"
        ) from error
    if hashlib.sha256(content).hexdigest() != reference["sha256"]:
        raise FileChanged(f"the local file {path} has changed since it was checked")
    return content


def _data_uri(reference: Mapping[str, Json]) -> str:
    content = read_checked(reference)
    # The vendor's page names the format of a data URI, not the type that is registered for it.
    media_type = reference["media_type"].replace("audio/mpeg", "audio/mp3")
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
