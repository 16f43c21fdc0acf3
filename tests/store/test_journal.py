"""The journal of a shard: one owner at a time, lost answers are found, and damage is noticed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import Fenced, ObjectStoreError, StoreDamaged, UsageError
from runner.objects.base import ObjectExists
from runner.objects.cloud import CloudStore
from runner.store.journal import PATIENCE_S, Journal, require_conditional_create
from tests.store.journals import DOWN, HookedStore, Owner, journal, lose_answers, memory


def records(store: CloudStore) -> list[dict[str, object]]:
    """Read the records of the first shard."""
    names = [info.name for info in store.list("shards/00000/log")]
    return [json.loads(zlib.decompress(store.get(name))) for name in names]


def test_a_new_owner_fences_the_old_one() -> None:
    """The old one adds nothing from then on, even if it never heard of the new one; the new one reads all before."""
    store = memory()
    old, new = journal(store), journal(store)
    old.open()
    old.append({"n": 1})

    assert ({"n": 1},) == new.open().batches
    with pytest.raises(Fenced, match="has taken over this shard"):
        old.append({"n": 2})
    new.append({"n": 3})
    assert ["fence", "batch", "fence", "batch"] == [record["kind"] for record in records(store)]
    assert [1, 1, 2, 2] == [record["epoch"] for record in records(store)]


@pytest.mark.parametrize("seed", range(3))
def test_lost_answers_fence_nobody(seed: int) -> None:
    """With 30 % of the appends answered late, wrongly or not at all, each is there once, and in order."""
    store = HookedStore(memory())
    lose_answers(store, 0.3, seed)
    own = journal(store)
    own.open()

    for number in range(100):
        own.append({"n": number})

    store.before = store.after = lambda method, name: None
    assert tuple({"n": number} for number in range(100)) == journal(store).open().batches


def test_a_conflict_that_left_nothing_is_tried_again() -> None:
    """S3 answers 409 without creating anything: what is not there is not somebody else's."""
    store = HookedStore(memory())
    own = journal(store)
    own.open()
    conflicts = iter([True])

    def before(method: str, name: str) -> None:
        if method == "create" and next(conflicts, False):
            raise ObjectExists(name)

    store.before = before
    own.append({"n": 1})

    assert 2 == len(records(store))


def test_a_store_that_is_down_is_given_up_after_a_minute() -> None:
    """Until then every error is tried again; what comes later lands nowhere."""
    store = HookedStore(memory())
    own = journal(store)
    own.open()

    def before(method: str, name: str) -> None:
        if method == "create":
            raise DOWN

    store.before = before
    with pytest.raises(ObjectStoreError):
        own.append({"n": 1})

    assert PATIENCE_S <= own._clock() < PATIENCE_S + 5
    assert len(store.requests) > 20


def test_an_open_waits_for_who_was_quicker() -> None:
    """What another one adds between reading and fencing is read as well."""
    shared = memory()
    store, other = HookedStore(shared), journal(shared)
    other.open()

    def before(method: str, name: str) -> None:
        store.before = lambda method, name: None if method != "create" else act()

    def act() -> None:
        store.before = lambda method, name: None
        other.append({"n": 1})

    store.before = before
    assert ({"n": 1},) == journal(store).open().batches


def test_a_list_that_is_late_is_completed() -> None:
    """A store that does not list its newest objects at once still gives them by name."""
    store = memory()
    old = journal(store)
    old.open()
    old.append({"n": 1})

    class Late(HookedStore):
        def list(self, folder: str = "", *, after: str | None = None) -> list:  # type: ignore[type-arg]
            return super().list(folder, after=after)[:1]

    assert ({"n": 1},) == journal(Late(store)).open().batches


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(0, 2))
def test_whatever_two_owners_do_at_once(turns: list[bool], lead: int) -> None:
    """
    Two processes open one journal and append; their requests interleave in any order.

    Every append that returned is in the log once and in order; of an owner nothing comes after the other's fence; and who
    opened the log read all that had returned before.
    """
    shared = memory()
    done: list[list[str]] = [[], []]
    read: list[tuple[object, ...]] = [(), ()]

    def work(number: int) -> Callable[[Journal], None]:
        def run(own: Journal) -> None:
            read[number] = own.open().batches
            for count in range(3):
                name = f"{number}.{count}"
                own.append({"name": name})
                done[number].append(name)

        return run

    owners = [Owner(shared, work(0)), Owner(shared, work(1))]
    for _ in range(lead * 2):
        owners[0].step()
    for turn in turns:
        owners[turn].step()
    for owner in owners:
        while owner.step():
            pass

    log = records(shared)
    names = [record["body"]["name"] for record in log if record["kind"] == "batch"]  # type: ignore[index]
    assert len(names) == len(set(names))
    for number in (0, 1):
        error = owners[number].error
        assert error is None or isinstance(error, Fenced)
        assert done[number] == [name for name in names if name.startswith(f"{number}.")]
        assert (error is None) == (len(done[number]) == 3)
        fence = next(at for at, record in enumerate(log) if record["nonce"] == owners[number].journal._nonce)
        before = tuple(record["body"] for record in log[:fence] if record["kind"] == "batch")
        assert before == read[number]
    epochs = [record["epoch"] for record in log]
    assert epochs == sorted(epochs)  # type: ignore[type-var]
    assert {1, 2} == set(epochs)


def test_a_store_without_conditional_creation_is_refused() -> None:
    """One that replaces what exists keeps nobody out; nothing but a probe is written."""

    class Replacing(HookedStore):
        def create(self, name: str, data: bytes) -> None:
            self.put(name, data)

    store = Replacing(memory())

    with pytest.raises(UsageError, match="can't hold a journal"):
        require_conditional_create(store)
    require_conditional_create(memory())
    assert [] == store.list()


def test_a_record_that_is_missing_is_noticed() -> None:
    """A hole in the log, or a record that is damaged, is no end of the log."""
    store = memory()
    own = journal(store)
    own.open()
    own.append({"n": 1})
    own.append({"n": 2})

    store.put("shards/00000/log/0000000002", b"x")
    with pytest.raises(StoreDamaged, match="0000000002 of the journal can't be read"):
        journal(store).open()
    store.delete("shards/00000/log/0000000002")
    with pytest.raises(StoreDamaged, match="has no record"):
        journal(store).open()


@pytest.mark.parametrize(
    "content",
    [[], {}, {"kind": "later"}, {"epoch": "1"}, {"body": []}],
    ids=["list", "empty", "kind", "epoch", "body"],
)
def test_a_record_that_is_none_is_damage(content: object) -> None:
    """What is not a record, or one of a later version, is an error with its name, and the log gets no owner."""
    store = memory()
    journal(store).open()
    known = {"kind": "batch", "epoch": 1, "owner": "", "nonce": "", "body": {}}
    value = {**known, **content} if isinstance(content, dict) and content else content
    store.put("shards/00000/log/0000000002", zlib.compress(json.dumps(value).encode()))

    with pytest.raises(StoreDamaged, match="0000000002 of the journal can't be read"):
        journal(store).open()


def test_what_others_put_into_the_folders_is_passed_over(tmp_path: Path) -> None:
    """Notes and copies are neither records nor bases, and are not deleted; a far record is a hole, and is not searched for."""
    store = memory()
    journal(store).open()
    names = [
        f"shards/00000/{folder}/{name}"
        for folder in ("log", "base")
        for name in (
            "notes.txt",
            "0000000001 (1)",
            "0000000001.bak",
            "00000000000000000009",
            "-",
            "sub/0000000009",
        )
    ]
    for name in names:
        store.put(name, b"")

    own = journal(store)
    assert () == own.open().batches
    (tmp_path / "copy").write_bytes(b"database")
    own.write_base(tmp_path / "copy")
    own.append({"n": 1})
    assert ({"n": 1},) == journal(store).open().batches
    assert set(names) <= {info.name for info in store.list()}

    store.put("shards/00000/log/9999999999", b"")
    with pytest.raises(StoreDamaged, match="no record shards/00000/log/0000000006"):
        journal(store).open()
