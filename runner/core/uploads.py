"""How far a local file has come on its way to where a model can read it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class UploadState(StrEnum):
    """The states of an upload, in their order."""

    STARTED = "started"
    """It was sent, or is about to be."""
    PROCESSING = "processing"
    """The asset library has it under a task; it has no asset yet."""
    REVIEW = "review"
    """The asset library has an asset of it, and has not approved it yet."""
    READY = "ready"
    REFUSED = "refused"
    """The asset library does not approve it."""


class Upload(Struct, frozen=True):
    """
    One file on its way to one target.

    Attributes:
        digest: SHA-256 of its content.
        target: As the manifest names it.
        address: Where it is, by its state: the id of a task, ``asset://ID``, an object's URL, or why it was refused.
            Never an address that is signed.
        expires_at: When it must be looked for again; None if it stays.
    """

    digest: str
    target: str
    state: UploadState
    address: str = ""
    expires_at: float | None = None


def is_ready(upload: Upload | None, now_at: float) -> bool:
    """Return whether a file is where models can read it, and is not to be looked for again."""
    if upload is None or upload.state is not UploadState.READY:
        return False
    return upload.expires_at is None or upload.expires_at > now_at


def file_name(source: str, digest: str) -> str:
    """
    Return the name of an upload: of the file's own name what every store takes, and its digest.

    >>> file_name("/frames/Ängste 1.PNG", "9f2c" * 16)
    'ngste-1-9f2c9f2c9f2c9f2c.png'
    """
    stem, dot, suffix = source.rpartition("/")[2].rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in stem).strip("-")[:40]
    ending = "".join(char for char in suffix.lower() if char.isascii() and char.isalnum())[:10]
    return f"{kept or 'file'}-{digest[:16]}" + (f".{ending}" if ending else "")


def object_name(source: str, digest: str) -> str:
    """
    Return the name of an object: its digest, and the suffix of the file's name.

    >>> object_name("/frames/1.PNG", "9f2c")
    '9f2c.png'
    """
    ending = file_name(source, digest).rpartition(".")
    return digest + (f".{ending[2]}" if ending[1] else "")
