"""
Rates that earlier runs found to be allowed: in their run directory, and for each gateway and key.

A nightly run with a dated name has a new directory each time, and would else learn the same from refusals every night.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runner.api.run_facts import LEARNED
from runner.state_dir import read_state, write_state
from runner.store.store import Store

_NAME = "rates"
_MAX_ACCOUNTS = 100


def read_learned(
    text: str | None,
    gateway: str,
    fingerprints: Iterable[str],
    *,
    submit_per_s: float | None = None,
    is_shard: bool = False,
) -> dict[str, float]:
    """
    Return the rates to start with, by model; under "" for the whole run.

    Args:
        text: What the run directory knows; None if nothing was submitted there yet.
        fingerprints: Of the keys that the run uses.
        is_shard: Whether the run is one of several shards, whose rates say nothing of the account.
        submit_per_s: The rate that the user asks for, which resets what was learned; or None.
    """
    if submit_per_s is not None:
        return {}
    if text is not None:
        return _checked(json.loads(text))
    accounts = None if is_shard else read_state(_NAME)
    return _checked(accounts.get(_account(gateway, fingerprints))) if isinstance(accounts, dict) else {}


def save_learned(
    store: Store,
    rates: Mapping[str, float],
    gateway: str,
    fingerprints: Iterable[str],
    *,
    is_shard: bool = False,
) -> None:
    """
    Keep the rates for the next run; none at all if the configured ones were never refused.

    Raises:
        RunnerError: The store can't be written.
    """
    store.set_meta(LEARNED, json.dumps(rates))
    if is_shard:
        return
    found = read_state(_NAME)
    accounts = found if isinstance(found, dict) else {}
    account = _account(gateway, fingerprints)
    known = accounts.pop(account, None)
    if rates:
        accounts[account] = dict(rates)
    if rates or known is not None:
        write_state(_NAME, dict(list(accounts.items())[-_MAX_ACCOUNTS:]))


def _account(gateway: str, fingerprints: Iterable[str]) -> str:
    return " ".join([gateway, *sorted(fingerprints)])


def _checked(value: Any) -> dict[str, float]:
    """Keep only rates, since anybody may have written the file."""
    if not isinstance(value, dict):
        return {}
    return {
        model: float(per_s)
        for model, per_s in value.items()
        if isinstance(per_s, int | float) and 0 < per_s < float("inf")
    }
