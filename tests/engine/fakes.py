"""Small fakes for the ports of the engine, and jobs for them; `tests.engine.harness` runs it with them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.assets.request import AssetRequest, Fetched, NotFetched, PartMetadata, part_path
from runner.core.key_pool import KeyPool
from runner.core.lifecycle import State
from runner.core.model import Asset, Attempt, Job, JobSpec, Json
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    PollOutcome,
    RemoteStatus,
    RemoteTask,
    SubmitOutcome,
)
from runner.core.settings import Limits, PollPolicy, RetryPolicy, Settings
from runner.disk import write_error
from runner.errors import RunnerError
from runner.media import MediaInfo
from tests.engine.answers import ACCEPTED, RUNNING, SUCCEEDED, Answer

WALL_AT_0 = 1_800_000_000.0
FIRST_KEY = "key-1"
VIDEO = b"a kitten"
"""The content of every successful download."""

FAST = Settings(
    name="harness",
    limits=Limits(submit_per_s=5.0, poll_per_s=50.0, in_flight=8, downloads=4),
    poll=PollPolicy(first_s=1.0, interval_s=1.0, max_interval_s=5.0, timeout_s=120.0),
    retry=RetryPolicy(attempts=3, base_s=1.0, cap_s=5.0),
)


@dataclass(frozen=True, slots=True)
class Post:
    """A POST that the fake API received, with its answer."""

    at: float
    job: str
    key: str
    answer: Answer
    task_id: str | None

    @property
    def may_be_paid(self) -> bool:
        """Whether a task exists for it, or that is unknown."""
        return self.task_id is not None or isinstance(self.answer, Ambiguous | Exception)


class FakeApi:
    """
    The remote side. It outlives the engines that use it, as the real one does.

    Args:
        on_submit: Answers the nth POST (from 0) of a job.
        on_poll: Answers the nth poll of a task.
        answer_s: How long an answer takes.
    """

    def __init__(
        self,
        on_submit: Callable[[str, int], Answer] = lambda job, nth: ACCEPTED,
        on_poll: Callable[[str, int], Answer] = lambda task_id, nth: SUCCEEDED if nth else RUNNING,
        *,
        answer_s: float = 0.1,
    ) -> None:
        self.on_submit = on_submit
        self.on_poll = on_poll
        self.answer_s = answer_s
        self.posts: list[Post] = []
        self.polls: list[tuple[float, str, str]] = []
        self._post_counts: Counter[str] = Counter()
        self._poll_counts: Counter[str] = Counter()

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        job = json.loads(body)["prompt"]
        answer = self.on_submit(job, self._post_counts[job])
        self._post_counts[job] += 1
        task_id = f"task-{job}-{len(self.posts)}" if answer == ACCEPTED else None
        self.posts.append(Post(_now(), job, key, answer, task_id))
        await asyncio.sleep(self.answer_s)
        if task_id is not None:
            return Accepted(RemoteTask((task_id,), RemoteStatus.QUEUED))
        outcome: SubmitOutcome = _return_or_raise(answer)
        return outcome

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        answer = self.on_poll(task_id, self._poll_counts[task_id])
        self._poll_counts[task_id] += 1
        self.polls.append((_now(), task_id, key))
        await asyncio.sleep(self.answer_s)
        outcome: PollOutcome = _return_or_raise(answer)
        return outcome

    async def poll_afresh(self, task_id: str, key: str) -> PollOutcome:
        return await self.poll(task_id, key)

    def posts_of(self, job: str) -> list[Post]:
        """Return the POSTs of one job."""
        return [post for post in self.posts if post.job == job]

    def paid(self) -> Counter[str]:
        """Count, by job, the POSTs that made a task or may have."""
        return Counter(post.job for post in self.posts if post.may_be_paid)


def _return_or_raise(answer: Answer) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _now() -> float:
    return asyncio.get_running_loop().time()


class LoopClock:
    """
    The loop's own time.

    Args:
        wall_s: What the wall clock has advanced by at a time of the loop.
    """

    def __init__(self, wall_s: Callable[[float], float] = float) -> None:
        self._wall_s = wall_s

    def now(self) -> float:
        return _now()

    def wall(self) -> float:
        return WALL_AT_0 + self._wall_s(_now())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeKeys(KeyPool):
    """Keys whose secrets are their fingerprints."""

    def __init__(self, *fingerprints: str) -> None:
        super().__init__(fingerprints)

    def secret(self, fingerprint: str) -> str:
        return {known: known for known in self.fingerprints}[fingerprint]


@dataclass
class FakeStore:
    """A store that keeps what it is given, and is durable, or fails permanently, when the test says so."""

    is_durable: asyncio.Event = field(default_factory=asyncio.Event)
    error: RunnerError | None = None
    saved: list[tuple[State, str | None]] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    usages: list[Mapping[str, Json]] = field(default_factory=list)
    _has_failed: bool = False

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        if self._has_failed and self.error is not None:
            raise self.error
        self.saved.append((job.state, None if attempt is None else attempt.outcome))
        job.commit = len(self.saved)
        return job.commit

    def require_in_place(self, commit: int) -> None:
        """Do nothing: it has no directory."""

    async def durable(self, number: int) -> None:
        if number == 0:
            return
        if self.error is not None:
            self._has_failed = True
            raise self.error
        await self.is_durable.wait()

    def save_answer(self, job: Job, answer: str) -> None:
        self.answers.append(answer)

    def save_usage(self, job: Job, usage: Mapping[str, Json]) -> None:
        self.usages.append(usage)

    def task_owner(self, task_id: str) -> str | None:
        return self.owners.get(task_id)


class FakeDownloader:
    """Downloads that end as `on_fetch` says: with a `NotFetched`, an exception, or else with a file."""

    def __init__(
        self, on_fetch: Callable[[str, int], Answer] = lambda name, nth: None, *, takes_s: float = 0.5
    ) -> None:
        self.on_fetch = on_fetch
        self.takes_s = takes_s
        self.most_at_once = 0
        self._active = 0
        self._counts: Counter[str] = Counter()

    async def fetch(
        self, request: AssetRequest, save_metadata: Callable[[PartMetadata], None]
    ) -> Fetched | NotFetched:
        name = Path(request.path).stem
        answer = self.on_fetch(name, self._counts[name])
        self._counts[name] += 1
        self._active += 1
        self.most_at_once = max(self.most_at_once, self._active)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self._active -= 1
        if answer is not None:
            outcome: Fetched | NotFetched = _return_or_raise(answer)
            return outcome
        part = Path(part_path(request.path))
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(VIDEO)
        return Fetched(
            str(part), len(VIDEO), hashlib.sha256(VIDEO).hexdigest(), MediaInfo("video/mp4", 640, 360, 5.0)
        )


class FakePublisher:
    """Gives files their names, without syncing them."""

    async def publish(self, part: str, final: str) -> None:
        await asyncio.sleep(0)
        try:
            os.replace(part, final)
        except OSError as error:
            raise write_error(error, final) from error


def spec(job_id: str, index: int, *, model: str = "model-a", task_id: str | None = None) -> JobSpec:
    """Make a job whose prompt is its id."""
    request = {"model": model, "prompt": job_id}
    digest = hashlib.sha256(json.dumps(request).encode()).hexdigest()
    return JobSpec(job_id, index, model, "none", request, digest, task_id=task_id)


def specs(count: int, *, model: str = "model-a", start: int = 0) -> list[JobSpec]:
    """Make some jobs."""
    return [spec(f"{model}-{n:03}", n, model=model) for n in range(start, start + count)]


def job_in_memory(job_id: str, state: State, **changes: Any) -> Job:
    """Make a job as the engine keeps it."""
    return Job(seq=1, job_id=job_id, index=0, model="model-a", state=state, **changes)
