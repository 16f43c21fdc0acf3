"""Commands that a manifest names: started without a shell and without keys, and ended with their children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runner.core.units import format_duration

_READ_BYTES = 64 << 10
_KILLED_S = 5.0
"""How long to wait for the end of a command that was killed."""


class CommandFailed(Exception):
    """A command could not be started, was killed, or ended with another code than 0; the message has its name."""


class CommandOutput(Struct, frozen=True):
    """
    What a command that succeeded wrote.

    Attributes:
        stdout: Its first bytes; the rest is dropped.
        is_cut: Whether there was a rest.
    """

    stdout: bytes
    is_cut: bool


def environment_without_keys(key_names: Iterable[str]) -> dict[str, str]:
    """Return the environment without variables that hold keys, or name files of keys."""
    hidden = {variable for name in key_names for variable in (name, f"{name}_FILE")}
    return {variable: value for variable, value in os.environ.items() if variable not in hidden}


async def run_command(
    command: Sequence[str],
    text: bytes,
    *,
    environ: Mapping[str, str],
    limit_s: float,
    max_bytes: int = 0,
    folder: Path | None = None,
) -> CommandOutput:
    """
    Run a command with a text on its standard input.

    Args:
        limit_s: After how many seconds it is killed, with its children.
        max_bytes: How much of its standard output is kept; with 0 it has none.
        folder: Where it is started; None for the working directory.

    Raises:
        CommandFailed: It could not be started, did not end in time, or ended with another code than 0.
    """
    label = f"the command {command[0]!r}"
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if max_bytes else asyncio.subprocess.DEVNULL,
            env=environ,
            cwd=folder,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(
            f"{label} can't be started: {getattr(error, 'strerror', None) or error}"
        ) from None
    try:
        async with asyncio.timeout(limit_s):
            output, _ = await asyncio.gather(_read(process.stdout, max_bytes), _write(process.stdin, text))
            await process.wait()
    except TimeoutError:
        await _kill(process)
        raise CommandFailed(f"{label} did not end within {format_duration(limit_s)}") from None
    except BaseException:
        await _kill(process)
        raise
    if process.returncode:
        raise CommandFailed(f"{label} ended with {process.returncode}")
    return output


async def _write(stdin: asyncio.StreamWriter | None, text: bytes) -> None:
    """Write a text to a command, which need not read it."""
    assert stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(text)
        await stdin.drain()
    stdin.close()


async def _read(stdout: asyncio.StreamReader | None, max_bytes: int) -> CommandOutput:
    """Read all that a command writes, and keep the start."""
    kept, is_cut = bytearray(), False
    while stdout is not None and (data := await stdout.read(_READ_BYTES)):
        rest = max_bytes - len(kept)
        kept += data[:rest]
        is_cut |= len(data) > rest
    return CommandOutput(bytes(kept), is_cut)


async def _kill(process: asyncio.subprocess.Process) -> None:
    kill_group(process.pid)
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_KILLED_S):
            if process.stdin is not None:
                process.stdin.close()
                await process.stdin.wait_closed()
            await process.wait()


def kill_group(pid: int) -> None:
    """Kill a command with the children that it left, which would hold the terminal or the pipe of a scheduler."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
