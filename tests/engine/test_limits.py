"""How many tasks exist at once, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.outcomes import SubmitOutcome
from runner.core.settings import Limits, ModelLimits
from runner.engine.context import EngineOptions
from runner.engine.engine import Engine
from tests.engine.answers import ACCEPTED, RUNNING, SUCCEEDED, THROTTLED
from tests.engine.fakes import BRISK, FakeApi, FakeFetcher, Stage, specs


class CountingApi(FakeApi):
    """Counts the tasks that exist at once, by model and in total: from the POST until success is shown."""

    def __init__(self) -> None:
        super().__init__(on_poll=self._look)
        self._alive: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        for name in ("all", self._model(body.decode())):
            self._alive[name] += 1
            self.most[name] = max(self.most[name], self._alive[name])
        return await super().submit(body, key)

    def _look(self, task_id: str, nth: int) -> Any:
        if nth < 5:
            return RUNNING
        for name in ("all", self._model(task_id)):
            self._alive[name] -= 1
        return SUCCEEDED

    def _model(self, text: str) -> str:
        return "model-b" if "model-b" in text else "model-a"


def limited(**limits: Any) -> Any:
    """Give brisk settings with other limits."""
    return replace(BRISK, limits=Limits(**{"submit_per_s": 50.0, "poll_per_s": 50.0, **limits}))


def test_in_flight_is_never_exceeded_in_total_and_per_model(tmp_path: Path) -> None:
    """
    No more tasks exist at once than the run and each model allow, and each bound is used to the full.
    """
    api = CountingApi()
    stage = Stage(tmp_path, api, settings=limited(in_flight=5, models={"model-b": ModelLimits(in_flight=2)}))
    stage.take_in([*specs(20), *specs(20, model="model-b", start=20)])

    played = stage.play()

    assert (5, 2) == (api.most["all"], api.most["model-b"])
    assert {State.SUCCEEDED} == set(played.states.values())
    assert 0 == played.engine.admission.in_flight


def test_model_with_a_small_cap_starves_none(tmp_path: Path) -> None:
    """
    A slow model that stands first in the manifest, and is full, does not keep the others waiting.
    """
    api = FakeApi(on_poll=lambda task, nth: SUCCEEDED if nth >= ("model-a" in task) * 40 else RUNNING)
    stage = Stage(tmp_path, api, settings=limited(in_flight=4, models={"model-a": ModelLimits(in_flight=1)}))
    stage.take_in([*specs(3), *specs(12, model="model-b", start=3)])

    stage.play()

    quick = [post.at for post in api.posts if "model-b" in post.job]
    slow = [post.at for post in api.posts if "model-a" in post.job]
    assert max(quick) < slow[1]


def test_full_model_with_a_due_job_is_waited_for_without_spinning(tmp_path: Path) -> None:
    """
    A job that may go again, of a model that is full, waits for a slot, and nothing looks at it in between.
    """
    pumps = 0

    async def count_pumps(engine: Engine, store: Any) -> None:
        pump = engine.submissions.schedule

        def counted(now: float, *, backlog: int | None) -> float | None:
            nonlocal pumps
            pumps += 1
            return pump(now, backlog=backlog)

        engine.submissions.schedule = counted

    api = FakeApi(
        lambda job, nth: THROTTLED if nth == 0 and job.endswith("000") else ACCEPTED,
        lambda task, nth: SUCCEEDED if nth >= 10 else RUNNING,
    )
    stage = Stage(tmp_path, api, settings=limited(in_flight=4, models={"model-a": ModelLimits(in_flight=1)}))
    stage.take_in(specs(3))

    played = stage.play(meanwhile=count_pumps)

    assert {State.SUCCEEDED} == set(played.states.values())
    assert pumps < 300


def test_limit_counts_accepted_jobs_only(tmp_path: Path) -> None:
    """
    With --limit 3 three tasks come to exist, whatever was refused for now on the way.
    """
    api = FakeApi(lambda job, nth: THROTTLED if nth == 0 else ACCEPTED)
    stage = Stage(tmp_path, api)
    stage.take_in(specs(10))

    played = stage.play(EngineOptions(limit=3))

    assert {State.SUCCEEDED: 3, State.PENDING: 7} == {s: n for s, n in played.counts.items() if n}
    assert 3 == sum(api.paid().values())


def test_backlog_of_downloads_stops_submissions(tmp_path: Path) -> None:
    """
    Where downloads can't keep up, finished tasks do not pile up past a bound: their addresses expire.
    """
    most = 0

    async def watch(engine: Engine, store: Any) -> None:
        nonlocal most
        while True:
            await asyncio.sleep(1.0)
            most = max(most, len(engine.downloads))

    stage = Stage(
        tmp_path,
        FakeApi(on_poll=lambda task, nth: SUCCEEDED),
        settings=limited(in_flight=20, downloads=1),
        fetcher=FakeFetcher(takes_s=30.0),
    )
    stage.take_in(specs(120))

    played = stage.play(meanwhile=watch)

    assert 50 <= most <= 50 + 20
    assert 1 == stage.fetcher.most_at_once
    assert {State.SUCCEEDED} == set(played.states.values())
