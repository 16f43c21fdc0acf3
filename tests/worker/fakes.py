"""Small fakes for one step of one job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runner.core.outcomes import PollOutcome

WALL_AT_0 = 1_800_000_000.0


@dataclass
class FakeClock:
    """Time that passes when somebody sleeps or downloads."""

    at: float = 100.0
    sleeps: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return WALL_AT_0 + self.at

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.at += seconds


@dataclass
class FakeQueries:
    """Answers to queries, in turn; the last one stays."""

    answers: list[PollOutcome]
    keys: list[str] = field(default_factory=list)

    async def submit(self, body: bytes, key: str) -> Any:
        raise AssertionError("nothing is submitted here")

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        self.keys.append(key)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    poll_afresh = poll
