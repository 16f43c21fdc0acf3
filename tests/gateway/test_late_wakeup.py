"""After this process was stopped for a while, what has arrived is read before a time-out is judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from runner.core.outcomes import Accepted, Polled
from runner.core.settings import Timeouts
from runner.network import Deadline
from tests.gateway.raw_server import BODY, KEY, Connection, accepted, header, response, server_and_client

SHORT = Timeouts(connect_s=0.05, submit_s=0.05, poll_s=0.05)


def loop_factories() -> list[Any]:
    """List the kinds of event loop that the program may run on."""
    try:
        import uvloop
    except ImportError:
        return [asyncio.new_event_loop]
    return [asyncio.new_event_loop, uvloop.new_event_loop]


def run(main: Callable[[], Coroutine[Any, Any, Any]], factory: Any) -> Any:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


@pytest.mark.parametrize("factory", loop_factories(), ids=lambda factory: factory.__module__)
@pytest.mark.parametrize("is_submission", [True, False], ids=["submission", "query"])
def test_an_answer_that_arrived_counts(is_submission: bool, factory: Any) -> None:
    """The loop is blocked for longer than the time-out while the answer arrives: it is read, and is no doubt."""

    async def answer_and_block(connection: Connection) -> None:
        head = await connection.request()
        body = (
            accepted("task_1") if header(head, "Content-Length") else response("200 OK", b'{"id": "task_1"}')
        )
        await connection.send(body)
        # Longer than both time-outs together: their timers are due when the loop looks again.
        time.sleep(0.3)  # noqa: ASYNC251 - blocks the loop, as a stopped process does

    async def main() -> Any:
        async with server_and_client(answer_and_block, SHORT) as (_, gateway):
            return await (gateway.submit(BODY, KEY) if is_submission else gateway.poll("task_1", KEY))

    assert isinstance(run(main, factory), Accepted if is_submission else Polled)


async def test_a_deadline_ends_its_block() -> None:
    """Without anything to read the time is up."""
    with pytest.raises(TimeoutError), Deadline(0.01):
        await asyncio.Event().wait()


async def test_a_cancellation_is_not_a_time_out() -> None:
    """Who cancels the task gets its cancellation."""
    task = asyncio.ensure_future(_wait_within(10.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _wait_within(seconds: float) -> None:
    with Deadline(seconds):
        await asyncio.Event().wait()
