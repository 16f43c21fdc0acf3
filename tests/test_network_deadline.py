"""Deadlines of one task share a timer, and each still ends its own block."""

from __future__ import annotations

import asyncio

import pytest

from runner.network import Deadline

LONG_S = 3600.0
SHORT_S = 0.01


async def test_a_block_that_takes_too_long_is_ended() -> None:
    """It raises TimeoutError, and the task continues."""
    with pytest.raises(TimeoutError), Deadline(SHORT_S):
        await asyncio.Event().wait()

    assert 0 == asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_a_shorter_deadline_inside_ends_only_its_own_block() -> None:
    """The outer one still holds afterwards."""
    with Deadline(LONG_S):
        with pytest.raises(TimeoutError), Deadline(SHORT_S):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_an_outer_deadline_ends_the_inner_block_too() -> None:
    """TimeoutError leaves the outer block; the inner one sees a cancellation."""
    seen: list[type[BaseException]] = []

    async def wait() -> None:
        with Deadline(SHORT_S):
            try:
                with Deadline(LONG_S):
                    await asyncio.Event().wait()
            except BaseException as error:
                seen.append(type(error))
                raise

    with pytest.raises(TimeoutError):
        await wait()

    assert [asyncio.CancelledError] == seen


async def test_the_outer_deadline_still_ends_its_block_after_an_inner_one_has_expired() -> None:
    """The timer is armed again for what is left."""

    async def wait_twice() -> None:
        with Deadline(SHORT_S * 2):
            with pytest.raises(TimeoutError), Deadline(SHORT_S):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await wait_twice()


async def test_a_timer_of_an_earlier_block_ends_none_that_still_has_time() -> None:
    """It stays armed when its block ends; what it then finds is judged by its own time."""
    with Deadline(SHORT_S):
        pass
    with Deadline(LONG_S):
        await asyncio.sleep(SHORT_S * 3)


async def test_a_deadline_that_is_sooner_than_that_of_an_earlier_block_is_kept() -> None:
    """The armed timer would come too late for it."""
    with Deadline(LONG_S):
        pass
    with pytest.raises(TimeoutError), Deadline(SHORT_S):
        await asyncio.Event().wait()


async def test_tasks_have_timers_of_their_own() -> None:
    """A task that was made inside a block is not ended with it."""

    async def wait_long() -> str:
        with Deadline(LONG_S):
            await asyncio.sleep(SHORT_S * 3)
        return "done"

    with Deadline(SHORT_S):
        child = asyncio.create_task(wait_long())

    assert "done" == await child


async def test_a_cancellation_from_outside_goes_first() -> None:
    """It is not turned into TimeoutError, even where the time is over as well."""

    async def wait() -> None:
        with Deadline(SHORT_S):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())
