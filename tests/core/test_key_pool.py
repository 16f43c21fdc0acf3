"""The health of a pool of keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.key_pool import KeyPool, NoKeyLeft, UseKey, WaitForKey
from runner.core.model import Failure, FailureClass

QUOTA = Failure(FailureClass.QUOTA, "insufficient user quota")
AUTH = Failure(FailureClass.AUTH, "invalid token")


def test_keys_take_turns() -> None:
    """Each key is used as often as the others."""
    ring = KeyPool(["a", "b", "c"])

    picks = [ring.pick(now=0.0) for _ in range(6)]

    assert picks == [UseKey(name) for name in "abcabc"]


def test_throttled_key_rests() -> None:
    """A throttled key is left out until its time, and a shorter rest does not shorten a longer one."""
    ring = KeyPool(["a", "b"])
    ring.throttled("a", until=10.0)
    ring.throttled("a", until=5.0)

    assert [ring.pick(now=9.0), ring.pick(now=9.0)] == [UseKey("b"), UseKey("b")]
    assert ring.pick(now=10.0) == UseKey("a")


def test_all_keys_rest() -> None:
    """When all rest, the caller learns when the first is ready."""
    ring = KeyPool(["a", "b"])
    ring.throttled("a", until=10.0)
    ring.throttled("b", until=7.0)

    assert ring.pick(now=1.0) == WaitForKey(7.0)


def test_refused_keys_are_retired() -> None:
    """A refused key is never used again, and its first reason is kept for the message."""
    ring = KeyPool(["a", "b"])
    ring.refused("a", QUOTA)
    ring.refused("a", AUTH)
    assert not ring.is_exhausted
    ring.refused("b", AUTH)
    ring.throttled("b", until=5.0)

    assert ring.pick(now=100.0) == NoKeyLeft()
    assert ring.is_exhausted
    assert ring.retired == {"a": QUOTA, "b": AUTH}


def test_tasks_are_asked_for_with_their_own_key_first() -> None:
    """An empty account can still be asked for its tasks; a key that is not known comes last."""
    ring = KeyPool(["a", "b", "c"])
    ring.refused("a", AUTH)
    ring.refused("c", QUOTA)

    assert ring.for_task("c") == ("c", "b", "a")
    assert ring.for_task("a") == ("b", "c", "a")


def test_tasks_of_a_key_that_left() -> None:
    """Any key of the user may ask for a task whose own key is gone."""
    assert KeyPool(["a", "b"]).for_task("gone") == ("a", "b")
    assert KeyPool(["a", "b"]).for_task(None) == ("a", "b")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pick", "refuse", "throttle"]), st.sampled_from("abcx"), st.floats(0, 100)
        ),
        max_size=60,
    )
)
def test_a_resting_or_retired_key_is_never_picked(moves: list[tuple[str, str, float]]) -> None:
    """Whatever happens, a pick is a key of the pool that is neither retired nor resting."""
    ring = KeyPool("abc")
    rests = dict.fromkeys("abc", 0.0)
    for move, key, time in moves:
        if move == "refuse":
            ring.refused(key, QUOTA)
        elif move == "throttle":
            ring.throttled(key, until=time)
            rests[key] = max(rests.get(key, 0.0), time)
        else:
            left = {name for name in "abc" if name not in ring.retired}
            match ring.pick(now=time):
                case UseKey(name):
                    assert name in left
                    assert rests[name] <= time
                case WaitForKey(until):
                    assert until > time
                    assert until == min(rests[name] for name in left)
                case NoKeyLeft():
                    assert not left
