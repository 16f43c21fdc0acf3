"""
From a draft to a job that can be sent: normalised, checked, named and hashed.

Nearly every job takes the short way: its request is clean, and nothing but its
digest has to be worked out. All else is for jobs that somebody must hear about.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from runner.core.model import JobSpec, Json
from runner.core.problem import Finding, Severity
from runner.manifest.document import Report
from runner.manifest.draft import Draft
from runner.manifest.duplicates import Duplicates, Mark
from runner.manifest.identity import automatic_id, request_digest
from runner.manifest.media import attach_files
from runner.schema.catalog import Catalog
from runner.schema.model import ModelSchema

MAX_ID_LENGTH = 200
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")

Refuse = Callable[[JobSpec, str], None]
"""Takes what is known of a job that can't be sent, and why."""


@dataclass(slots=True)
class _Verdict:
    """What became of a request."""

    request: dict[str, Json]
    warnings: tuple[str, ...] = ()
    error: str | None = None


class Checker:
    """
    Checks the jobs of one manifest, one after the other.

    Args:
        folder: That local files are found in.
        strict: Whether a warning is as bad as an error.
        refuse: Is told of each job that is left out.
    """

    def __init__(
        self, catalog: Catalog, folder: Path, report: Report, *, strict: bool, refuse: Refuse | None
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._strict = strict
        self._report = report
        self._refuse = refuse
        self._repeated: str | None = None
        self.jobs = 0
        self.refused = 0

    def check(self, draft: Draft) -> tuple[JobSpec | None, Mark | None]:
        ...
