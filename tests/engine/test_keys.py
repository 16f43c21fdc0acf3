"""A pool of keys: taken in turn, retired when refused, and asked for tasks with care."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from runner.core.lifecycle import State
from runner.core.outcomes import PollOutcome
from tests.engine.answers import (
    ACCEPTED,
    BAD_KEY,
    NO_MONEY,
    POLL_401,
    POLL_403,
    SUCCEEDED,
    THROTTLED,
    UNKNOWN,
)
from tests.engine.fakes import FakeApi, Stage, specs


class KeyedApi(FakeApi):
    """Answers by the key that is used: POSTs by ``posts``, queries by ``looks``."""

    def __init__(self, posts: dict[str, Any], looks: dict[str, Any]) -> None:
        super().__init__()
        self._by_key, self._looks_by_key = posts, looks

    async def submit(self, body: bytes, key: str) -> Any:
        self.on_submit = lambda job, nth: self._by_key.get(key, ACCEPTED)
        return await super().submit(body, key)

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        self.on_poll = lambda task, nth: self._looks_by_key.get(key, SUCCEEDED)
        return await super().poll(task_id, key)


def played_with(tmp_path: Path, api: FakeApi, *keys: str, jobs: int = 6) -> Any:
    """Play some jobs with some keys."""
    stage = Stage(tmp_path, api, keys=keys)
    stage.take_in(specs(jobs))
    return stage.play()


def test_keys_are_used_in_turn(tmp_path: Path) -> None:
    """
    Each key of the pool submits its share.
    """
    api = FakeApi()

    played_with(tmp_path, api, "a", "b", "c")

    assert Counter(a=2, b=2, c=2) == Counter(post.key for post in api.posts)


def test_key_without_money_is_retired_and_its_job_goes_with_another(tmp_path: Path) -> None:
    """
    A refused key submits once; its job is submitted with the next key, and the run is told.
    """
    api = KeyedApi({"a": NO_MONEY}, {})

    played = played_with(tmp_path, api, "a", "b")

    assert {State.SUCCEEDED} == set(played.states.values())
    assert Counter(a=1, b=6) == Counter(post.key for post in api.posts)
    assert 1 == len(played.notices("key_retired"))
    assert [] == played.reasons


def test_run_stops_when_every_key_is_retired(tmp_path: Path) -> None:
    """
    Without a key left nothing was paid for, and every job is as it was.
    """
    api = KeyedApi({"a": NO_MONEY, "b": BAD_KEY}, {})

    played = played_with(tmp_path, api, "a", "b")

    assert {State.PENDING} == set(played.states.values())
    assert 1 == len(played.reasons)
    assert played.reasons[0] in ("auth", "quota")
    assert len(api.posts) <= 4


def test_throttled_key_rests_while_others_go_on(tmp_path: Path) -> None:
    """
    A key whose account is throttled leaves the work to the others.
    """
    api = KeyedApi({"a": THROTTLED}, {})

    played = played_with(tmp_path, api, "a", "b", jobs=20)

    keys = Counter(post.key for post in api.posts)
    assert {State.SUCCEEDED} == set(played.states.values())
    assert 20 == keys["b"]
    assert keys["a"] <= 6


def test_key_of_another_account_never_makes_a_task_lost(tmp_path: Path) -> None:
    """
    Where a task's own key is refused for a while, that another account does not know the task says nothing.
    """
    refusals = 0

    class Api(KeyedApi):
        async def poll(self, task_id: str, key: str) -> PollOutcome:
            nonlocal refusals
            mine = self.posts[int(task_id.rsplit("-", 1)[1])].key
            self.on_poll = lambda task, nth: UNKNOWN
            if key == mine:
                refusals += 1
                self.on_poll = lambda task, nth: POLL_403 if refusals < 300 else SUCCEEDED
            return await FakeApi.poll(self, task_id, key)

    played = played_with(tmp_path, Api({}, {}), "a", "b")

    assert {State.SUCCEEDED, State.TIMED_OUT} >= set(played.states.values())


def test_401_while_polling_stops_submissions_and_keeps_the_ids(tmp_path: Path) -> None:
    """
    A key that is unknown while polling stops the run; tasks that exist keep their ids for the next one.
    """
    api = KeyedApi({}, {"a": POLL_401})

    played = played_with(tmp_path, api, "a", jobs=30)

    assert ["auth"] == played.reasons
    assert played.counts[State.PENDING] > 0
    waiting = [record for record in played.records.values() if record.state is State.TIMED_OUT]
    assert len(api.posts) == len(waiting)
    assert all(record.task_id for record in waiting)


def test_401_of_one_key_of_a_pool_does_not_stop_the_run(tmp_path: Path) -> None:
    """
    Tasks of a key that is refused while polling are found with the others.
    """
    api = KeyedApi({}, {"a": POLL_401})

    played = played_with(tmp_path, api, "a", "b")

    assert {State.SUCCEEDED} == set(played.states.values())
    assert [] == played.reasons
