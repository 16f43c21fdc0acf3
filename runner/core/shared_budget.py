"""
One budget for all shards of a run.

Each shard holds a part: what its attempts cost, and what it may still spend. Only what no shard holds is given away, so
that all together never spend more, whichever of them dies: its part is held until its successor tells what was spent.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.core.budget import Account, block
from runner.core.leases import AskMoney, Money, Purse


class SharedBudget:
    """
    The budgets of a run's shards, in billionths of a currency.

    Args:
        run: The limit of all that the run costs, or None.
        process: The limit of what it costs from now on, or None.
        spent: What the attempts of each shard cost so far.

    >>> budget = SharedBudget(run=100)
    >>> budget.ask(AskMoney(shard=0, session="", purse=Purse(), need=60, wish=60)).amount
    60
    >>> budget.ask(AskMoney(shard=1, session="", purse=Purse(), need=60, wish=60)).amount
    0
    """

    def __init__(
        self, *, run: int | None = None, process: int | None = None, spent: Mapping[int, int] | None = None
    ) -> None:
        self._purses = {shard: Purse(amount) for shard, amount in (spent or {}).items()}
        self._before = sum(purse.held for purse in self._purses.values())
        self._run = Account("budget.run", run)
        self._process = Account("--max-cost", process)

    def begin(self, shard: int, purse: Purse) -> None:
        """Record what a shard holds that begins, or that its governor has not known."""
        self._purses[shard] = purse

    def update(self, shard: int, purse: Purse) -> None:
        """Record what a shard holds, unless it was given more since it told that."""
        if purse.grants >= self._purses.get(shard, purse).grants:
            self._purses[shard] = purse

    def ask(self, ask: AskMoney) -> Money:
        """Give a shard what it needs, and up to what it wishes if much is left."""
        self.update(ask.shard, ask.purse)
        purses = self._purses.values()
        held, open_ = sum(purse.held for purse in purses), sum(purse.open for purse in purses)
        self._run.used, self._process.used = held, held - self._before
        amounts = {}
        for account in (self._run, self._process):
            amounts[account.name] = block(ask.need, ask.wish, account.left)
            if not amounts[account.name]:
                return Money(
                    is_known=True, name=account.name, limit=account.limit or 0, used=account.used, open=open_
                )
        amount = min(amounts.values())
        mine = self._purses[ask.shard]
        self._purses[ask.shard] = Purse(mine.held + amount, mine.open, mine.grants + 1)
        return Money(is_known=True, amount=amount)
