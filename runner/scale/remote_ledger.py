"""
The ledger of budgets, which is a file of the driver's machine, for shards on other machines.

A message is sent once. If its answer is lost, the ledger may have set money aside that nobody spends, never the other way
round; the shard stops, and its next start tells the ledger all that the shard's journal has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from runner.api.run_facts import RunFacts, default_run_dir
from runner.api.run_ledger import ledger_path
from runner.errors import LedgerError, UsageError
from runner.store.costs import LedgerEntry
from runner.store.ledger import Exchange, Grant, Ledger, Limits

_NAME = "ledger"
_CALL_LIMIT_S = 120.0
"""Longer than the ledger waits for another program, since shards wait for each other's turn as well."""


def find_ledger(facts: RunFacts, manifest: Path, address: str | None) -> Path | None:
    """
    Return the path of the ledger of the run's budgets on this machine; None if no other run counts.

    Raises:
        UsageError: This machine is not one of the cluster's.
        LedgerError: The ledger can't be used.
    """
    budget = facts.settings.budget
    if budget is None:
        return None
    if address is not None and address.startswith("ray://"):
        if budget.day is None and budget.month is None:
            return None
        raise UsageError(
            "the ledger of budget.day and budget.month is on this machine, which the cluster does not reach",
            hint="start the run on a machine of the cluster, with --ray-address auto",
        )
    simulate = facts.origin.is_simulated
    path = ledger_path(budget, default_run_dir(manifest, facts.settings.name, simulate=simulate))
    Ledger(path).close()
    return path


@contextmanager
def serving_ledger(path: Path | None) -> Iterator[None]:
    """Serve a ledger to the shards of a run for the length of a block, in a process on this machine."""
    if path is None:
        yield
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class = ray.remote(LedgerActor).options(
        name=_NAME, num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy=here
    )
    # It ends when nothing refers to it.
    actor = actor_class.remote(str(path))
    yield
    del actor


class LedgerActor:
    """
    Does to a ledger what shards ask for, one after the other.

    The process of a shard that was replaced is refused: what it would give back is its successor's by now.
    """

    def __init__(self, path: str) -> None:
        self._ledger = Ledger(Path(path))
        self._owners: dict[int, str] = {}

    def call(self, owner: str, name: str, *values: Any) -> Any:
        """Call a method of the ledger for a process; return what that returns, or the error."""
        try:
            if name == "open_run":
                run, is_due = self._ledger.open_run(*values)
                self._owners[run] = owner
                return run, is_due
            if self._owners.get(values[0]) != owner:
                return LedgerError("another process works on this shard", hint="let that process continue")
            return getattr(self._ledger, name)(*values)
        except LedgerError as error:
            return error


class RemoteLedger:
    """
    The ledger, as the process of one shard uses it; see `Ledger`. Its methods block, for a thread beside the event loop.

    Args:
        call: Calls the actor, as `LedgerActor.call`.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._actor_call = call
        self._owner = uuid4().hex

    def open_run(self, token: str, name: str, path: str) -> tuple[int, bool]:
        """Register that this process works on a shard, and no earlier one; return its key, and whether `sync_run` is due."""
        return self._call("open_run", token, name, path)  # type: ignore[no-any-return]

    def sync_run(self, run: int, entries: Iterable[LedgerEntry], *, replaced: Sequence[str] = ()) -> None:
        """Replace all that is known of a shard, which replaces no others."""
        self._call("sync_run", run, list(entries))

    def exchange(self, run: int, exchange: Exchange, limits: Limits) -> Grant:
        """Save what changed, give back what is not needed, and get a new allowance."""
        return self._call("exchange", run, exchange, limits)  # type: ignore[no-any-return]

    def close_run(self, run: int, entries: Iterable[LedgerEntry]) -> None:
        """Save what changed, and free the allowance."""
        self._call("close_run", run, list(entries))

    def close(self) -> None:
        """Do nothing: the ledger is other shards', too."""

    def _call(self, name: str, *values: Any) -> Any:
        reply = self._actor_call(self._owner, name, *values)
        if isinstance(reply, LedgerError):
            raise reply
        return reply


def find_remote_ledger(namespace: str) -> RemoteLedger:
    """Return the ledger that the driver of a run serves."""
    import ray

    actor = ray.get_actor(_NAME, namespace=namespace)

    def call(*values: Any) -> Any:
        try:
            return ray.get(actor.call.remote(*values), timeout=_CALL_LIMIT_S)
        except ray.exceptions.RayError as error:
            message = f"the ledger on the driver's machine can't be reached: {error}"
            return LedgerError(message, hint="run the same command again")

    return RemoteLedger(call)
