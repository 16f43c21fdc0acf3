"""The name that a person probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    Suggest the nearest known name as the beginning of a hint; nothing where none is near.

    >>> did_you_mean("sed", ["date", "seed"])
    "did you mean 'seed'? "
    """
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'? " if near else ""
