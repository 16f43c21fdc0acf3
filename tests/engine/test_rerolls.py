"""New takes that a run pays for by itself: as many as the manifest says, each like a first attempt, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import FailureClass, OnChanged
from runner.core.outcomes import Polled, RemoteStatus, RemoteTask
from runner.core.settings import CanaryPolicy, Limits
from runner.core.stop import Stop, StopReason
from runner.engine.engine import Engine
from runner.store.store import Store
from runner.store.sync import sync
from tests.engine.answers import ACCEPTED, REMOTE_FAILED, RUNNING, SUCCEEDED, THROTTLED, failure
from tests.engine.fakes import FAST, WALL_AT_0, FakeApi, spec, specs
from tests.engine.harness import EngineHarness, HarnessStore

REFUSED = Polled(RemoteTask((), RemoteStatus.FAILED, "failed", error=failure(FailureClass.OUTPUT_MODERATION)))
SETTINGS = replace(FAST, reroll={"output_moderation": 2, "remote_failed": 1})


def harness(run_dir: Path, *ends: Polled, settings: object = SETTINGS) -> EngineHarness:
    """Make a run of one job whose tasks end like this, in turn; the last one's end is that of all later ones."""
    tasks: list[str] = []

    def on_poll(task_id: str, nth: int) -> Polled:
        if task_id not in tasks:
            tasks.append(task_id)
        return ends[min(tasks.index(task_id), len(ends) - 1)]

    made = EngineHarness(run_dir, FakeApi(on_poll=on_poll), settings=settings)  # type: ignore[arg-type]
    made.add_jobs([spec("a", 0)])
    return made


@pytest.mark.parametrize(
    ("ends", "state", "takes"),
    [
        ([REFUSED, SUCCEEDED], State.SUCCEEDED, 2),
        ([REFUSED, REFUSED, SUCCEEDED], State.SUCCEEDED, 3),
        ([REFUSED], State.FAILED, 3),
        ([REMOTE_FAILED], State.FAILED, 2),
        ([REMOTE_FAILED, REFUSED, REFUSED, SUCCEEDED], State.SUCCEEDED, 4),
        ([REFUSED, REMOTE_FAILED, REMOTE_FAILED, SUCCEEDED], State.FAILED, 3),
    ],
)
def test_as_many_takes_are_made_as_the_manifest_says(
    ends: list[Polled], state: State, takes: int, tmp_path: Path
) -> None:
    """Each class has its own number; a job that used it up fails permanently, and is not paid for again."""
    run = harness(tmp_path, *ends)

    done = run.run()

    record = done.records["a"]
    assert (state, takes) == (record.state, run.api.paid()["a"])
    assert (
        takes
        == sum(attempt.made_task for attempt in record.attempts)
        == len({a.task_id for a in record.attempts})
    )
    expected = [end.task.error.cls for end in (ends * takes)[: takes - 1] if end.task.error]
    assert expected == [attempt.error.cls for attempt in record.attempts[:-1] if attempt.error]
    assert ["a"] == done.ended_jobs
    assert takes - 1 == len(done.notices("reroll"))
    assert 0 == done.engine.admission.in_flight
    assert dict(done.engine.counts) == done.counts


def test_a_job_fails_once_however_many_takes_it_had(tmp_path: Path) -> None:
    """A failure that is followed by another take is no end of the job: it does not count where too many failures stop a run."""
    api = FakeApi(on_poll=lambda task, nth: REFUSED if task.endswith("-0") else SUCCEEDED)
    run = EngineHarness(tmp_path, api, settings=replace(SETTINGS, limits=Limits(in_flight=1)))
    run.add_jobs(specs(25))

    done = run.run(max_failures=0)

    assert ({State.SUCCEEDED: 25}, []) == (
        {state: n for state, n in done.counts.items() if n},
        done.stop_reasons,
    )

    failing = harness(tmp_path / "failing", REFUSED)
    failing.add_jobs(specs(3))
    assert ["failures"] == failing.run(max_failures=0).stop_reasons
    # The one that failed first was paid for three times, and no other one was begun after that.
    assert 3 == max(failing.api.paid().values())


def test_nothing_is_made_again_by_default(tmp_path: Path) -> None:
    """Without `reroll` a failed task is the end, whatever its class."""
    run = harness(tmp_path, REFUSED, settings=FAST)

    assert State.FAILED is run.run().states["a"]
    assert 1 == run.api.paid()["a"]


def test_other_failures_are_not_made_again(tmp_path: Path) -> None:
    """A refused prompt is refused again, and costs again."""
    refused = RemoteTask((), RemoteStatus.FAILED, "failed", error=failure(FailureClass.MODERATION))
    run = harness(tmp_path, Polled(refused))

    assert State.FAILED is run.run().states["a"]
    assert 1 == run.api.paid()["a"]


def test_later_processes_count_the_takes_of_earlier_ones(tmp_path: Path) -> None:
    """A process that is stopped between two takes leaves the rest of them to the next one, and not one more."""
    run = harness(tmp_path, REFUSED)

    async def stop_early(engine: Engine, store: HarnessStore) -> None:
        while not any(task.endswith("-1") for _, task, _ in run.api.polls):
            await engine._context.clock.sleep(0.05)
        engine.abandon()

    run.run(meanwhile=stop_early)
    assert State.FAILED is run.run().states["a"]
    assert 3 == run.api.paid()["a"]
    run.run()
    assert 3 == run.api.paid()["a"]


def test_a_take_is_admitted_like_a_first_attempt(tmp_path: Path) -> None:
    """It waits for its turn at the rate, is paused by a 429 as others are, and counts for `--limit`."""
    api = FakeApi(
        lambda job, nth: THROTTLED if nth == 1 else ACCEPTED,
        lambda task, nth: REFUSED if task.endswith("-0") else SUCCEEDED,
    )
    settings = replace(SETTINGS, limits=Limits(submit_per_s=0.1))
    run = EngineHarness(tmp_path, api, settings=settings)
    run.add_jobs([spec("a", 0)])

    assert State.SUCCEEDED is run.run().states["a"]
    times = [post.at for post in api.posts]
    assert 3 == len(times)
    assert times[1] - times[0] >= 10

    limited = harness(tmp_path / "limited", REFUSED)
    done = limited.run(limit=1)
    assert (State.PENDING, ["limit"]) == (done.states["a"], done.stop_reasons)
    assert 1 == limited.api.paid()["a"]


def test_a_run_that_stops_makes_no_more_takes(tmp_path: Path) -> None:
    """After a signal or a deadline nothing is submitted, so the job has failed."""
    run = harness(tmp_path, RUNNING, SUCCEEDED)
    run.api.on_poll = lambda task, nth: REFUSED if nth > 3 else RUNNING

    async def stop(engine: Engine, store: HarnessStore) -> None:
        while not run.api.polls:
            await engine._context.clock.sleep(0.05)
        engine.stop(Stop(StopReason.DEADLINE, "it is late"))

    assert State.FAILED is run.run(meanwhile=stop).states["a"]
    assert 1 == run.api.paid()["a"]


def test_jobs_that_left_the_manifest_are_not_made_again(tmp_path: Path) -> None:
    """What was paid for is polled to its end, but nothing more is paid for a job that nobody wants."""
    run = harness(tmp_path, REFUSED)
    run.api.on_poll = lambda task, nth: RUNNING

    async def leave(engine: Engine, store: HarnessStore) -> None:
        while not run.api.polls:
            await engine._context.clock.sleep(0.05)
        engine.abandon()

    run.run(meanwhile=leave)
    with Store(tmp_path) as store, store.transaction() as connection:
        sync(connection, specs(1), on_changed=OnChanged.ERROR, at=WALL_AT_0)
    run.api.on_poll = lambda task, nth: REFUSED if "-a-" in task else SUCCEEDED
    done = run.run()

    assert State.FAILED is done.states["a"]
    assert 1 == run.api.paid()["a"]


def test_a_task_that_a_person_named_is_not_made_again(tmp_path: Path) -> None:
    """A job with a `task_id` is never submitted."""
    run = EngineHarness(tmp_path, FakeApi(on_poll=lambda task, nth: REFUSED), settings=SETTINGS)
    run.add_jobs([spec("a", 0, task_id="task-1")])

    assert State.FAILED is run.run().states["a"]
    assert [] == run.api.posts


@pytest.mark.parametrize(
    ("ends", "state"), [([REMOTE_FAILED, SUCCEEDED], State.SUCCEEDED), ([REMOTE_FAILED], State.FAILED)]
)
def test_a_canary_may_have_another_take(ends: list[Polled], state: State, tmp_path: Path) -> None:
    """The jobs behind it wait for its last take, and are submitted if that has a video."""
    canary = CanaryPolicy(jobs=1, succeed=1)
    run = harness(tmp_path, *ends, settings=replace(SETTINGS, canary=canary))
    run.add_jobs([spec("a", 0), spec("b", 1)])

    done = run.run()

    behind = State.SUCCEEDED if state is State.SUCCEEDED else State.PENDING
    assert {"a": state, "b": behind} == done.states
    assert 2 == run.api.paid()["a"]
