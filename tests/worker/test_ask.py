"""Asking for a task with several keys and two ids."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runner.core.lifecycle import State
from runner.core.outcomes import Denied, Polled, PollOutcome, Transient, Unknown
from runner.worker.poll import query_task
from tests.engine.answers import POLL_401, POLL_403, POLL_502, RUNNING, UNKNOWN
from tests.engine.fakes import FakeKeys, job_in_hand


class ByKey:
    """Answers by the key alone."""

    def __init__(self, answers: Mapping[str, PollOutcome]) -> None:
        self._answers = answers
        self.asked: list[tuple[str, str]] = []

    async def submit(self, body: bytes, key: str) -> None:
        raise AssertionError("nothing is submitted here")

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        self.asked.append((task_id, key))
        return self._answers[key]


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        (RUNNING, None, Polled),
        (UNKNOWN, None, Unknown),
        (POLL_502, None, Transient),
        (POLL_403, RUNNING, Polled),
        (POLL_403, UNKNOWN, Transient),
        (POLL_401, UNKNOWN, Transient),
        (POLL_403, POLL_502, Transient),
        (POLL_403, POLL_401, Denied),
    ],
)
async def test_what_two_keys_say_of_a_task(
    own: PollOutcome, other: PollOutcome | None, verdict: type
) -> None:
    """
    The key that made the task is believed; another is asked only where it is refused, and never proves a loss.
    """
    api = ByKey({"own": own, "other": other or RUNNING})
    job = job_in_hand("job", State.SUBMITTED, task_id="task", key="own")

    outcome = await query_task(job, api=api, keys=FakeKeys("other", "own"))

    assert verdict is type(outcome)
    assert (1 if other is None else 2) == len(api.asked)
    assert ("other" if outcome is other is RUNNING else "own") == job.key


async def test_task_of_a_key_that_is_gone_is_unknown_only_to_all() -> None:
    """
    Where the key that made the task is no longer in the pool, every key is asked before it is called unknown.
    """
    api = ByKey({"a": UNKNOWN, "b": RUNNING})
    job = job_in_hand("job", State.SUBMITTED, task_id="task", key="gone")

    outcome = await query_task(job, api=api, keys=FakeKeys("a", "b"))

    assert outcome is RUNNING
    assert "b" == job.key


async def test_two_ids_are_tried_in_turn_until_one_is_known() -> None:
    """
    Neither id is given up for the other while the API knows none of them.
    """
    api = ByKey({"a": UNKNOWN})
    job = job_in_hand("job", State.SUBMITTED, task_id="one", other_task_id="two", key="a")
    keys = FakeKeys("a")

    for _ in range(4):
        await query_task(job, api=api, keys=keys)

    assert ["one", "two", "one", "two"] == [task_id for task_id, _ in api.asked]


async def test_id_that_is_known_is_kept_alone() -> None:
    """
    Once the API has shown the task by one id, the other is forgotten.
    """
    job = job_in_hand("job", State.SUBMITTED, task_id="one", other_task_id="two", key="a")

    await query_task(job, api=ByKey({"a": RUNNING}), keys=FakeKeys("a"))

    assert ("one", None) == (job.task_id, job.other_task_id)
