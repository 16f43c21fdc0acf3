"""The store of a run with a journal: a new machine knows what the old one knew, and nothing is lost or forgotten."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import fields

from runner.api.asset_store import refetch_lost_files
from runner.core.filenames import BASE_NAME
from runner.core.lifecycle import Event, State, advance
from runner.core.model import Asset, AssetKind, Attempt, Job
from runner.errors import Fenced, ObjectStoreError, RunDirError, RunnerError
from runner.objects.base import FolderStore
from runner.objects.cloud import CloudStore
from runner.store import query, work_list
from runner.store.database import connect_reader
from runner.store.journal import PATIENCE_S, Journal
from runner.store.local_view import Batch
from runner.store.store import Store
from tests.store.jobs import make_spec, sync_jobs
from tests.store.journals import DOWN, HookedStore, journal, memory


def opened(run_dir: Path, store: CloudStore | FolderStore) -> Store:
    """Return the store of a run with a journal."""
    return Store(run_dir, journal=Journal(store, "run", 0, sleep=lambda seconds: None))


def pending(store: Store, count: int = 2) -> list[Job]:
    """Take jobs in, and give them as the engine has them."""
    sync_jobs(store, *(make_spec(f"job-{n}", n) for n in range(count)))
    return list(work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0.0))


def dump(run_dir: Path) -> dict[str, list[object]]:
    """Read all that is known of jobs."""
    tables = ("jobs", "specs", "attempts", "assets", "answers", "usages")
    with closing(connect_reader(run_dir)) as reader:
        return {table: reader.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


async def submit(store: Store, job: Job, task_id: str | None) -> None:
    """Save an intent, and the acceptance if there is a task."""
    job.attempt = 1
    job.state = advance(job.state, Event.INTENT)
    await store.durable(store.save(job, Attempt(1, 5.0, "pending")))
    if task_id is not None:
        job.state = advance(job.state, Event.ACCEPTED)
        job.task_id = task_id
        await store.durable(store.save(job, Attempt(1, 5.0, "accepted", task_id)))


@pytest.mark.parametrize("kind", ["memory", "folder"])
async def test_a_lost_disk_loses_nothing(kind: str, tmp_path: Path) -> None:
    """All that was durable is there on a new machine, in one directory after the other; doubt is a POST under way."""
    shared = memory() if kind == "memory" else FolderStore(str(tmp_path / "journal"))
    with opened(tmp_path / "a", shared) as store:
        first, second = pending(store)
        async with store:
            await submit(store, first, "task_1")
            asset = Asset(AssetKind.VIDEO, "assets/job-0.mp4", 1, "0" * 64, "video/mp4")
            first.state = advance(first.state, Event.REMOTE_SUCCEEDED)
            first.state = advance(first.state, Event.DELIVERED)
            await store.durable(store.save(first, assets=[asset]))
            await submit(store, second, None)
    before = dump(tmp_path / "a")

    with opened(tmp_path / "b", shared) as store:
        assert store.is_rebuilt
        records = list(query.records(store.reader))

    assert [State.SUCCEEDED, State.UNCERTAIN] == [record.state for record in records]
    assert before["assets"] == dump(tmp_path / "b")["assets"]
    assert before["specs"] == dump(tmp_path / "b")["specs"]
    # Recovery was given to the journal as well: a third machine finds the same.
    with opened(tmp_path / "c", shared):
        assert dump(tmp_path / "b") == dump(tmp_path / "c")


async def test_what_is_current_is_kept(tmp_path: Path) -> None:
    """A directory that has all that the journal has is not made again; one that another machine overtook is."""
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        first, _ = pending(store)
        async with store:
            await submit(store, first, "task_1")

    with opened(tmp_path / "a", shared) as store:
        assert not store.is_rebuilt
    with opened(tmp_path / "b", shared) as store:
        assert store.is_rebuilt
        (job,) = work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0.0)
        async with store:
            await submit(store, job, "task_2")
    for _ in range(2):
        # As long as nobody has looked for its files: the first process may have been killed before it did.
        with opened(tmp_path / "a", shared) as store:
            assert store.is_rebuilt
            assert "job-1" == query.task_owner(store.reader, "task_2")
    with opened(tmp_path / "a", shared) as store:
        refetch_lost_files(store)
    with opened(tmp_path / "a", shared) as store:
        assert not store.is_rebuilt


async def test_what_a_journal_lost_it_gets_again(tmp_path: Path) -> None:
    """A directory that knows more than a journal that was restored from a backup gives it all that it knows."""
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        first, _ = pending(store)
        async with store:
            await submit(store, first, "task_1")
    for info in shared.list("shards/00000/log")[-2:]:
        shared.delete(info.name)

    with opened(tmp_path / "a", shared) as store:
        assert not store.is_rebuilt
    with opened(tmp_path / "b", shared) as store:
        assert "job-0" == query.task_owner(store.reader, "task_1")


async def test_a_fenced_owner_submits_nothing_more(tmp_path: Path) -> None:
    """Its intent is not durable, so that no POST is sent; its own directory takes in the new owner's work later."""
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        first, _ = pending(store)
        async with store:
            with opened(tmp_path / "b", shared):
                pass
            with pytest.raises(Fenced):
                await submit(store, first, None)
            assert isinstance(store.error, Fenced)


async def test_what_a_fenced_owner_can_not_save_here_either_holds_up_nobody(tmp_path: Path) -> None:
    """Whoever waits for such a change gets the error of the journal, and the run ends."""
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        first, _ = pending(store)
        async with store:
            with opened(tmp_path / "b", shared):
                pass
            # SQLite has no such text, and the record in the journal has.
            first.remote_status = "\ud800"
            with pytest.raises(Fenced):
                await asyncio.wait_for(store.durable(store.save(first)), 10)


async def test_tasks_that_the_journal_did_not_take_are_found_on_this_machine(tmp_path: Path) -> None:
    """The store goes down after the POST: the id is saved here, and belongs to its job once the store is back."""
    shared = memory()
    store_of_a = HookedStore(shared)
    with opened(tmp_path / "a", store_of_a) as store:
        first, second = pending(store)
        async with store:
            await submit(store, first, None)
            await submit(store, second, None)

            def before(method: str, name: str) -> None:
                raise DOWN

            store_of_a.before = before
            store.journal._clock = iter([0.0, PATIENCE_S, *[PATIENCE_S] * 9]).__next__  # type: ignore[union-attr]
            for number, job in enumerate((first, second), 1):
                job.state = advance(job.state, Event.ACCEPTED)
                job.task_id = f"task_{number}"
                # The second comes after the journal was given up.
                with pytest.raises(RunnerError):
                    await store.durable(store.save(job, Attempt(1, 5.0, "accepted", job.task_id)))
            # Nothing is submitted any more.
            assert store.error is not None
    store_of_a.before = lambda method, name: None

    with opened(tmp_path / "a", store_of_a) as store:
        found = {record.job_id: (record.state, record.task_id) for record in query.records(store.reader)}

    assert {"job-0": (State.SUBMITTED, "task_1"), "job-1": (State.SUBMITTED, "task_2")} == found
    # The journal knows it, too.
    with opened(tmp_path / "b", shared) as store:
        assert "job-0" == query.task_owner(store.reader, "task_1")


@pytest.mark.parametrize(("number", "submitted_at"), [(2, 5.0), (1, 6.0)])
async def test_only_the_uncertain_attempt_gets_a_task_from_this_machine(
    number: int, submitted_at: float, tmp_path: Path
) -> None:
    """What another machine resolved or did again meanwhile is left as it is."""
    shared = memory()
    store_of_a = HookedStore(shared)
    with opened(tmp_path / "a", store_of_a) as store:
        (first,) = pending(store, 1)
        async with store:
            await submit(store, first, None)

            def before(method: str, name: str) -> None:
                raise DOWN

            store_of_a.before = before
            store.journal._clock = iter([0.0, PATIENCE_S]).__next__  # type: ignore[union-attr]
            first.state = advance(first.state, Event.ACCEPTED)
            first.task_id = "task_1"
            with pytest.raises(RunnerError):
                await store.durable(store.save(first, Attempt(1, 5.0, "accepted", "task_1")))
    store_of_a.before = lambda method, name: None
    with opened(tmp_path / "b", shared) as store, store.transaction() as connection:
        connection.execute("UPDATE jobs SET attempt = ?", (number,))
        connection.execute(
            "INSERT OR REPLACE INTO attempts SELECT seq, ?, ?, 'uncertain', NULL, NULL, NULL, NULL FROM jobs",
            (number, submitted_at),
        )

    with opened(tmp_path / "a", store_of_a) as store:
        (record,) = query.records(store.reader)
    assert (State.UNCERTAIN, None) == (record.state, record.task_id)


def fail_all_jobs(run_dir: Path, store: CloudStore, error: Exception | None = None) -> None:
    """Change all jobs directly, and then raise an error, if one is given."""
    with opened(run_dir, store) as run:
        with run.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'failed'")
        if error is not None:
            raise error


def test_what_the_journal_did_not_get_is_reported_once(tmp_path: Path) -> None:
    """A run that reported it ends as it says, not with a second error, by whose exit code nothing was sent."""
    store_of_a = HookedStore(memory())

    def before(method: str, name: str) -> None:
        raise DOWN

    with opened(tmp_path / "a", store_of_a) as store:
        pending(store)
        store_of_a.before = before
        store.journal._clock = iter([0.0, PATIENCE_S]).__next__  # type: ignore[union-attr]
        with pytest.raises(ObjectStoreError):
            store.give_base()


def test_what_the_journal_never_got_is_forgotten(tmp_path: Path) -> None:
    """A process that died between its transaction and the base for it leaves nothing: the next one does it again."""
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        pending(store)
    with pytest.raises(KeyError):
        fail_all_jobs(tmp_path / "a", shared, KeyError())

    with opened(tmp_path / "a", shared) as store:
        assert 2 == query.counts(store.reader)[State.PENDING]


@pytest.mark.parametrize("at", ["put", "base record"])
def test_a_crash_while_a_base_is_written(at: str, tmp_path: Path) -> None:
    """Between fence and base, and between base and its record: the base does not count, and the next one is whole."""
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        pending(store)
    hooked = HookedStore(shared)

    def before(method: str, name: str) -> None:
        if (method == "put") if at == "put" else (method == "create" and name.endswith("0000000004")):
            raise KeyboardInterrupt

    hooked.before = before
    with pytest.raises(KeyboardInterrupt):
        fail_all_jobs(tmp_path / "a", hooked)

    with opened(tmp_path / "b", shared) as store:
        assert 2 == query.counts(store.reader)[State.PENDING]
        with store.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'failed'")
    with opened(tmp_path / "c", shared) as store:
        assert 2 == query.counts(store.reader)[State.FAILED]
    assert 1 == len(shared.list("shards/00000/base"))


def test_a_copy_that_a_killed_process_left_is_written_anew(tmp_path: Path) -> None:
    """SQLite copies into no file that is there; the next process begins with its own copy."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / BASE_NAME).write_bytes(b"half a copy")
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        pending(store)

    assert not (tmp_path / "a" / BASE_NAME).exists()
    with opened(tmp_path / "b", shared) as store:
        assert 2 == query.counts(store.reader)[State.PENDING]


def test_a_run_that_began_without_a_journal_gets_one(tmp_path: Path) -> None:
    """The journal begins with what the directory has; a journal that has a run takes no other directory."""
    with Store(tmp_path / "a") as store:
        pending(store)
    with Store(tmp_path / "other") as store:
        pending(store)
    shared = memory()
    with opened(tmp_path / "a", shared):
        pass

    with opened(tmp_path / "b", shared) as store:
        assert 2 == query.counts(store.reader)[State.PENDING]
    with pytest.raises(RunDirError, match="does not know"), opened(tmp_path / "other", shared):
        pass
    with pytest.raises(RunDirError, match="can't continue without its journal"), Store(tmp_path / "a"):
        pass
    with (
        pytest.raises(RunDirError, match="belongs to shard 0 of the journal"),
        Store(tmp_path / "a", journal=Journal(shared, "run", 1)),
    ):
        pass


def test_a_log_that_was_closed_is_never_opened_again(tmp_path: Path) -> None:
    """After its shard was merged every process is fenced, whether it has the shard open or opens it."""
    shared = memory()
    with opened(tmp_path / "a", shared) as store:
        pending(store)
        assert store.journal is not None
        store.journal.retire("/videos/all")

    with pytest.raises(Fenced, match="merged into /videos/all"), opened(tmp_path / "b", shared):
        pass
    assert "/videos/all" == journal(shared).read().successor


async def test_a_slow_store_gets_larger_commits(tmp_path: Path) -> None:
    """What is saved while a record is on its way shares the next one, so that the rate does not fall with the latency."""
    hooked, is_on_its_way, may_go_on = HookedStore(memory()), threading.Event(), threading.Event()

    def before(method: str, name: str) -> None:
        if method == "create":
            is_on_its_way.set()
            assert may_go_on.wait(60)

    with opened(tmp_path / "a", hooked) as store:
        first, *others = pending(store, 21)
        async with store:
            hooked.before = before
            hooked.requests.clear()
            waiting = [asyncio.ensure_future(submit(store, first, None))]
            await asyncio.to_thread(is_on_its_way.wait, 60)
            waiting += [asyncio.ensure_future(submit(store, job, None)) for job in others]
            await asyncio.sleep(0)
            may_go_on.set()
            await asyncio.gather(*waiting)
            records = [name for method, name in hooked.requests if method == "create"]

    assert 2 == len(records)


async def test_no_store_is_waited_for_in_vain(tmp_path: Path) -> None:
    """A run whose store goes down ends; who waits for a commit gets the error."""
    hooked = HookedStore(memory())
    with opened(tmp_path / "a", hooked) as store:
        first, _ = pending(store)
        async with asyncio.timeout(30), store:

            def before(method: str, name: str) -> None:
                raise DOWN

            hooked.before = before
            store.journal._clock = iter([0.0, PATIENCE_S]).__next__  # type: ignore[union-attr]
            with pytest.raises(ObjectStoreError):
                await submit(store, first, None)
        # What was not sent is not called sent here either.
        assert 2 == query.counts(store.reader)[State.PENDING]


def test_every_change_of_a_commit_is_in_its_record() -> None:
    """What a batch has besides, a new machine would not know: each field is in the record, or needed by one process alone."""
    of_one_process = {"number", "has_changes", "is_journaled", "waiting", "parts", "dropped_parts"}
    filled: dict[str, object] = {}
    for entry in fields(Batch):
        if entry.name in of_one_process:
            continue
        empty = getattr(Batch(0), entry.name)
        if entry.name == "meta":
            filled[entry.name] = {"a": "b"}
        elif isinstance(empty, dict):
            key = 7 if entry.name in ("jobs", "intents") else (7, 1)
            filled[entry.name] = {key: [1, 7] if key == 7 else [7, 1, "x"]}
        else:
            filled[entry.name] = [[7, 1]]

    read = Batch.from_json(json.loads(json.dumps(Batch(0, **filled).to_json())))  # type: ignore[arg-type]

    assert filled == {name: getattr(read, name) for name in filled}
