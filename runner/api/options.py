"""How to run: what the command line's options say, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from runner.api.environment import Overrides
from runner.core.model import Json
from runner.core.value import frozen
from runner.store.sync import OnChanged


class IfLocked(StrEnum):
    """What to do where another process works in the run directory."""

    FAIL = "fail"
    WAIT = "wait"


@frozen(kw_only=True)
class RunOptions:
    """
    How to run. Every field has the meaning of the command line's option of its name.

    Attributes:
        variables: Of `--var`.
        job: Only jobs whose id matches, as the shell matches file names.
        max_failures: A number of jobs, or a share of all such as 0.1.
        run_s: How long jobs are submitted, counted from the call; None for as long as there are any.
        keep_runs: So many runs of a series stay, this one included; older ones are deleted, see `keep`.
        keep_days: Those of the last so many days stay.
        scenario: The simulator's, by name or path; only for simulated runs.
    """

    simulate: bool = False
    scenario: str | None = None
    limit: int | None = None
    job: str | None = None
    retry_failed: bool = False
    skip_invalid: bool = False
    strict: bool = False
    on_changed: OnChanged = OnChanged.ERROR
    max_failures: int | float | None = None
    run_s: float | None = None
    drain_s: float = 600.0
    if_locked: IfLocked = IfLocked.FAIL
    keep_runs: int | None = None
    keep_days: int | None = None
    variables: Mapping[str, Json] = field(default_factory=dict)
    overrides: Overrides = Overrides()
