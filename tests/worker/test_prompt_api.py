"""A POST whose intent is old is not sent: another process may have the job by then."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.core.outcomes import Accepted, NotSent, RemoteStatus, RemoteTask, SubmitOutcome
from runner.worker.submit import MAX_INTENT_AGE_S, PromptApi, boot_time, note_intent
from tests.worker.fakes import FakeQueries


@dataclass
class Accepting(FakeQueries):
    """Accepts everything."""

    bodies: list[bytes] = field(default_factory=list)

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        self.bodies.append(body)
        return Accepted(RemoteTask(("task_1",), RemoteStatus.QUEUED))


async def submit(paused_s: float) -> tuple[SubmitOutcome, list[bytes]]:
    """Save an intent, and submit it after a pause."""
    gateway = Accepting([])
    note_intent()
    outcome = await PromptApi(gateway, lambda: boot_time() + paused_s).submit(b"body", "key")
    return outcome, gateway.bodies


async def test_a_machine_that_slept_does_not_send() -> None:
    """After more than half a minute between intent and POST the job is as if it had not been sent."""
    outcome, sent = await submit(MAX_INTENT_AGE_S + 1)

    assert isinstance(outcome, NotSent)
    assert [] == sent


async def test_a_prompt_post_is_sent() -> None:
    """Within it the POST is sent, once."""
    outcome, sent = await submit(MAX_INTENT_AGE_S - 5)

    assert isinstance(outcome, Accepted)
    assert [b"body"] == sent
