"""A pool of keys: used in turn, retired when refused, and polled with in the right order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.outcomes import PollOutcome
from tests.engine.answers import (
    ACCEPTED,
    BAD_KEY,
    NO_MONEY,
    POLL_401,
    POLL_403,
    POLL_429,
    RUNNING,
    SUCCEEDED,
    THROTTLED,
    UNKNOWN,
)
from tests.engine.fakes import FAST, FakeApi, specs
from tests.engine.harness import EngineHarness


class KeyedApi(FakeApi):
    """Answers by the key that is used."""

    def __init__(self, posts: dict[str, Any], polls: dict[str, Any]) -> None:
        super().__init__()
        self._posts_by_key, self._polls_by_key = posts, polls

    async def submit(self, body: bytes, key: str) -> Any:
        self.on_submit = lambda job, nth: self._posts_by_key.get(key, ACCEPTED)
        return await super().submit(body, key)

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        self.on_poll = lambda task, nth: self._polls_by_key.get(key, SUCCEEDED)
        return await super().poll(task_id, key)


def run_with_keys(tmp_path: Path, api: FakeApi, *keys: str, jobs: int = 6) -> Any:
    """Run some jobs with some keys."""
    harness = EngineHarness(tmp_path, api, keys=keys)
    harness.add_jobs(specs(jobs))
    return harness.run()


def test_keys_are_used_in_turn(tmp_path: Path) -> None:
    """
    Each key of the pool submits its share.
    """
    api = FakeApi()

    run_with_keys(tmp_path, api, "a", "b", "c")

    assert Counter(a=2, b=2, c=2) == Counter(post.key for post in api.posts)


def test_key_without_credit_is_retired_and_its_job_submitted_with_another(tmp_path: Path) -> None:
    """
    A refused key submits once; its job is submitted with the next key, and there is a notice.
    """
    api = KeyedApi({"a": NO_MONEY}, {})

    run = run_with_keys(tmp_path, api, "a", "b")

    assert {State.SUCCEEDED} == set(run.states.values())
    assert Counter(a=1, b=6) == Counter(post.key for post in api.posts)
    assert 1 == len(run.notices("key_retired"))
    assert [] == run.stop_reasons


def test_run_stops_when_every_key_is_retired(tmp_path: Path) -> None:
    """
    Once no key is left, nothing was paid for, and every job is pending.
    """
    api = KeyedApi({"a": NO_MONEY, "b": BAD_KEY}, {})

    run = run_with_keys(tmp_path, api, "a", "b")

    assert {State.PENDING} == set(run.states.values())
    assert 1 == len(run.stop_reasons)
    assert run.stop_reasons[0] in ("auth", "quota")
    assert len(api.posts) <= 4


def test_throttled_key_cools_down_while_others_are_used(tmp_path: Path) -> None:
    """
    While a key's account is throttled, the other keys are used.
    """
    api = KeyedApi({"a": THROTTLED}, {})

    run = run_with_keys(tmp_path, api, "a", "b", jobs=20)

    keys = Counter(post.key for post in api.posts)
    assert {State.SUCCEEDED} == set(run.states.values())
    assert 20 == keys["b"]
    assert keys["a"] <= 6


def test_key_of_another_account_never_makes_a_task_lost(tmp_path: Path) -> None:
    """
    While a task's own key is refused, it does not matter that another account does not know the task.
    """
    refused = 0

    class Api(KeyedApi):
        async def poll(self, task_id: str, key: str) -> PollOutcome:
            nonlocal refused
            own_key = self.posts[int(task_id.rsplit("-", 1)[1])].key
            self.on_poll = lambda task, nth: UNKNOWN
            if key == own_key:
                refused += 1
                self.on_poll = lambda task, nth: POLL_403 if refused < 300 else SUCCEEDED
            return await FakeApi.poll(self, task_id, key)

    run = run_with_keys(tmp_path, Api({}, {}), "a", "b")

    assert {State.SUCCEEDED, State.TIMED_OUT} >= set(run.states.values())


def test_401_while_polling_ends_the_run_and_keeps_the_tasks(tmp_path: Path) -> None:
    """
    A key that is refused while polling ends the run long before the poll timeout; its tasks stay submitted for the next one.
    """
    api = KeyedApi({}, {"a": POLL_401})

    run = run_with_keys(tmp_path, api, "a", jobs=30)

    assert ["auth"] == run.stop_reasons
    assert run.counts[State.PENDING] > 0
    waiting = [record for record in run.records.values() if record.state is State.SUBMITTED]
    assert len(api.posts) == len(waiting)
    assert all(record.task_id for record in waiting)
    assert FAST.poll.timeout_s > max(at for at, _, _ in api.polls)


def test_a_key_that_is_refused_once_while_polling_still_brings_the_videos(tmp_path: Path) -> None:
    """
    After a 401 that does not last nothing more is submitted, and the tasks that exist are polled and downloaded.
    """
    answers = iter([POLL_401, POLL_401])
    api = FakeApi(on_poll=lambda task_id, nth: next(answers, SUCCEEDED))

    run = run_with_keys(tmp_path, api, "a", jobs=30)

    assert ["auth"] == run.stop_reasons
    assert {State.PENDING, State.SUCCEEDED} == set(run.states.values())
    assert len(api.posts) == run.counts[State.SUCCEEDED]


def test_401_of_one_key_of_a_pool_does_not_stop_the_run(tmp_path: Path) -> None:
    """
    Tasks of a key that is refused while polling are found with the others.
    """
    api = KeyedApi({}, {"a": POLL_401})

    run = run_with_keys(tmp_path, api, "a", "b")

    assert {State.SUCCEEDED} == set(run.states.values())
    assert [] == run.stop_reasons


def test_cooling_keys_delay_no_poll(tmp_path: Path) -> None:
    """While every key waits longer than the poll timeout before it may submit, the tasks that exist are polled and downloaded."""
    accepted = iter([ACCEPTED] * 4)
    api = FakeApi(
        lambda job, nth: next(accepted, replace(THROTTLED, retry_after_s=7200.0)),
        lambda task_id, nth: SUCCEEDED if nth >= 20 else RUNNING,
    )

    run = run_with_keys(tmp_path, api, "a", "b", jobs=10)

    assert (4, 6) == (run.counts[State.SUCCEEDED], run.counts[State.PENDING])
    assert ["unavailable"] == run.stop_reasons


def test_wait_of_one_keys_account_delays_no_poll_of_the_others(tmp_path: Path) -> None:
    """
    An account that asks its key to wait longer than the poll timeout keeps only its own tasks from being polled; they are
    polled once more before they are given up.
    """
    api = KeyedApi({}, {"a": replace(POLL_429, retry_after_s=7200.0)})

    run = run_with_keys(tmp_path, api, "a", "b", jobs=10)

    by_key = {"a": State.TIMED_OUT, "b": State.SUCCEEDED}
    assert {post.job: by_key[post.key] for post in api.posts} == run.states
    polls = Counter(task_id for _, task_id, key in api.polls if key == "a")
    assert [1, 1, 1, 1, 2] == sorted(polls.values())
    assert FAST.poll.timeout_s > max(at for at, _, key in api.polls if key == "b")


def test_a_task_is_looked_at_a_last_time_before_it_is_given_up(tmp_path: Path) -> None:
    """A wait that ends after the poll timeout is no reason to give up a task unseen."""
    first = iter([replace(POLL_429, retry_after_s=7200.0)])
    api = FakeApi(on_poll=lambda task_id, nth: next(first, SUCCEEDED))

    run = run_with_keys(tmp_path, api, "a", jobs=4)

    assert {State.SUCCEEDED} == set(run.states.values())


def test_task_that_waits_behind_a_longer_one_is_looked_at_before_it_is_given_up(tmp_path: Path) -> None:
    """While the gateway asks for a long wait, each task has its last poll at its own timeout, whatever the others' are."""
    first = iter([replace(POLL_429, retry_after_s=7200.0)])
    api = FakeApi(on_poll=lambda task_id, nth: next(first, SUCCEEDED))
    harness = EngineHarness(tmp_path, api, keys=("a",))
    timeouts_s = (100.0, 300.0, 100.0, 100.0)
    harness.add_jobs(
        job._replace(timeout_s=timeout_s) for job, timeout_s in zip(specs(4), timeouts_s, strict=True)
    )

    run = harness.run()

    assert {State.SUCCEEDED} == set(run.states.values())
