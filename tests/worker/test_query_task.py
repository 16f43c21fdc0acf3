"""Querying a task with several keys and two ids."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.outcomes import Denied, Polled, PollOutcome, SubmitOutcome, Transient, Unknown
from runner.worker.poll import query_task
from tests.engine.answers import POLL_401, POLL_403, POLL_502, REMOTE_FAILED, RUNNING, SUCCEEDED, UNKNOWN
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

    async def poll_afresh(self, task_id: str, key: str) -> PollOutcome:
        raise AssertionError("no answer is about another task here")


def nobody(task_id: str) -> None:
    """Own no task."""


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

    outcome = await query_task(job, api=api, keys=FakeKeys("other", "own"), task_owner=nobody)

    assert combined is type(outcome)
    assert (1 if other is None else 2) == len(api.polls)
    assert ("other" if outcome is other is RUNNING else "own") == job.key


async def test_task_of_a_removed_key_is_unknown_only_to_all_keys() -> None:
    """
    If the task's own key is no longer in the pool, every key is tried before the task counts as unknown.
    """
    api = KeyedApi({"a": UNKNOWN, "b": RUNNING})
    job = job_in_memory("job", State.SUBMITTED, task_id="task", key="gone")

    outcome = await query_task(job, api=api, keys=FakeKeys("a", "b"), task_owner=nobody)

    assert outcome is RUNNING
    assert "b" == job.key


async def test_two_ids_are_tried_in_turn_until_one_is_known() -> None:
    """
    Neither id is given up for the other while the API knows neither.
    """
    api = KeyedApi({"a": UNKNOWN})
    job = job_in_memory("job", State.SUBMITTED, task_id="one", other_task_id="two", key="a")

    for _ in range(4):
        await query_task(job, api=api, keys=FakeKeys("a"), task_owner=nobody)

    assert ["one", "two", "one", "two"] == [task_id for task_id, _ in api.polls]


async def test_id_that_is_known_is_kept_alone() -> None:
    """
    Once the API has shown the task under one id, the other is dropped.
    """
    job = job_in_memory("job", State.SUBMITTED, task_id="one", other_task_id="two", key="a")

    await query_task(job, api=KeyedApi({"a": RUNNING}), keys=FakeKeys("a"), task_owner=nobody)

    assert ("one", None) == (job.task_id, job.other_task_id)


class SwappingApi(KeyedApi):
    """Answers about other tasks, at first or always."""

    def __init__(self, first: PollOutcome, afresh: PollOutcome) -> None:
        super().__init__({"a": first})
        self._afresh = afresh

    async def poll_afresh(self, task_id: str, key: str) -> PollOutcome:
        self.polls.append((task_id, "afresh"))
        return self._afresh


def about(task_id: str, answer: Polled = SUCCEEDED) -> Polled:
    """Make an answer that names a task."""
    return replace(answer, task=replace(answer.task, ids=(task_id,), all_ids=("other", task_id)))


@pytest.mark.parametrize("first", [about("theirs"), about("theirs", REMOTE_FAILED), about("theirs", RUNNING)])
async def test_answer_about_another_task_is_asked_for_again(first: Polled) -> None:
    """
    A late or swapped answer is not believed: the one on a connection of its own is.
    """
    api = SwappingApi(first, about("mine", RUNNING))
    job = job_in_memory("job", State.SUBMITTED, task_id="mine", key="a")

    outcome = await query_task(job, api=api, keys=FakeKeys("a"), task_owner=nobody)

    assert about("mine", RUNNING) == outcome
    assert [("mine", "a"), ("mine", "afresh")] == api.polls
    assert () == job.warnings


@pytest.mark.parametrize(
    ("answer", "owner", "message"),
    [
        (about("theirs"), "their job", "the answer is about task other of the job 'their job'"),
        (about("theirs", REMOTE_FAILED), None, "the answer is about task other, which failed: as the test"),
    ],
)
async def test_answer_that_stays_about_another_task(answer: Polled, owner: str | None, message: str) -> None:
    """
    Another job's video is never taken, and another task's failure does not end the job.
    """
    job = job_in_memory("job", State.SUBMITTED, task_id="mine", key="a")

    outcome = await query_task(
        job, api=SwappingApi(answer, answer), keys=FakeKeys("a"), task_owner=lambda task_id: owner
    )

    assert isinstance(outcome, Transient)
    assert message in outcome.failure.message


async def test_gateway_that_names_its_upstreams_tasks() -> None:
    """
    It is believed, with a warning, and asked on a new connection only once; then its failures count too.
    """
    api = SwappingApi(about("upstream", RUNNING), about("upstream", RUNNING))
    job = job_in_memory("job", State.SUBMITTED, task_id="mine", key="a")

    for _ in range(2):
        outcome = await query_task(job, api=api, keys=FakeKeys("a"), task_owner=nobody)
        assert about("upstream", RUNNING) == outcome

    assert [("mine", "a"), ("mine", "afresh"), ("mine", "a")] == api.polls
    assert ["the API answers a query of task mine with the name of another one, other"] == list(job.warnings)


@pytest.mark.parametrize("answers", [{"a": POLL_401, "b": POLL_403}, {"a": POLL_403, "b": POLL_401}])
async def test_refusal_of_a_task_says_more_than_that_of_a_key(answers: Mapping[str, PollOutcome]) -> None:
    """
    If one key is invalid and the other may not see the task, the second is the answer for the task.
    """
    job = job_in_memory("job", State.SUBMITTED, task_id="task", key="a")

    assert POLL_403 is await query_task(
        job, api=KeyedApi(answers), keys=FakeKeys("a", "b"), task_owner=nobody
    )


@pytest.mark.parametrize("keys", [(), ("a", "b")])
async def test_invalid_keys_say_nothing_of_the_task(keys: tuple[str, ...]) -> None:
    """
    Neither refused keys nor the lack of any mean that the task is lost.
    """
    job = job_in_memory("job", State.SUBMITTED, task_id="task", key="a")

    outcome = await query_task(
        job, api=KeyedApi({"a": POLL_401, "b": POLL_401}), keys=FakeKeys(*keys), task_owner=nobody
    )

    assert isinstance(outcome, Denied)
    assert FailureClass.AUTH is outcome.failure.cls
