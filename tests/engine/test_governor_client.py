"""What a shard makes of the answers of its run's governor, and of their absence."""

from __future__ import annotations

from runner.core.circuit_breaker import CircuitState
from runner.core.governor_messages import Hello, Message, MoneyGrant, News, Reply
from runner.engine.governor_client import GovernorClient
from tests.engine.fakes import LoopClock
from tests.engine.virtual_time import VirtualLoop, run_virtually

NEWS = News(
    session="one",
    is_known=True,
    per_s=1.0,
    accepted_per_s=0.0,
    wait_s=0.0,
    circuit=CircuitState.CLOSED,
    why="",
)


def test_money_that_was_given_before_another_hello_is_not_taken() -> None:
    """
    A shard that says hello tells what it holds: what was on its way to it then is given to others.
    """

    async def main(loop: VirtualLoop) -> None:
        is_lost = [True]

        async def call(message: Message) -> Reply:
            if isinstance(message, Hello):
                return NEWS
            if is_lost.pop():
                await governor.send_hello()
            return MoneyGrant(is_known=True, amount=5)

        governor = GovernorClient(call, shard=0, clock=LoopClock())
        assert 0 == (await governor.ask_money(need=5, wish=5)).amount
        is_lost.append(False)
        assert 5 == (await governor.ask_money(need=5, wish=5)).amount

    run_virtually(main)
