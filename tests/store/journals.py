"""Stores for the tests of journals: one that loses answers, and one whose requests are let through one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from obstore.store import MemoryStore

from runner.errors import ObjectStoreError
from runner.objects.base import ObjectExists, ObjectInfo
from runner.objects.cloud import CloudStore
from runner.store.journal import Journal

DOWN = ObjectStoreError("the store can't be reached")


def memory() -> CloudStore:
    """Return a new store in memory."""
    return CloudStore(MemoryStore(), "memory")


class HookedStore(CloudStore):
    """
    A store in memory that other stores share.

    Attributes:
        before, after: Called with the method and the name, and may raise; `after` when the work is done.
    """

    def __init__(self, like: CloudStore) -> None:
        super().__init__(like._store, "memory")
        self.before: Callable[[str, str], None] = lambda method, name: None
        self.after: Callable[[str, str], None] = lambda method, name: None
        self.requests: list[tuple[str, str]] = []

    def _around(self, method: str, name: str, call: Callable[[], Any]) -> Any:
        self.requests.append((method, name))
        self.before(method, name)
        try:
            return call()
        finally:
            self.after(method, name)

    def create(self, name: str, data: bytes) -> None:
        self._around("create", name, lambda: super(HookedStore, self).create(name, data))

    def put(
        self,
        name: str,
        source: bytes | Path,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._around("put", name, lambda: super(HookedStore, self).put(name, source))

    def get(self, name: str) -> bytes:
        found: bytes = self._around("get", name, lambda: super(HookedStore, self).get(name))
        return found

    def list(self, folder: str = "", *, after: str | None = None) -> list[ObjectInfo]:
        found: list[ObjectInfo] = self._around(
            "list", folder, lambda: super(HookedStore, self).list(folder, after=after)
        )
        return found


def lose_answers(store: HookedStore, share: float, seed: int) -> None:
    """Let a share of the creations fail: after they are done, before, or as if another had been first."""
    rng = random.Random(seed)

    def after(method: str, name: str) -> None:
        if method == "create" and "/log/" in name and rng.random() < share:
            raise rng.choice([DOWN, ObjectExists(name)])

    def before(method: str, name: str) -> None:
        if method == "create" and "/log/" in name and rng.random() < share / 3:
            raise rng.choice([DOWN, ObjectExists(name)])

    store.before, store.after = before, after


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now


def journal(store: CloudStore, *, index: int = 0) -> Journal:
    """Return the journal of a shard, whose pauses take no time."""
    time = Time()
    return Journal(store, "run", index, sleep=time.sleep, clock=time.clock)


class Owner:
    """A process with a journal, in a thread that stops before each request until it is let through."""

    def __init__(self, like: CloudStore, work: Callable[[Journal], None]) -> None:
        self._store = HookedStore(like)
        self._store.before = self._wait
        self._turns = Condition()
        self._waiting = 0
        self._allowed = 0
        self._is_done = False
        self.error: BaseException | None = None
        self.journal = journal(self._store)
        self._thread = Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Journal], None]) -> None:
        try:
            work(self.journal)
        except BaseException as error:
            self.error = error
        with self._turns:
            self._is_done = True
            self._turns.notify_all()

    def _wait(self, method: str, name: str) -> None:
        with self._turns:
            self._waiting += 1
            self._turns.notify_all()
            self._turns.wait_for(lambda: self._allowed > 0)
            self._allowed -= 1
            self._waiting -= 1
            self._turns.notify_all()

    def step(self) -> bool:
        """Let one request through, and return whether there was any; the owner then waits again, or has ended."""
        with self._turns:
            self._turns.wait_for(lambda: self._waiting > 0 or self._is_done)
            if self._is_done:
                return False
            self._allowed += 1
            self._turns.notify_all()
            self._turns.wait_for(lambda: self._allowed == 0)
            return True
