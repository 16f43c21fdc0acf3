"""What is given in the place of a manifest, and what to do with it instead."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from runner.core.filenames import DB_NAME, RESULTS_NAME
from runner.core.problem import Position, Problem, Severity
from runner.core.sanitize import command_text
from runner.disk import open_regular
from runner.errors import ManifestError
from runner.manifest.json_rows import JSONL_SUFFIXES
from runner.schema.wording import did_you_mean

_TABLES = (".csv", ".tsv", ".xlsx")
_MANIFESTS = (".yaml", ".yml", *JSONL_SUFFIXES)
_MAX_NAMES = 1000
_MAX_FIRST_LINE_BYTES = 1_000_000


def require_manifest(path: Path) -> None:
    """
    Check that a path is not another file that people have beside their manifests.

    Raises:
        ManifestError: It is one; its problem has the right command.
    """
    found = _what_else(path)
    if found is not None:
        message, hint = found
        problem = Problem(Severity.ERROR, Position(str(path)), message, hint=hint)
        raise ManifestError(f"{path} can't be read as a manifest", problems=[problem])


def nearest_manifest(path: Path) -> str | None:
    """Ask for the manifest that was probably meant by a path that does not exist."""
    try:
        names = [other.name for other in islice(path.parent.iterdir(), _MAX_NAMES)]
    except OSError:
        return None
    return did_you_mean(path.name, [name for name in names if name.endswith(_MANIFESTS)])


def _what_else(path: Path) -> tuple[str, str] | None:
    if path.is_dir():
        if (path / DB_NAME).exists() or (path / RESULTS_NAME).exists():
            return (
                "this is a run directory, not a manifest",
                f"to continue it: {command_text('runner', 'resume', path)}",
            )
        return None
    if path.suffix.lower() in _TABLES and path.is_file():
        hint = f"name it in the 'from' of a job: {{from: {path.name}, ...}}; `runner init` writes a manifest to start with"
        return "this is a table, not a manifest", hint
    if path.suffix.lower() in JSONL_SUFFIXES and _has_results(path):
        return (
            "this is a results file, not a manifest",
            f"to run what did not succeed: {command_text('runner', 'rerun', path)}",
        )
    return None


def _has_results(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            first = json.loads(stream.readline(_MAX_FIRST_LINE_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return (
        isinstance(first, dict) and "custom_id" not in first and {"schema_version", "job_id"} <= first.keys()
    )
