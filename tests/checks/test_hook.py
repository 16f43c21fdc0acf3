"""The user's own command for each asset: real scripts, what they may answer, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from runner.checks.video_checker import AssetHook
from runner.commands import CommandFailed
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, JobRecord, Json
from runner.core.settings import OnAsset

ASSET = Asset(AssetKind.VIDEO, "assets/a.mp4", 9, "ab", "video/mp4", 640, 360, 5.0)
RECORD = JobRecord("a", 0, "m", "", {}, "", {"caption": "小猫"}, State.SUCCEEDED, assets=(ASSET,))


async def ask(*command: str, timeout_s: float = 30.0) -> dict[str, Json]:
    """Ask a command about the asset."""
    hook = AssetHook(OnAsset(command=command, timeout_s=timeout_s), ("A_KEY",), Path("/run"))
    return await hook.ask(RECORD, ASSET)


def python(code: str) -> tuple[str, ...]:
    """Return a command that runs Python code."""
    return (sys.executable, "-c", dedent(code))


async def test_a_shell_script_answers(tmp_path: Path) -> None:
    """A script gets what is known of the asset as a JSON line, and may read as much of it as it likes."""
    script = tmp_path / "score.sh"
    script.write_text('#!/bin/sh\nread -r line\nprintf \'{"got": %s}\' "$line"\n')
    script.chmod(0o755)

    answer = await ask(str(script))

    assert {
        "path": "/run/assets/a.mp4",
        "job_id": "a",
        "kind": "video",
        "model": "m",
        "metadata": {"caption": "小猫"},
        "sha256": "ab",
        "width": 640,
        "height": 360,
        "duration_s": 5.0,
    } == answer["got"]


async def test_a_python_script_answers_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds no key in its environment, and everything else."""
    monkeypatch.setenv("A_KEY", "secret")
    monkeypatch.setenv("A_KEY_FILE", "/secret")
    monkeypatch.setenv("OTHER", "there")
    code = """
        import json, os, sys
        asset = json.load(sys.stdin)
        found = [name for name in ("A_KEY", "A_KEY_FILE", "OTHER") if name in os.environ]
        print(json.dumps({"score": asset["width"] / 1280, "found": found}))
    """

    assert {"score": 0.5, "found": ["OTHER"]} == await ask(*python(code))


async def test_an_answer_is_cleaned() -> None:
    """Nothing that it says can change a terminal, fill the results, or be nested without end."""
    code = r"""
        nested = []
        for _ in range(500):
            nested = [nested]
        import json
        print(json.dumps({"a\x1b[31m": "red\x1b[0m\u202e\n", "long": "x" * 9000, "deep": nested, "big": 2**70, "list": [1] * 999}))
    """

    answer = await ask(*python(code))

    assert "red" == answer["a"].strip()
    assert len(answer["long"]) <= 2000
    assert len(json.dumps(answer["deep"])) < 40
    assert str(2**70) == answer["big"]
    assert 100 == len(answer["list"])


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit(3)", "ended with 3"),
        ("print('no JSON')", "something else than JSON"),
        ("print([1])", "JSON that is not an object"),
        ("print('{\"black\": 1}')", "answered with 'black', which is the name of a check"),
        ("print('[' * 60000)", "something else than JSON"),
        ("print('x' * 100_000)", "more than 65536 bytes"),
    ],
)
async def test_what_is_not_an_answer_is_one_sentence(code: str, problem: str) -> None:
    """Each is a reason for a warning, and no more."""
    with pytest.raises(CommandFailed, match=problem):
        await ask(*python(code))


async def test_a_command_may_say_nothing() -> None:
    """One that only sends a message somewhere has no answer."""
    assert {} == await ask("true")


async def test_a_command_that_does_not_exist() -> None:
    """The message has the reason that the system gives."""
    with pytest.raises(CommandFailed, match="can't be started: No such file"):
        await ask("/nowhere/score")


@pytest.mark.slow
async def test_a_command_is_killed_with_its_children(tmp_path: Path) -> None:
    """A child that holds the output does not keep the run waiting, and does not outlive the time limit."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)

    with pytest.raises(CommandFailed, match="did not end within 500ms"):
        await ask("sh", "-c", f"(echo up; sleep 600) > {tmp_path}/fifo & wait", timeout_s=0.5)

    # The pipe ends with the last process that can write to it.
    assert b"up\n" == await read_to_end(reader)
    os.close(reader)


async def read_to_end(reader: int) -> bytes:
    """Read a pipe until nobody can write to it."""
    data = b""
    while True:
        try:
            part = os.read(reader, 100)
        except BlockingIOError:
            await asyncio.sleep(0.01)
            continue
        if not part:
            return data
        data += part
