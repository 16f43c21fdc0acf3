"""Notifications of a run's end: who gets which, and that trouble with them does not matter."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from runner.api.run_result import RunResult, send_notifications
from runner.core.lifecycle import State
from runner.core.settings import Notify, Settings
from runner.core.stop import Stop, StopReason
from runner.core.summary import summarize

NO_JOBS = dict.fromkeys(State, 0)


def ended(*stops: Stop, did_nothing: bool = False, is_simulated: bool = False, **counts: int) -> RunResult:
    """Make the result of a run."""
    by_state = {**NO_JOBS, **{State(name): count for name, count in counts.items()}}
    return RunResult(
        Path("output/kittens"),
        "kittens",
        "https://api.example.com",
        0,
        by_state,
        stops,
        is_simulated,
        did_nothing=did_nothing,
        summary=summarize([]),
    )


class Webhook:
    """A webhook that keeps what it received."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[dict[str, object]] = []
        self.status = 200

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.received.append(json.loads(await request.read()))
        return web.Response(status=self.status, headers={"Location": self.url} if self.status == 307 else {})


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    """Serve a webhook."""
    hook = Webhook()
    server = web.ServerRunner(web.Server(hook.handle))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{server.addresses[0][1]}/secret-path"
    yield hook
    await server.cleanup()


@pytest.mark.parametrize(
    ("result", "on", "is_notified"),
    [
        (ended(succeeded=2), "finish", True),
        (ended(succeeded=2), "failure", False),
        (ended(failed=1), "failure", True),
        (ended(undelivered=1), "failure", True),
        (ended(Stop(StopReason.QUOTA, "no credit"), pending=1), "failure", True),
        (ended(Stop(StopReason.INTERRUPTED, "Ctrl-C"), pending=1), "failure", False),
        (ended(uncertain=1), "uncertain", True),
        (ended(uncertain=1), "failure", False),
        (ended(did_nothing=True, failed=1), "failure", False),
        (ended(is_simulated=True, failed=1), "failure", False),
        (ended(failed=1, succeeded=19), "failed>=5%", True),
        (ended(failed=1, succeeded=20), "failed>=5%", False),
        (ended(uncertain=3), "uncertain>=3", True),
        (ended(uncertain=2), "uncertain>=3", False),
    ],
)
async def test_who_is_notified(result: RunResult, on: str, is_notified: bool, hook: Webhook) -> None:
    """
    Each receives the events it is configured for; nobody is notified of a run that did nothing, or was simulated.
    """
    settings = Settings(name="kittens", notify=(Notify(on=(on,), webhook=hook.url),))

    after = await send_notifications(result, settings)

    assert is_notified == bool(hook.received)
    assert () == after.troubles
    if is_notified:
        assert ("kittens", True) == (hook.received[0]["run"], on in hook.received[0]["occasions"])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("status", "said"), [(500, "answered 500"), (307, "answered 307"), (404, "answered 404")]
)
async def test_webhook_that_fails_is_reported_once(status: int, said: str, hook: Webhook) -> None:
    """
    The sentence leaves out the webhook's path, which is often a secret; a redirect is not followed.
    """
    hook.status = status

    after = await send_notifications(ended(), Settings(name="kittens", notify=(Notify(webhook=hook.url),)))

    assert 1 == len(hook.received)
    assert (1, True) == (len(after.troubles), said in after.troubles[0])
    assert "secret-path" not in after.troubles[0]


async def test_webhook_behind_a_proxy(hook: Webhook) -> None:
    """
    A webhook goes through the proxy of the environment, as every request; the proxy here is the webhook itself.
    """
    settings = Settings(name="kittens", notify=(Notify(webhook="http://hooks.example/secret-path"),))

    after = await send_notifications(ended(), settings, {"HTTP_PROXY": hook.url.removesuffix("/secret-path")})

    assert (1, ()) == (len(hook.received), after.troubles)


async def test_webhook_that_cannot_be_reached() -> None:
    """
    A closed port is reported too.
    """
    after = await send_notifications(
        ended(), Settings(name="kittens", notify=(Notify(webhook="http://127.0.0.1:9/x"),))
    )

    assert "can't be reached" in after.troubles[0]


async def test_command_gets_the_summary_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A command gets the summary on its standard input, without the variables that hold keys.
    """
    for name in ("OUR_KEY", "OUR_KEY_FILE", "POWERTOKENS_API_KEY", "POWERTOKENS_API_KEYS"):
        monkeypatch.setenv(name, "sk-secret-0123456789")
    script = (
        "import json, os, sys\n"
        "json.dump({'body': json.load(sys.stdin), 'environ': dict(os.environ)}, open(sys.argv[1], 'w'))"
    )
    notify = Notify(command=(sys.executable, "-c", script, str(tmp_path / "received.json")))

    after = await send_notifications(
        ended(), Settings(name="kittens", key_names=("OUR_KEY",), notify=(notify,))
    )

    text = (tmp_path / "received.json").read_text()
    assert () == after.troubles
    assert "kittens" == json.loads(text)["body"]["run"]
    assert "sk-secret" not in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with 3"),
        (("/absent/command",), "can't be started"),
        ((sys.executable, "-c", "import os; os.close(0)"), None),
    ],
)
async def test_command_that_fails(command: tuple[str, ...], said: str | None) -> None:
    """
    A command that can't be started, or fails, is reported; one that does not read its input is not.
    """
    after = await send_notifications(ended(), Settings(name="kittens", notify=(Notify(command=command),)))

    assert (said is None) == (after.troubles == ())
    assert said is None or said in after.troubles[0]


async def test_notifications_are_concurrent(hook: Webhook) -> None:
    """
    A slow one does not delay the others.
    """
    slow = Notify(command=(sys.executable, "-c", "import sys; sys.stdin.read()"))
    settings = Settings(name="kittens", notify=(slow, Notify(webhook=hook.url), Notify(webhook=hook.url)))

    async with asyncio.timeout(20):
        await send_notifications(ended(), settings)

    assert 2 == len(hook.received)


_WITH_A_CHILD = """\
import subprocess, sys, time
child = "import sys, time; file = open(sys.argv[1], 'wb', 0); file.write(b'started'); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child, sys.argv[1]])
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_canceled", [False, True])
async def test_children_of_a_killed_command_end_with_it(is_canceled: bool, tmp_path: Path) -> None:
    """A command that takes too long, or whose run is interrupted, leaves no process behind."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    notify = Notify(command=(sys.executable, "-c", _WITH_A_CHILD, str(pipe)))
    settings = Settings(name="kittens", notify=(notify,))
    command_s = 600.0 if is_canceled else 5.0

    async with asyncio.timeout(60):
        sending = asyncio.create_task(send_notifications(ended(), settings, command_s=command_s))
        with await asyncio.to_thread(pipe.open, "rb") as reader:
            assert await asyncio.to_thread(reader.read, 7) == b"started"
            if is_canceled:
                sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            # The pipe ends when the last process that has it open for writing has ended.
            assert await asyncio.to_thread(reader.read) == b""
    if not is_canceled:
        assert "did not end within 5s" in sending.result().troubles[0]
