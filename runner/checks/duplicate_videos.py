"""Videos like another one of the run: with the same digest, or with a perceptual hash near its own."""

from __future__ import annotations

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from runner.core.model import Json
from runner.core.settings import Check
from runner.store import rows, takes
from runner.store.store import Store

NAME = "duplicate"
"""In `checks`."""
_BITS_PER_VIDEO = 64
"""Of a bitmap that shows which digests may occur twice: about 1 in 128 others are compared too, and memory stays flat."""


def save_duplicates(store: Store, reject: Collection[Check]) -> None:
    """Write to the findings of jobs which other job's video theirs equals; the first in the manifest is the original."""
    copies = find_copies(store.reader)
    marked = {(seq, attempt): text for seq, attempt, text in takes.findings(store.reader, containing=NAME)}
    if not copies and not marked:
        return
    changes = []
    for place in copies.keys() | marked.keys():
        before = marked.get(place) or takes.findings_of(store.reader, *place)
        row = rows.parse(before) if before else takes.UNCHECKED
        after = rows.canonical(_marked(row, copies.get(place), reject))
        if after != before:
            changes.append((*place, after))
    if changes:
        with store.transaction() as connection:
            connection.executemany(rows.SAVE_CHECKS, changes)


def find_copies(connection: sqlite3.Connection) -> dict[tuple[int, int], str]:
    """Return the jobs whose video equals an earlier job's, by key and attempt, each with the id of that job."""
    size = 1 << (_BITS_PER_VIDEO * max(1, takes.count_videos(connection))).bit_length()
    seen, twice = bytearray(size // 8), set[int]()
    for *_, digest in takes.video_digests(connection):
        bit = int(digest[:16], 16) % size
        byte, mask = bit >> 3, 1 << (bit & 7)
        if seen[byte] & mask:
            twice.add(bit)
        seen[byte] |= mask
    if not twice:
        return {}
    groups: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for seq, attempt, job_id, digest in takes.video_digests(connection):
        if int(digest[:16], 16) % size in twice:
            groups[digest].append((seq, attempt, job_id))
    return dict(_copies(groups))


def _copies(groups: Mapping[str, list[tuple[int, int, str]]]) -> Iterator[tuple[tuple[int, int], str]]:
    for (_, _, original), *others in groups.values():
        for seq, attempt, _ in others:
            yield (seq, attempt), original


def _marked(row: Mapping[str, Json], original: str | None, reject: Collection[Check]) -> dict[str, Json]:
    """Return findings with the original of a copy, or without one."""
    checks = {name: value for name, value in row["checks"].items() if name != NAME}
    old = row["checks"].get(NAME)
    warnings = [text for text in row["warnings"] if old is None or text != _sentence(old["of"])]
    verdict = row["verdict"]
    if old is not None and verdict is not None and verdict["why"] == NAME:
        verdict = None
    if original is not None:
        checks[NAME] = {"ok": False, "of": original}
        warnings.append(_sentence(original))
        if Check.NEAR_DUPLICATE in reject and verdict is None:
            verdict = {"value": "reject", "by": "checks", "why": NAME}
    return {**row, "checks": checks, "warnings": warnings, "verdict": verdict}


def _sentence(original: str) -> str:
    return f"the video is the same file as that of {original!r}"


HASH_BITS = 256
MAX_BITS = 14
"""Videos look alike if their hashes differ in at most this many bits."""
_BANDS = MAX_BITS + 1
_BAND_BITS = HASH_BITS // _BANDS
_BAND_MASK = (1 << _BAND_BITS) - 1
_HASH_BYTES = HASH_BITS // 8


class NearDuplicates:
    """
    Hashes, each with a number of the caller's; some 100 bytes for each.

    A hash that differs from another one in fewer bits than there are bands has a band in common with it: only such
    are compared. The hashes with the same band are a chain in an array, the newest one first.
    """

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._hashes = bytearray()
        self._newest: list[dict[int, int]] = [{} for _ in range(_BANDS)]
        self._before = [array("q") for _ in range(_BANDS)]

    def add(self, picture_hash: str, number: int) -> tuple[int, int] | None:
        """
        Add a hash, and return the one that is most like it among those before: its number and the bits that differ.

        Returns None if none is near.
        """
        value = int(picture_hash, 16)
        nearest: tuple[int, int] | None = None
        index = len(self._numbers)
        for band, (newest, before) in enumerate(zip(self._newest, self._before, strict=True)):
            key = value >> (band * _BAND_BITS) & _BAND_MASK
            other = newest.get(key, -1)
            newest[key] = index
            before.append(other)
            while other >= 0:
                distance = (value ^ self._hash(other)).bit_count()
                if distance <= MAX_BITS and (nearest is None or (distance, other) < nearest):
                    nearest = distance, other
                other = before[other]
        self._numbers.append(number)
        self._hashes += value.to_bytes(_HASH_BYTES, "big")
        return None if nearest is None else (self._numbers[nearest[1]], nearest[0])

    def _hash(self, index: int) -> int:
        return int.from_bytes(self._hashes[index * _HASH_BYTES : (index + 1) * _HASH_BYTES], "big")
