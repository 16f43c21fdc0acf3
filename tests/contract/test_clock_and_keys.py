"""Clocks and keys: the same tests for the fakes and the real ones."""

from __future__ import annotations

import pytest

from runner.engine.context import SystemClock
from runner.gateway.credentials import KeySet, PooledKeys, read_keys
from runner.worker.ports import Clock, Keys
from tests.engine.fakes import FakeKeys, LoopClock


@pytest.mark.parametrize("clock", [LoopClock(), SystemClock()])
async def test_both_readings_advance_during_a_sleep(clock: Clock) -> None:
    """
    A sleep takes as long as it should by both readings, and the wall clock counts from 1970.
    """
    now, wall = clock.now(), clock.wall()
    await clock.sleep(0.01)

    # The wall clock may be adjusted meanwhile, so this test is generous.
    assert clock.now() - now >= 0.009
    assert wall <= clock.wall()
    assert wall > 1_600_000_000


def pooled() -> PooledKeys:
    """Make a real pool of two keys."""
    names = {"FIRST": "sk-first-0123456789", "SECOND": "sk-second-0123456789"}
    keys: KeySet = read_keys(names, names)
    return PooledKeys(keys)


@pytest.mark.parametrize("keys", [FakeKeys("a", "b"), pooled()], ids=["fake", "real"])
def test_task_is_polled_with_its_own_key_first(keys: Keys) -> None:
    """
    Every key of the pool may be used, the one that made the task first.
    """
    first, second = keys.for_task(None)

    assert (second, first) == keys.for_task(second)
    assert 2 == len({keys.secret(first), keys.secret(second)})


@pytest.mark.parametrize("keys", [FakeKeys("a", "b"), pooled()], ids=["fake", "real"])
def test_removed_key_is_not_used(keys: Keys) -> None:
    """
    A task of a key that is no longer in the pool is polled with those that are; looking that key up is a bug.
    """
    assert keys.for_task(None) == keys.for_task("of an earlier run")
    with pytest.raises(KeyError):
        keys.secret("of an earlier run")
