"""The index of hashes finds what comparing all of them finds."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from runner.checks.duplicate_videos import HASH_BITS, MAX_BITS, NearDuplicates


def text(value: int) -> str:
    return f"{value:0{HASH_BITS // 4}x}"


@given(st.integers(0, 2**32), st.lists(st.integers(0, 2 * MAX_BITS), min_size=1, max_size=30))
def test_the_nearest_hash_is_found(seed: int, distances: list[int]) -> None:
    """Whatever bits differ, a hash within the limit is found, the nearest first, and nothing beyond it."""
    random, index = Random(seed), NearDuplicates()
    known: list[int] = []
    for number, distance in enumerate(distances):
        start = random.choice(known) if known else random.getrandbits(HASH_BITS)
        value = start ^ sum(1 << bit for bit in random.sample(range(HASH_BITS), distance))
        near = [
            ((value ^ other).bit_count(), position)
            for position, other in enumerate(known)
            if (value ^ other).bit_count() <= MAX_BITS
        ]
        expected = None if not near else (min(near)[1] + 1000, min(near)[0])

        assert expected == index.add(text(value), number + 1000)
        known.append(value)
