"""How a local file stands in a request until it is sent: by its path, digest, type and size."""

from __future__ import annotations

from runner.core.spec import Json

FILE_KEY = "$file"
"""The key by which a mapping in a request is known as a reference to a local file; its value is the path."""


def is_file_reference(value: Json) -> bool:
    """
    Say whether a value of a request stands for a local file.

    >>> is_file_reference({"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9})
    True
    """
    return type(value) is dict and FILE_KEY in value and "sha256" in value


def has_files(value: Json) -> bool:
    """
    Say whether there is a local file anywhere in a request, which must then be read when it is sent.

    >>> file = {"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}
    >>> has_files({"media": [{"type": "first_frame", "url": file}]}), has_files({"prompt": "$file"})
    (True, False)
    """
    if isinstance(value, dict):
        return is_file_reference(value) or any(map(has_files, value.values()))
    return isinstance(value, list) and any(map(has_files, value))
