"""Write jobs that a program passes as mappings to a manifest in their run directory, so that any command can continue it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from runner.api.run_facts import default_run_dir
from runner.core.filenames import MANIFEST_NAME
from runner.errors import UsageError
from runner.results.failed_manifest import flow
from runner.results.files import atomic_write

JobMappings = Iterable[Mapping[str, Any]]
"""Jobs as in a manifest: each a mapping with ``request``, and ``id``, ``metadata`` and so on if wanted."""


def write_job_mappings(
    jobs: JobMappings,
    *,
    name: str,
    settings: Mapping[str, Any],
    output: Path | None,
    simulate: bool,
) -> Path:
    """
    Write a manifest, and return its path; the jobs are read once and in constant memory.

    Args:
        name: Of the run.
        settings: The other keys of the manifest, such as ``limits`` or ``defaults``.
        output: The run directory; None for the default in the working directory.

    Raises:
        UsageError: A job is no mapping, or has a value that JSON does not have.
    """
    run_dir = output or default_run_dir(Path.cwd() / MANIFEST_NAME, name, simulate=simulate)
    run_dir.mkdir(parents=True, exist_ok=True)
    header = {"version": 1, "name": name, **settings}
    with atomic_write(run_dir / MANIFEST_NAME) as file:
        for key, value in header.items():
            file.write(f"{key}: {_flow(value, key)}\n".encode())
        number = -1
        for number, job in enumerate(jobs):
            if not isinstance(job, Mapping):
                raise UsageError(
                    f"jobs[{number}] is a {type(job).__name__}, not a mapping",
                    hint='a job is such as {"id": "sky", "request": {"model": ..., "prompt": ...}}',
                )
            file.write(
                (b"jobs:\n" if number == 0 else b"") + f"  - {_flow(job, f'jobs[{number}]')}\n".encode()
            )
        if number < 0:
            file.write(b"jobs: []\n")
    return run_dir / MANIFEST_NAME


def _flow(value: Any, place: str) -> str:
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False)
        text.encode()
        return flow(json.loads(text))
    except UnicodeEncodeError as error:
        # It would be sent as a question mark.
        half = ascii(error.object[error.start])
        raise UsageError(
            f"{place}: {half} is half of a surrogate pair, which is no character",
            hint="read texts as UTF-8, and replace what is not: bytes.decode(errors='replace')",
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{place}: {error}") from None


def _plain(value: Any) -> Any:
    """Convert what programs have in place of JSON's types: paths, mappings, and scalars of numeric libraries."""
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if callable(item := getattr(value, "item", None)):
        return item()
    raise TypeError(f"a {type(value).__name__} can't be sent as JSON")
