"""One budget over all shards: it holds whatever dies and whatever is lost on the way."""

from __future__ import annotations

from random import Random

import pytest

from runner.core.governor_messages import AskMoney, BudgetShare
from runner.core.shared_governor import SharedBudget

LIMIT = 1000


class _Shard:
    """A shard whose spending outlives it, as in its journal, and whose allowance does not."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.spent = 0
        self.die()

    def die(self) -> None:
        self.left, self.open, self.grants = 0, 0, 0

    @property
    def share(self) -> BudgetShare:
        return BudgetShare(self.spent + self.left, self.open, self.grants)


@pytest.mark.parametrize("seed", range(20))
def test_no_kill_and_no_lost_answer_spends_more(seed: int) -> None:
    """
    Four shards that spend, settle for less, die and lose answers never spend more than the budget; and most of it.
    """
    random = Random(seed)
    budget, shards = SharedBudget(run=LIMIT), [_Shard(index) for index in range(4)]
    kills = 0
    while kills < 100:
        shard = random.choice(shards)
        price = random.randint(1, 30)
        match random.choice(["spend", "spend", "spend", "settle", "die", "late", "lost"]):
            case "spend" if shard.left >= price:
                shard.left -= price
                shard.spent += price
                shard.open += price
            case "spend":
                money = budget.ask(
                    AskMoney(shard=shard.index, session="", budget=shard.share, need=price, wish=4 * price)
                )
                shard.left += money.amount
                shard.grants += bool(money.amount)
            case "settle" if shard.open and kills < 50:
                back = random.randint(0, shard.open)
                shard.spent -= back
                shard.open = 0
                budget.update(shard.index, shard.share)
            case "late":
                old = shard.share
                money = budget.ask(
                    AskMoney(shard=shard.index, session="", budget=old, need=price, wish=price)
                )
                budget.update(shard.index, old)
                shard.left += money.amount
                shard.grants += bool(money.amount)
            case "lost":
                budget.ask(
                    AskMoney(shard=shard.index, session="", budget=shard.share, need=price, wish=price)
                )
                budget.begin(shard.index, shard.share)
            case "die":
                kills += 1
                shard.die()
                budget.begin(shard.index, shard.share)
        assert sum(each.spent + each.left for each in shards) <= LIMIT

    assert sum(each.spent for each in shards) >= LIMIT - 4 * 30


def test_what_was_spent_before_counts_for_the_run_and_not_for_the_command() -> None:
    """
    Shards that are not at work hold what they spent; a command's own limit begins where it begins.
    """
    ask = AskMoney(shard=0, session="", budget=BudgetShare(40), need=30, wish=30)

    assert 0 == SharedBudget(run=100, spent={0: 40, 1: 40}).ask(ask).amount
    assert 30 == SharedBudget(process=30, spent={0: 40, 1: 40}).ask(ask).amount
    assert "--max-cost" == SharedBudget(process=29, spent={0: 40, 1: 40}).ask(ask).name
