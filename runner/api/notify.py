"""Tell of a run's end whom its manifest names: a webhook, or a command. Trouble with that changes nothing of the run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
from msgspec.structs import replace

from runner import jsontext
from runner.api.execute import RunResult, outcome_json
from runner.core.lifecycle import State
from runner.core.settings import DEFAULT_KEY_NAME, Settings
from runner.errors import RunnerError
from runner.gateway.credentials import POOL_NAME

WEBHOOK_S = 10.0
COMMAND_S = 30.0


def triggered_events(outcome: RunResult) -> frozenset[str]:
    """
    Name what there is to tell of: ``finish`` always, ``failure`` and ``uncertain`` where they apply.

    Nothing where nothing was done, so that a quiet night stays quiet, and nothing of a rehearsal.
    """
    if outcome.did_nothing or outcome.is_simulated:
        return frozenset()
    found = {"finish"}
    bad = (State.FAILED, State.TIMED_OUT, State.UNDELIVERED)
    if any(outcome.counts[state] for state in bad) or any(stop.exit_code == 3 for stop in outcome.stops):
        found.add("failure")
    if outcome.counts[State.UNCERTAIN]:
        found.add("uncertain")
    return frozenset(found)


async def send_notifications(outcome: RunResult, settings: Settings) -> RunResult:
    """
    Tell everybody whom the manifest names, at once, and note in the outcome what went wrong with that.

    A webhook gets a POST with the summary as JSON, a command gets it on its standard input; what happened is
    under ``occasions``. The variables that hold keys are not in the command's environment.
    """
    happened = triggered_events(outcome)
    due = [way for way in settings.notify if happened & set(way.on)]
    if not due:
        return outcome
    try:
        text = jsontext.dumps({**outcome_json(outcome), "occasions": sorted(happened)})
    except RunnerError as error:
        return replace(outcome, troubles=(*outcome.troubles, error.message))
    tellings = [_post(way.webhook, text) for way in due if way.webhook is not None]
    tellings += [_start(way.command, text, settings.key_names) for way in due if way.command]
    troubles = [trouble for trouble in await asyncio.gather(*tellings) if trouble is not None]
    return replace(outcome, troubles=(*outcome.troubles, *troubles))


async def _post(url: str, text: bytes) -> str | None:
    # The path of a webhook's address is often a secret.
    place = f"the webhook at {urlsplit(url).hostname}"
    try:
        timeout = aiohttp.ClientTimeout(total=WEBHOOK_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.post(
                url, data=text, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as answer,
        ):
            return None if answer.status < 300 else f"{place} answered {answer.status}"
    except TimeoutError:
        return f"{place} did not answer within {WEBHOOK_S:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{place} can't be reached ({type(error).__name__})"


async def _start(command: Sequence[str], text: bytes, key_names: Sequence[str]) -> str | None:
    place = f"the command {command[0]!r}"
    hidden = {name for key in (*key_names, DEFAULT_KEY_NAME, POOL_NAME) for name in (key, f"{key}_FILE")}
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, env=environ
        )
    except (OSError, ValueError) as error:
        return f"{place} can't be started: {getattr(error, 'strerror', None) or error}"
    try:
        async with asyncio.timeout(COMMAND_S):
            await process.communicate(text)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"{place} did not end within {COMMAND_S:g} s"
    return None if process.returncode == 0 else f"{place} ended with {process.returncode}"
