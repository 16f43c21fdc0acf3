"""One ledger for the shards of a run, whichever machine they are on; nothing here needs Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from runner.api.journals import check_out, find_run
from runner.api.manifest_jobs import prepare
from runner.api.options import RunOptions
from runner.api.run import resume
from runner.api.run_facts import RunFacts, RunOrigin
from runner.api.run_ledger import spend
from runner.core.governor import RunGovernor
from runner.core.lifecycle import State
from runner.core.money import parse_money
from runner.core.settings import Budget, Settings
from runner.core.sharding import Shard
from runner.core.shared_governor import SharedGovernor
from runner.engine.context import SystemClock
from runner.engine.governor_client import GovernorClient
from runner.engine.governor_service import GovernorService
from runner.errors import LedgerError, UsageError
from runner.scale.actors import LedgerActor, RemoteLedger, find_ledger
from runner.store.ledger import Exchange, LedgerLimits

DAY = LedgerLimits(day=parse_money("3 USD"))
MANIFEST = """
version: 1
name: kittens
budget: {day: 3 USD, unknown: 1 USD}
jobs:
  - id: job-${n}
    repeat: 8
    request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}', seconds: 4, size: 480p}
"""


def _exchange(need: int = 0, give_back: int = 0) -> Exchange:
    back = {"2026-11-26": give_back * 10**9}
    return Exchange(
        day="2026-11-26",
        currency="USD",
        need=need * 10**9,
        ask=need * 10**9,
        give_back=back if give_back else {},
    )


def test_a_process_that_was_replaced_gives_nothing_back(tmp_path: Path) -> None:
    """
    What it held was dropped when its successor began, which has an allowance of its own under the same name.
    """
    actor = LedgerActor(str(tmp_path / "spend.db"))
    old, new, other = (RemoteLedger(actor.call) for _ in range(3))
    run, is_due = old.open_run("shard 0", "many", "/srv/many-0")
    assert is_due
    assert 3 * 10**9 == old.exchange(run, _exchange(3), DAY).amount

    assert (run, True) == new.open_run("shard 0", "many", "/srv/many-0")
    new.sync_run(run, [])
    assert 3 * 10**9 == new.exchange(run, _exchange(3), DAY).amount

    with pytest.raises(LedgerError, match="another process works on this shard"):
        old.exchange(run, _exchange(give_back=3), DAY)
    with pytest.raises(LedgerError, match="another process"):
        old.close_run(run, [])
    key, _ = other.open_run("shard 1", "many", "/srv/many-1")
    assert 0 == other.exchange(key, _exchange(1), DAY).amount


def _one_after_the_other(actor: LedgerActor) -> Callable[..., Any]:
    """Call an actor as Ray does, whichever threads call."""
    lock = Lock()

    def call(*values: Any) -> Any:
        with lock:
            return actor.call(*values)

    return call


async def _work(url: str, folder: Path, call: Callable[..., Any]) -> int:
    """Work on both shards of a run at once, each on a machine of its own, and return how many jobs have been submitted."""
    settings = Settings(name="kittens", base_url="https://api.example")
    governor = RunGovernor(settings.limits, learned={}, stall_s=60.0)
    service = GovernorService(
        SharedGovernor(settings.limits, governor, session="1", shards=2), time.monotonic
    )
    results = []
    for index in range(2):
        machine = folder / f"machine-{index}"
        machine.mkdir(exist_ok=True)
        [run_dir] = check_out(find_run(url, {}), shard=Shard(index, 2), folder=machine)
        client = GovernorClient(
            service.call, shard=index, clock=SystemClock(), at_once=2, ledger=RemoteLedger(call)
        )
        options = RunOptions(yes=True, scenario=str(folder / "scenario.yaml"))
        results.append(resume(run_dir, options=options, governor=client))
    done = await asyncio.gather(*results)
    return sum(result.counts[State.SUCCEEDED] for result in done)


@pytest.mark.slow
def test_shards_spend_the_budget_of_one_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Two at work at once never spend more than the day has; what one of them held and did not use, the next run does.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(MANIFEST)
    (tmp_path / "scenario.yaml").write_text("{version: 1, generate_s: [0.01, 0.02]}")
    url = (tmp_path / "j").as_uri()
    prepare(tmp_path / "m.yaml", url, 2, options=RunOptions(simulate=True), is_governed=True)
    call = _one_after_the_other(LedgerActor(str(tmp_path / "spend.db")))

    first = asyncio.run(_work(url, tmp_path, call))
    second = asyncio.run(_work(url, tmp_path, call))

    assert 1 <= first <= second == 3
    [total] = spend(tmp_path / "spend.db").totals
    assert (3 * 10**9, 0) == (total.settled, total.reserved)
    assert [tmp_path / "spend.db"] == list(tmp_path.rglob("spend*.db"))


def test_the_ledger_is_on_a_machine_of_the_cluster(tmp_path: Path) -> None:
    """
    A driver that is elsewhere is refused if other runs count; without it, or without such a budget, nothing is.
    """

    def found(budget: Budget | None, address: str | None) -> Path | None:
        facts = RunFacts(
            Settings(name="many", budget=budget), RunOrigin(None, is_simulated=False, sharded=False)
        )
        return find_ledger(facts, tmp_path / "m.yaml", address)

    day, run = Budget(day=parse_money("3 USD")), Budget(run=parse_money("3 USD"))
    assert tmp_path / "output" / "spend.db" == found(day, None) == found(run, "auto")
    assert found(run, "ray://head:10001") is found(None, "ray://head:10001") is None
    with pytest.raises(UsageError, match="which the cluster does not reach"):
        found(day, "ray://head:10001")
