"""Querying a task with several keys and two ids."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.outcomes import Denied, Polled, PollOutcome, SubmitOutcome, Transient, Unknown
from runner.worker.poll import query_task
from tests.engine.answers import POLL_401, POLL_403, POLL_502, RUNNING, UNKNOWN
from tests.engine.fakes import FakeKeys, job_in_memory


class KeyedApi:
    """Answers polls by the key alone."""

    def __init__(self, answers: Mapping[str, PollOutcome]) -> None:
        self._answers = answers
        self.polls: list[tuple[str, str]] = []

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        raise AssertionError("nothing is submitted here")

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        self.polls.append((task_id, key))
        return self._answers[key]


@pytest.mark.parametrize(
    ("own", "other", "combined"),
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
async def test_answers_of_two_keys_are_combined(
    own: PollOutcome, other: PollOutcome | None, combined: type
) -> None:
    """
    The answer to the task's own key counts; another key is used only if that is refused, and never proves a loss.
    """
    api = KeyedApi({"own": own, "other": other or RUNNING})
    job = job_in_memory("job", State.SUBMITTED, task_id="task", key="own")

    outcome = await query_task(job, api=api, keys=FakeKeys("other", "own"))

    assert combined is type(outcome)
    assert (1 if other is None else 2) == len(api.polls)
    assert ("other" if outcome is other is RUNNING else "own") == job.key


async def test_task_of_a_removed_key_is_unknown_only_to_all_keys() -> None:
    """
    If the task's own key is no longer in the pool, every key is tried before the task counts as unknown.
    """
    api = KeyedApi({"a": UNKNOWN, "b": RUNNING})
    job = job_in_memory("job", State.SUBMITTED, task_id="task", key="gone")

    outcome = await query_task(job, api=api, keys=FakeKeys("a", "b"))

    assert outcome is RUNNING
    assert "b" == job.key


async def test_two_ids_are_tried_in_turn_until_one_is_known() -> None:
    """
    Neither id is given up for the other while the API knows neither.
    """
    api = KeyedApi({"a": UNKNOWN})
    job = job_in_memory("job", State.SUBMITTED, task_id="one", other_task_id="two", key="a")

    for _ in range(4):
        await query_task(job, api=api, keys=FakeKeys("a"))

    assert ["one", "two", "one", "two"] == [task_id for task_id, _ in api.polls]


async def test_id_that_is_known_is_kept_alone() -> None:
    """
    Once the API has shown the task under one id, the other is dropped.
    """
    job = job_in_memory("job", State.SUBMITTED, task_id="one", other_task_id="two", key="a")

    await query_task(job, api=KeyedApi({"a": RUNNING}), keys=FakeKeys("a"))

    assert ("one", None) == (job.task_id, job.other_task_id)


@pytest.mark.parametrize("answers", [{"a": POLL_401, "b": POLL_403}, {"a": POLL_403, "b": POLL_401}])
async def test_refusal_of_a_task_says_more_than_that_of_a_key(answers: Mapping[str, PollOutcome]) -> None:
    """
    If one key is invalid and the other may not see the task, the second is the answer for the task.
    """
    job = job_in_memory("job", State.SUBMITTED, task_id="task", key="a")

    assert POLL_403 is await query_task(job, api=KeyedApi(answers), keys=FakeKeys("a", "b"))


@pytest.mark.parametrize("keys", [(), ("a", "b")])
async def test_invalid_keys_say_nothing_of_the_task(keys: tuple[str, ...]) -> None:
    """
    Neither refused keys nor the lack of any mean that the task is lost.
    """
    job = job_in_memory("job", State.SUBMITTED, task_id="task", key="a")

    outcome = await query_task(job, api=KeyedApi({"a": POLL_401, "b": POLL_401}), keys=FakeKeys(*keys))

    assert isinstance(outcome, Denied)
    assert FailureClass.AUTH is outcome.failure.cls
