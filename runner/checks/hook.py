"""The command of `on_asset`: started for each finished asset, and what it answers goes into the results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from runner.commands import CommandFailed, environment_without_keys, run_command
from runner.core.model import Asset, JobRecord, Json
from runner.core.sanitize import sanitize_line
from runner.core.settings import Check, OnAsset
from runner.jsontext import dumps, loads

MOST_BYTES = 64 << 10
_MOST_KEYS = 100
_KEY_CHARS = 100
_TEXT_CHARS = 2000
_DEPTH = 8
_TAKEN = frozenset(Check) | {"duplicate"}
"""Names in `checks` that are the program's own."""


class AssetHook:
    """
    Runs the command, a few at a time.

    Args:
        key_names: Variables that the command does not get.
    """

    def __init__(self, hook: OnAsset, key_names: Iterable[str], run_dir: str) -> None:
        self._hook = hook
        self._environ = environment_without_keys(key_names)
        self._run_dir = run_dir
        self.at_once = hook.at_once
        self._free = asyncio.Semaphore(hook.at_once)

    async def ask(self, record: JobRecord, asset: Asset) -> dict[str, Json]:
        """
        Run the command for an asset, and return its answer.

        Raises:
            CommandFailed: It failed, or its answer is no JSON object.
        """
        text = dumps(
            {
                "path": f"{self._run_dir}/{asset.path}",
                "job_id": record.job_id,
                "kind": asset.kind.value,
                "model": record.model,
                "metadata": dict(record.metadata),
                "sha256": asset.sha256,
                "width": asset.width,
                "height": asset.height,
                "duration_s": asset.duration_s,
            }
        )
        async with self._free:
            output = await run_command(
                self._hook.command,
                text + b"\n",
                environ=self._environ,
                limit_s=self._hook.timeout_s,
                most_bytes=MOST_BYTES,
            )
        label = f"the command {self._hook.command[0]!r}"
        if output.is_cut:
            raise CommandFailed(f"{label} answered with more than {MOST_BYTES} bytes")
        if not output.stdout.strip():
            return {}
        try:
            answer = loads(output.stdout)
        except (ValueError, RecursionError):
            raise CommandFailed(f"{label} answered with something else than JSON") from None
        if not isinstance(answer, dict):
            raise CommandFailed(f"{label} answered with JSON that is no object")
        if taken := sorted(answer.keys() & _TAKEN):
            raise CommandFailed(f"{label} answered with {str(taken[0])!r}, which is the name of a check")
        cleaned: dict[str, Json] = clean(answer)
        return cleaned


def clean(value: Json, depth: int = _DEPTH) -> Json:
    r"""
    Return a foreign value fit for the results: without control characters, of bounded size and depth.

    >>> clean({"label": "a\x1b[31m kitten", "scores": [0.5, True, None]})
    {'label': 'a kitten', 'scores': [0.5, True, None]}
    """
    if isinstance(value, str):
        return sanitize_line(value, max_chars=_TEXT_CHARS)
    if isinstance(value, dict):
        if not depth:
            return None
        items = list(value.items())[:_MOST_KEYS]
        return {sanitize_line(key, max_chars=_KEY_CHARS): clean(item, depth - 1) for key, item in items}
    if isinstance(value, list):
        return [clean(item, depth - 1) for item in value[:_MOST_KEYS]] if depth else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        # No column of a data frame holds it.
        return str(value)
    return value
