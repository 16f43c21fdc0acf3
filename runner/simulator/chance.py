"""Chance that plays the same piece every time."""

from __future__ import annotations

from hashlib import blake2b


def draw(seed: int, subject: str, purpose: str) -> float:
    """
    Return a number from [0, 1) that depends on the arguments and on nothing else.

    >>> draw(7, "abc", "duration") == draw(7, "abc", "duration")
    True
    """
    text = f"{seed}/{purpose}/{subject}".encode("utf-8", "replace")
    return int.from_bytes(blake2b(text, digest_size=7).digest(), "big") / 2**56
