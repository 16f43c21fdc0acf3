"""Which videos look alike: an index of perceptual hashes that finds one near another without comparing all."""

from __future__ import annotations

from array import array

HASH_BITS = 256
MOST_BITS = 14
"""Hashes that differ in so many bits at most are of videos that look alike."""
_BANDS = MOST_BITS + 1
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
                if distance <= MOST_BITS and (nearest is None or (distance, other) < nearest):
                    nearest = distance, other
                other = before[other]
        self._numbers.append(number)
        self._hashes += value.to_bytes(_HASH_BYTES, "big")
        return None if nearest is None else (self._numbers[nearest[1]], nearest[0])

    def _hash(self, index: int) -> int:
        return int.from_bytes(self._hashes[index * _HASH_BYTES : (index + 1) * _HASH_BYTES], "big")
