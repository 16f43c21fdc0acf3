"""Sends no POST whose intent is old: another process may have taken the job over in the meantime."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from runner.core.model import Failure, FailureClass
from runner.core.outcomes import NotSent, PollOutcome, SubmitOutcome
from runner.store.intent_age import boot_time, intent_age_s
from runner.worker.ports import Api

MAX_INTENT_AGE_S = 30.0
"""A machine that slept for longer between the intent and the POST does not send it."""


class PromptApi(Struct, frozen=True):
    """The gateway, for a run whose journal other processes can take over."""

    api: Api
    now: Callable[[], float] = boot_time

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        """POST a job's request, unless too much time has passed since its intent was saved; then nothing is sent."""
        age_s = intent_age_s(self.now())
        if age_s > MAX_INTENT_AGE_S:
            why = f"{age_s:.0f} s passed between the intent and its submission, so it was not sent"
            return NotSent(Failure(FailureClass.UNAVAILABLE, why))
        return await self.api.submit(body, key)

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        """Query a task."""
        return await self.api.poll(task_id, key)

    async def poll_afresh(self, task_id: str, key: str) -> PollOutcome:
        """Query a task on a connection that nothing else used."""
        return await self.api.poll_afresh(task_id, key)
