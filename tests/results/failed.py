"""Write `failed.yaml` from records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runner.core.model import JobRecord
from runner.results.failed_manifest import JOBS_KEY, failed_entries, failed_header


def write_failed(path: Path, records: Iterable[JobRecord], *, known_keys: Any = None, **header: Any) -> int:
    """Write the file, or remove it if it has no jobs to run, and return their number."""
    path.unlink(missing_ok=True)
    entries = failed_entries(records, path.parent, known_keys)
    if entries.count:
        path.write_bytes(failed_header(path, **header) + entries.comments + JOBS_KEY + entries.jobs)
    return entries.count
