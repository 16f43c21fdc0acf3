"""How many tasks exist at once, and which model is next."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.outcomes import SubmitOutcome
from runner.core.settings import Limits, ModelLimits
from runner.engine.engine import Engine
from tests.engine.answers import ACCEPTED, RUNNING, SUCCEEDED, THROTTLED
from tests.engine.fakes import FAST, FakeApi, FakeDownloader, specs
from tests.engine.harness import EngineHarness


class CountingApi(FakeApi):
    """Counts the tasks that exist at once, by model and in total: from the POST until success is shown."""

    def __init__(self) -> None:
        super().__init__(on_poll=self._answer_poll)
        self._existing: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        for name in ("all", self._model(body.decode())):
            self._existing[name] += 1
            self.most[name] = max(self.most[name], self._existing[name])
        return await super().submit(body, key)

    def _answer_poll(self, task_id: str, nth: int) -> Any:
        if nth < 5:
            return RUNNING
        for name in ("all", self._model(task_id)):
            self._existing[name] -= 1
        return SUCCEEDED

    def _model(self, text: str) -> str:
        return "model-b" if "model-b" in text else "model-a"


def with_limits(**limits: Any) -> Any:
    """Make fast settings with other limits."""
    return replace(FAST, limits=Limits(**{"submit_per_s": 50.0, "poll_per_s": 50.0, **limits}))


def test_in_flight_is_never_exceeded_in_total_and_per_model(tmp_path: Path) -> None:
    """
    No more tasks exist at once than the run and each model allow, and each bound is used to the full.
    """
    api = CountingApi()
    harness = EngineHarness(
        tmp_path, api, settings=with_limits(in_flight=5, models={"model-b": ModelLimits(in_flight=2)})
    )
    harness.add_jobs([*specs(20), *specs(20, model="model-b", start=20)])

    run = harness.run()

    assert (5, 2) == (api.most["all"], api.most["model-b"])
    assert {State.SUCCEEDED} == set(run.states.values())
    assert 0 == run.engine.admission.in_flight


def test_model_with_a_small_cap_starves_none(tmp_path: Path) -> None:
    """
    A slow model that comes first in the manifest, and is full, does not keep the others waiting.
    """
    api = FakeApi(on_poll=lambda task, nth: SUCCEEDED if nth >= ("model-a" in task) * 40 else RUNNING)
    harness = EngineHarness(
        tmp_path, api, settings=with_limits(in_flight=4, models={"model-a": ModelLimits(in_flight=1)})
    )
    harness.add_jobs([*specs(3), *specs(12, model="model-b", start=3)])

    harness.run()

    quick = [post.at for post in api.posts if "model-b" in post.job]
    slow = [post.at for post in api.posts if "model-a" in post.job]
    assert max(quick) < slow[1]


def test_full_model_with_a_due_job_does_not_spin(tmp_path: Path) -> None:
    """
    A job that is due again, of a model that is full, waits for a slot without being checked in between.
    """
    schedules = 0

    async def count_schedules(engine: Engine, store: Any) -> None:
        schedule = engine.submissions.schedule

        def counted(now: float, *, backlog: int | None) -> float:
            nonlocal schedules
            schedules += 1
            return schedule(now, backlog=backlog)

        engine.submissions.schedule = counted

    api = FakeApi(
        lambda job, nth: THROTTLED if nth == 0 and job.endswith("000") else ACCEPTED,
        lambda task, nth: SUCCEEDED if nth >= 10 else RUNNING,
    )
    harness = EngineHarness(
        tmp_path, api, settings=with_limits(in_flight=4, models={"model-a": ModelLimits(in_flight=1)})
    )
    harness.add_jobs(specs(3))

    run = harness.run(meanwhile=count_schedules)

    assert {State.SUCCEEDED} == set(run.states.values())
    assert schedules < 300


def test_limit_counts_accepted_jobs_only(tmp_path: Path) -> None:
    """
    With --limit 3 three tasks are made, however many POSTs were throttled.
    """
    api = FakeApi(lambda job, nth: THROTTLED if nth == 0 else ACCEPTED)
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs(specs(10))

    run = harness.run(limit=3)

    assert {State.SUCCEEDED: 3, State.PENDING: 7} == {s: n for s, n in run.counts.items() if n}
    assert 3 == sum(api.paid().values())


def test_backlog_of_downloads_stops_submissions(tmp_path: Path) -> None:
    """
    If downloads can't keep up, submissions pause before too many succeeded tasks wait: their addresses expire.
    """
    most = 0

    async def watch(engine: Engine, store: Any) -> None:
        nonlocal most
        while True:
            await asyncio.sleep(1.0)
            most = max(most, len(engine.downloads.waiting))

    harness = EngineHarness(
        tmp_path,
        FakeApi(on_poll=lambda task, nth: SUCCEEDED),
        settings=with_limits(in_flight=20, downloads=1),
        downloader=FakeDownloader(takes_s=30.0),
    )
    harness.add_jobs(specs(120))

    run = harness.run(meanwhile=watch)

    assert 50 <= most <= 50 + 20
    assert 1 == harness.downloader.most_at_once
    assert {State.SUCCEEDED} == set(run.states.values())


def test_time_left_is_unknown_while_only_files_are_awaited(tmp_path: Path) -> None:
    """A host that sends a file slowly is not about to end because tasks end fast."""
    shown: list[float | None] = []

    async def watch(engine: Engine, store: Any) -> None:
        while True:
            if engine.snapshot().counts[State.DOWNLOADING] == 2:
                shown.append(engine.snapshot().seconds_left)
            await asyncio.sleep(1.0)

    api = FakeApi(on_poll=lambda task, nth: SUCCEEDED)
    harness = EngineHarness(tmp_path, api, downloader=FakeDownloader(takes_s=30.0))
    harness.add_jobs(specs(2))

    harness.run(meanwhile=watch)

    assert {None} == set(shown)


def test_time_left_is_unknown_once_the_last_task_takes_longer_than_others(tmp_path: Path) -> None:
    """The estimate counts down, and is not repeated once it has passed."""
    shown: list[tuple[float, float | None]] = []

    async def watch(engine: Engine, store: Any) -> None:
        while True:
            if engine.snapshot().counts[State.SUBMITTED] == 1:
                shown.append((asyncio.get_running_loop().time(), engine.snapshot().seconds_left))
            await asyncio.sleep(1.0)

    api = FakeApi(
        on_poll=lambda task, nth: SUCCEEDED if nth >= (50 if task.endswith("001") else 5) else RUNNING
    )
    harness = EngineHarness(tmp_path, api)
    harness.add_jobs(specs(3))

    harness.run(meanwhile=watch)

    known = [seconds for _, seconds in shown if seconds is not None]
    assert known == sorted(known, reverse=True)
    assert {None} == {seconds for _, seconds in shown[-20:]}


def test_time_left_is_not_shown_before_it_is_known(tmp_path: Path) -> None:
    """
    No figure before a task has ended; then one that includes the wait that the gateway asked for.
    """
    shown: list[tuple[float, float | None]] = []

    async def watch(engine: Engine, store: Any) -> None:
        while True:
            shown.append((asyncio.get_running_loop().time(), engine.snapshot().seconds_left))
            await asyncio.sleep(1.0)

    wait_an_hour = replace(THROTTLED, retry_after_s=3600.0)
    api = FakeApi(
        lambda job, nth: wait_an_hour if nth == 0 and job.endswith("001") else ACCEPTED,
        lambda task, nth: SUCCEEDED if nth >= 5 else RUNNING,
    )
    harness = EngineHarness(tmp_path, api, settings=with_limits(in_flight=1))
    harness.add_jobs(specs(3))

    harness.run(meanwhile=watch)

    assert all(seconds is None for at, seconds in shown if at < 5.0)
    assert all(seconds is not None and seconds > 3000.0 for at, seconds in shown if 20.0 < at < 600.0)
