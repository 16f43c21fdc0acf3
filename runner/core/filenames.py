"""
Job ids to file names that are safe, readable and unique on Linux, macOS and Windows.

An id that every file system takes as it is, and that no other id can be taken
for, is its own name. Any other id is altered, and then carries ``~`` and a digest
of the id; a ``~`` never stands in a name that was not altered. So two ids have
two names, and they stay two where the file system ignores case (Windows, macOS)
or the way in which accents are written (macOS).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from hashlib import sha256

from runner.core.model import AssetKind, Json

MAX_FILES_FLAT = 5_000
"""A run with more jobs spreads its assets over 256 folders."""

_MAX_STEM_BYTES = 180
"""Of 255 that a name may have: the rest is for the longest ending, `.last_frame.png.invalid`, with room to spare."""
_DIGEST_DIGITS = 16
"""64 bits: a million altered ids meet with a chance of one in forty million."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)(\.|$)")
"""Windows' devices, which no ending makes into files: NUL.txt is NUL."""
_PLAINLY_PLAIN = re.compile(
    rf"(?!{_RESERVED.pattern})[a-z0-9_](?:[a-z0-9._-]{{0,{_MAX_STEM_BYTES - 2}}}[a-z0-9_-])?"
)
"""What nearly all ids are, and what needs no look at each character."""


def asset_path(job_id: str, kind: AssetKind, suffix: str, *, sharded: bool) -> str:
    """
    Name the file of an asset, relative to the run directory, with forward slashes.

    The suffix comes with its dot. `sharded` spreads the files over 256 folders, by a
    digest of the job id.

    >>> asset_path("sky", AssetKind.VIDEO, ".mp4", sharded=False)
    'assets/sky.mp4'
    >>> asset_path("sky", AssetKind.LAST_FRAME, ".png", sharded=True)
    'assets/05/sky.last_frame.png'
    """
    folder = f"assets/{_digest(job_id)[:2]}" if sharded else "assets"
    middle = ".last_frame" if kind is AssetKind.LAST_FRAME else ""
    return f"{folder}/{file_stem(job_id)}{middle}{suffix}"


def file_stem(job_id: str) -> str:
    """
    Turn a job id into the first part of a file name.

    >>> file_stem("grass-1-16.9"), file_stem("小猫-1")
    ('grass-1-16.9', '小猫-1')
    >>> file_stem("Sky"), file_stem("../a b")
    ('Sky~b72804afefc37b62', '_._a_b~2c2c791a0618990c')
    """
    if _is_plain(job_id):
        return job_id
    return f"{_readable(job_id)}~{_digest(job_id)[:_DIGEST_DIGITS]}"


def _is_plain(job_id: str) -> bool:
    """Whether an id can be a name as it is: nothing to escape, and no other id that folds to the same."""
    return _PLAINLY_PLAIN.fullmatch(job_id) is not None or (
        all(map(_is_safe, job_id))
        and _folded(job_id) == job_id
        and job_id[:1] not in ("", ".", "-")
        and job_id[-1] != "."
        and not _RESERVED.match(job_id)
        and len(job_id.encode()) <= _MAX_STEM_BYTES
    )


def _is_safe(char: str) -> bool:
    """Letters, digits and marks of every script; of everything else only what no shell or file system minds."""
    return char in "._-" or unicodedata.category(char)[0] in "LNM"


def _folded(text: str) -> str:
    """Take away what a file system may ignore: case, also by way of capitals, and how accents are written."""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).upper().casefold())


def _readable(job_id: str) -> str:
    """Keep of an id what a name can have."""
    text = "".join(
        char if _is_safe(char) else "_" for char in unicodedata.normalize("NFC", job_id[:_MAX_STEM_BYTES])
    )
    if text[:1] in ("", ".", "-"):
        text = "_" + text[1:]
    if _RESERVED.match(_folded(text)):
        text = "_" + text
    return _cut(text, _MAX_STEM_BYTES - 1 - _DIGEST_DIGITS)


def _cut(text: str, most: int) -> str:
    """Shorten to a number of bytes, counted as macOS writes them, without tearing a character."""
    kept, size = 0, 0
    for char in text:
        size += len(unicodedata.normalize("NFD", char).encode())
        if size > most:
            break
        kept += 1
    return text[:kept]


def _digest(job_id: str) -> str:
    # A lone surrogate has no UTF-8 of its own, and an id may still have one.
    return sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()


MAX_LENGTH = 100

# What some file system refuses, or a shell takes for something else.
_UNSAFE = re.compile(r"[\\/:*?\"<>|\x00-\x1f\x7f-\x9f]+")
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")


def run_name(written: str, variables: Mapping[str, Json]) -> str:
    """
    Put the variables into the name that a manifest gives its run.

    >>> run_name("nightly-${date}", {"date": "2026-11-21"})
    'nightly-2026-11-21'

    Raises:
        ValueError: A variable is unknown, or the result is no safe name of a directory.
    """

    def value_of(match: re.Match[str]) -> str:
        value = variables.get(match[1])
        if value is None or isinstance(value, dict | list):
            known = ", ".join(sorted(variables)) or "none"
            raise ValueError(f"unknown variable {match[0]!r} in the name (known: {known})")
        return str(value)

    name = _PLACEHOLDER.sub(value_of, written)
    if name != safe_name(name):
        raise ValueError(
            f"{name[:60]!r} can't name a directory: take up to {MAX_LENGTH} letters, digits, '-', '_' and '.', "
            "without a '.' at either end"
        )
    return name


def safe_name(text: str) -> str:
    """
    Make a text into a name that a directory may have on any system.

    >>> safe_name("night: run*.v2"), safe_name(".."), safe_name("小猫")
    ('night- run-.v2', 'run', '小猫')
    """
    name = _UNSAFE.sub("-", text)[:MAX_LENGTH].strip(". ")
    if not name or _RESERVED.match(name.lower()):
        return f"run-{name}".rstrip("-")
    return name
