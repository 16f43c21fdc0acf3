"""
The identity of a job: its id, and the digest of its request.

The digest is computed from canonical JSON that only the standard library writes, so
that it is the same on every machine and after every upgrade. A local file counts by
its content and not by its path.
"""

from __future__ import annotations

import json
from _blake2 import blake2b  # hashlib has the same one, but loads OpenSSL first
from collections.abc import Collection, Mapping

from runner.core.model import FILE_KEY, Json, is_file_reference

_MAX_MODEL_LENGTH = 100
_ID_DIGITS = 16
"""Digits of the digest in an automatic id: two of a million jobs are equal by chance once in 37 million runs."""


_encode = json.JSONEncoder(
    # A request was read from text, so it has no cycles: looking for them takes a third of the time.
    check_circular=False,
    sort_keys=True,
    separators=(",", ":"),
    allow_nan=False,
).encode


def canonical_json(request: Mapping[str, Json]) -> str:
    r"""
    Encode a request as JSON with sorted keys, without spaces, in ASCII.

    Raises:
        ValueError: It has a number that JSON does not have (NaN or an infinity).

    >>> canonical_json({"prompt": "小猫", "model": "m"})
    '{"model":"m","prompt":"\\u5c0f\\u732b"}'
    """
    return _encode(request)


def request_digest(request: Mapping[str, Json]) -> str:
    """
    Hash a request: 128 bits of BLAKE2b in hex, the same for every order of its keys.

    Raises:
        ValueError: As for `canonical_text`.

    A local file is the same under every path:

    >>> one = {"image": {"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}}
    >>> other = {"image": {"$file": "/b.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}}
    >>> request_digest(one) == request_digest(other)
    True
    """
    text = _encode(request)
    if FILE_KEY in text:
        text = _encode(_without_paths(request))
    return _hash(text)


class DigestTemplate:
    """
    The digests of requests that differ in a few keys only: what they share is encoded once.

    Args:
        request: One of them.
        varying: The keys in which they differ, all of which it has.

    >>> template = DigestTemplate({"prompt": "a kitten", "model": "m"}, ["prompt"])
    >>> template.digest({"prompt": "a cat", "model": "m"}) == request_digest({"model": "m", "prompt": "a cat"})
    True
    """

    __slots__ = ("_pieces", "_varying")

    def __init__(self, request: Mapping[str, Json], varying: Collection[str]) -> None:
        shared = "{"
        self._pieces: list[str] = []
        self._varying: list[tuple[int, str]] = []
        for key in sorted(request):
            shared += f"{_encode(key)}:"
            if key in varying:
                self._varying.append((len(self._pieces) + 1, key))
                self._pieces += shared, ""
                shared = ","
            else:
                shared += f"{_encode(request[key])},"
        self._pieces.append(f"{shared.removesuffix(',')}}}")

    def digest(self, request: Mapping[str, Json]) -> str:
        """
        Return `request_digest` of one of these requests.

        Raises:
            ValueError: As for `canonical_text`.
            KeyError: The request lacks a key.
        """
        pieces = self._pieces.copy()
        for index, key in self._varying:
            pieces[index] = _encode(request[key])
        text = "".join(pieces)
        return request_digest(request) if FILE_KEY in text else _hash(text)


def _hash(text: str) -> str:
    return blake2b(text.encode("ascii"), digest_size=16).hexdigest()


def automatic_id(model: str, digest: str, repetition: int | None = None) -> str:
    """
    Name a job without an id; moving it in the manifest does not change the name.

    >>> automatic_id("wan2.7-i2v", "3f9a1c2b7d0e5a4488cc21d07b6e9f10")
    'wan2.7-i2v-3f9a1c2b7d0e5a44'
    >>> automatic_id("wan2.7-i2v", "3f9a1c2b7d0e5a4488cc21d07b6e9f10", repetition=2)
    'wan2.7-i2v-3f9a1c2b7d0e5a44-2'
    """
    name = f"{model[:_MAX_MODEL_LENGTH]}-{digest[:_ID_DIGITS]}"
    return name if repetition is None else f"{name}-{repetition}"


def _without_paths(value: Json) -> Json:
    if is_file_reference(value):
        return {key: item for key, item in value.items() if key != FILE_KEY}
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return value
