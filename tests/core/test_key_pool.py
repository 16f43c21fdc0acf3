"""Which key of a pool is used."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.key_pool import KeyPool
from runner.core.model import Failure, FailureClass

QUOTA = Failure(FailureClass.QUOTA, "insufficient user quota")
AUTH = Failure(FailureClass.AUTH, "invalid token")


def test_keys_take_turns() -> None:
    """Each key is used as often as the others."""
    pool = KeyPool(["a", "b", "c"])

    picks = [pool.pick(now=0.0) for _ in range(6)]

    assert list("abcabc") == picks


def test_throttled_key_cools_down() -> None:
    """A throttled key is not used until its time, and a shorter cool-down does not shorten a longer one."""
    pool = KeyPool(["a", "b"])
    pool.cool_down("a", until=10.0)
    pool.cool_down("a", until=5.0)

    assert ["b", "b"] == [pool.pick(now=9.0), pool.pick(now=9.0)]
    assert "a" == pool.pick(now=10.0)


def test_all_keys_cool_down() -> None:
    """When all cool down, the caller learns when the first is ready."""
    pool = KeyPool(["a", "b"])
    pool.cool_down("a", until=10.0)
    pool.cool_down("b", until=7.0)

    assert (None, 7.0) == (pool.pick(now=1.0), pool.first_ready_at)


def test_refused_keys_are_retired() -> None:
    """A refused key is never used again, and without the last one there is none."""
    pool = KeyPool(["a", "b"])
    pool.retire("a", QUOTA)
    assert ["b", "b"] == [pool.pick(now=0.0), pool.pick(now=0.0)]
    assert not pool.is_pool
    pool.retire("b", AUTH)
    pool.cool_down("b", until=5.0)

    assert (None, None) == (pool.pick(now=100.0), pool.first_ready_at)


def test_tasks_are_polled_with_their_own_key_first() -> None:
    """A key without credit can still poll; one that the API does not know comes last, whatever happens to it later."""
    pool = KeyPool(["a", "b", "c"])
    pool.retire("a", AUTH)
    pool.retire("a", QUOTA)
    pool.retire("c", QUOTA)

    assert ("c", "b", "a") == pool.for_task("c")
    assert ("b", "c", "a") == pool.for_task("a")


def test_tasks_of_a_key_that_left() -> None:
    """Any key of the user may poll a task whose own key was removed."""
    assert ("a", "b") == KeyPool(["a", "b"]).for_task("gone")
    assert ("a", "b") == KeyPool(["a", "b"]).for_task(None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pick", "retire", "cool_down"]), st.sampled_from("abcx"), st.floats(0, 100)
        ),
        max_size=60,
    )
)
def test_a_cooling_or_retired_key_is_never_picked(steps: list[tuple[str, str, float]]) -> None:
    """Whatever happens, a picked key is in the pool, not retired, and does not cool down."""
    pool = KeyPool("abc")
    ready_at = dict.fromkeys("abc", 0.0)
    left = set("abc")
    for step, key, time in steps:
        if step == "retire":
            pool.retire(key, QUOTA)
            left.discard(key)
        elif step == "cool_down":
            pool.cool_down(key, until=time)
            ready_at[key] = max(ready_at.get(key, 0.0), time)
        else:
            picked = pool.pick(now=time)
            if picked is not None:
                assert picked in left
                assert ready_at[picked] <= time
            else:
                assert all(ready_at[name] > time for name in left)
                assert min((ready_at[name] for name in left), default=None) == pool.first_ready_at
