"""
File names from job ids, safe, readable and unique on Linux, macOS and Windows; and names of and in run directories.

An id that every file system accepts as it is, and that no other id can be confused with, is its own name.
Any other id is altered, and ``~`` and a digest of the id are appended; a name that was not altered never
has a ``~``. So two ids have two names, even if the file system ignores case (Windows, macOS) or how accents
are encoded (macOS).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from runner.core.model import AssetKind, Json

DB_NAME = "run.db"
RESULTS_NAME = "results.jsonl"
FAILED_NAME = "failed.yaml"
SUMMARY_NAME = "summary.json"
RUN_JSON_NAME = "run.json"
"""Which shard of which run a directory holds; which run a journal holds."""
REPORT_NAME = "report.html"
ASSETS_NAME = "assets"
PART_SUFFIX = ".part"
"""Follows the name of an asset that is not complete and durable."""
INPUTS_NAME = "inputs"
"""Local files of requests that came from a journal."""
MANIFEST_NAME = "manifest.yaml"
"""The manifest of jobs that a program passed; else manifests are elsewhere."""
VERDICTS_NAME = "verdicts.jsonl"
"""Verdicts on the videos; no run writes it."""
SIMULATOR_LEDGER_NAME = "simulator.jsonl"
"""Where the simulator keeps its tasks, so that a simulated run that was killed finds them again."""
LOCK_NAME = ".lock"
REBUILT_NAME = ".run.db.rebuilt"
BASE_NAME = ".run.db.base"
"""Copies of `run.db` that exist while one is made from a journal, or for it."""
RESERVE_NAME = ".reserve"
"""Space that is freed when the disk is full, so that what was paid for can still be saved."""

EPOCH_NAME = ".epoch"
"""How often the run directory was opened, so that an older `run.db` is noticed."""

BLOCKS_NAME = ".blocks"
"""What each block of jobs is in the derived files, so that only changed ones are written again; it may be deleted."""

DB_FILES = (f"{DB_NAME}-wal", f"{DB_NAME}-shm", f"{DB_NAME}-journal", DB_NAME)
"""The database, after the files that SQLite keeps beside it."""

RUN_FILES = frozenset(
    {
        *DB_FILES,
        MANIFEST_NAME,
        RESULTS_NAME,
        FAILED_NAME,
        SUMMARY_NAME,
        RUN_JSON_NAME,
        REPORT_NAME,
        VERDICTS_NAME,
        ASSETS_NAME,
        SIMULATOR_LEDGER_NAME,
        LOCK_NAME,
        RESERVE_NAME,
        REBUILT_NAME,
        BASE_NAME,
        EPOCH_NAME,
        BLOCKS_NAME,
    }
)
"""Everything that a run directory holds."""

MAX_FILES_FLAT = 5_000
"""A run with more jobs distributes its assets over 256 folders."""
ASSET_FOLDER_CHARS = 2
"""The length of the names of these folders: hexadecimal digits."""

_MAX_STEM_BYTES = 180
"""Of the 255 that a name may have: the rest is for the longest suffix, `.last_frame.png.invalid`, and to spare."""
_DIGEST_DIGITS = 16
"""64 bits: two of a million altered ids collide with a probability of one in forty million."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)(\.|$)")
"""Windows' devices, whatever the suffix: NUL.txt is NUL."""
_FAST_PLAIN = re.compile(
    rf"(?!{_RESERVED.pattern})[a-z0-9_](?:[a-z0-9._-]{{0,{_MAX_STEM_BYTES - 2}}}[a-z0-9_-])?"
)
"""Matches nearly all ids, which then need no check of each character."""
MAX_NAME_CHARS = 100
"""Of the name of a run."""
# Characters that some file system refuses, or a shell interprets.
_UNSAFE = re.compile(r"[\\/:*?\"<>|\x00-\x1f\x7f-\x9f]+")
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")


def asset_path(job_id: str, kind: AssetKind, suffix: str, *, sharded: bool) -> str:
    """
    Return the path of an asset, relative to the run directory, with forward slashes.

    The suffix includes its dot. `sharded` distributes the files over 256 folders, by a digest of the job id.

    >>> asset_path("sky", AssetKind.VIDEO, ".mp4", sharded=False)
    'assets/sky.mp4'
    >>> asset_path("sky", AssetKind.LAST_FRAME, ".png", sharded=True)
    'assets/05/sky.last_frame.png'
    """
    folder = f"{ASSETS_NAME}/{_digest(job_id)[:ASSET_FOLDER_CHARS]}" if sharded else ASSETS_NAME
    middle = ".last_frame" if kind is AssetKind.LAST_FRAME else ""
    return f"{folder}/{file_stem(job_id)}{middle}{suffix}"


def object_name(path: str, sha256: str) -> str:
    """
    Return what an asset is called in an object store: another content has another name, whoever uploads it.

    >>> object_name("assets/05/sky.last_frame.png", "1f3a5c7e9b2d4f60" + 48 * "0")
    '05/sky.last_frame.1f3a5c7e9b2d4f60.png'
    """
    stem, dot, suffix = path.removeprefix(f"{ASSETS_NAME}/").rpartition(".")
    return f"{stem}.{sha256[:_DIGEST_DIGITS]}{dot}{suffix}"


@lru_cache(maxsize=1024)
def file_stem(job_id: str) -> str:
    """
    Convert a job id to the first part of a file name.

    >>> file_stem("grass-1-16.9"), file_stem("小猫-1")
    ('grass-1-16.9', '小猫-1')
    >>> file_stem("Sky"), file_stem("../a b")
    ('Sky~b72804afefc37b62', '_._a_b~2c2c791a0618990c')
    """
    if _is_plain(job_id):
        return job_id
    return f"{_readable(job_id)}~{_digest(job_id)[:_DIGEST_DIGITS]}"


def _is_plain(job_id: str) -> bool:
    """Return whether an id can be a name as it is: nothing to escape, and no other id that folds to the same."""
    return _FAST_PLAIN.fullmatch(job_id) is not None or (
        all(map(_is_safe, job_id))
        and _folded(job_id) == job_id
        and job_id[:1] not in ("", ".", "-")
        and job_id[-1] != "."
        and not _RESERVED.match(job_id)
        and len(job_id.encode()) <= _MAX_STEM_BYTES
    )


def _is_safe(char: str) -> bool:
    """Return whether it is a letter, digit or mark of any script, or safe in every shell and file system."""
    return char in "._-" or unicodedata.category(char)[0] in "LNM"


def _folded(text: str) -> str:
    """Remove what a file system may ignore: case (through capitals too) and how accents are encoded."""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).upper().casefold())


def _readable(job_id: str) -> str:
    """Return the id with everything replaced that a name can't have."""
    text = "".join(
        char if _is_safe(char) else "_" for char in unicodedata.normalize("NFC", job_id[:_MAX_STEM_BYTES])
    )
    if text[:1] in ("", ".", "-"):
        text = "_" + text[1:]
    if _RESERVED.match(_folded(text)):
        text = "_" + text
    return _cut(text, _MAX_STEM_BYTES - 1 - _DIGEST_DIGITS)


def _cut(text: str, max_bytes: int) -> str:
    """Cut to a number of bytes, counted as macOS encodes them, between characters."""
    length, size = 0, 0
    for char in text:
        size += len(unicodedata.normalize("NFD", char).encode())
        if size > max_bytes:
            break
        length += 1
    return text[:length]


@lru_cache(maxsize=1024)
def _digest(job_id: str) -> str:
    # It loads OpenSSL, which takes longer than the checks of a small manifest, and few commands need this.
    from hashlib import sha256

    # An id may have a lone surrogate, which has no UTF-8.
    return sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()


def run_name(template: str, variables: Mapping[str, Json]) -> str:
    """
    Fill in the variables of the name that a manifest gives its run.

    >>> run_name("nightly-${date}", {"date": "2026-11-21"})
    'nightly-2026-11-21'

    Raises:
        ValueError: A variable is unknown, or the result is not a safe directory name.
    """

    def value_of(match: re.Match[str]) -> str:
        value = variables.get(match[1])
        if value is None or isinstance(value, dict | list):
            known = ", ".join(sorted(variables)) or "none"
            raise ValueError(f"unknown variable {match[0]!r} in the name (known: {known})")
        return str(value)

    name = _PLACEHOLDER.sub(value_of, template)
    if name != safe_name(name):
        raise ValueError(
            f"{name[:60]!r} can't name a directory: use up to {MAX_NAME_CHARS} letters, digits, '-', '_' and '.', "
            "without a '.' at either end"
        )
    return name


def safe_name(text: str) -> str:
    """
    Convert a text to a directory name that is safe on any system.

    >>> safe_name("night: run*.v2"), safe_name(".."), safe_name("小猫")
    ('night- run-.v2', 'run', '小猫')
    """
    name = _UNSAFE.sub("-", text)[:MAX_NAME_CHARS].strip(". ")
    if not name or _RESERVED.match(name.lower()):
        return f"run-{name}".rstrip("-")
    return name
