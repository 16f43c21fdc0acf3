"""Which keys an element of `jobs` may have, and of what types."""

from __future__ import annotations

from runner.core.model import Json
from runner.core.problem import Finding


def entry_findings(value: Json) -> list[Finding]:
    if not isinstance(value, dict):
        return [Finding((), "a job must be a mapping")]
    return []
