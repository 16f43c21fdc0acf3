"""What the user asks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runner.core.failure_guard import MaxFailures
from runner.core.model import Json, OnChanged


class IfLocked(StrEnum):
    """What to do if another process is using the run directory."""

    FAIL = "fail"
    WAIT = "wait"
    SKIP = "skip"
    """Fail as well; the command line then exits with 0."""


class RunOptions(Struct, frozen=True, kw_only=True):
    """
    How to run. Each field has the meaning of the command-line option of its name, and here is its only default.

    Attributes:
        real_time: A simulated run has the manifest's rates and waits.
        scenario: The simulator's scenario, by name or path; only for simulated runs.
        job: Only jobs whose id matches this shell pattern.
        max_failures: Jobs that may end without a video in this process: a number, a share of those that ended such as 0.1,
            or "off" for any number; None stops after 20 in a row.
        run_s: How long jobs are submitted (`--max-runtime`), counted from the call; None for no limit.
        stop_at: Until when jobs are submitted (`--stop-at`), in seconds since 1970; None for no limit.
        drain_s: How long jobs that were submitted are polled and downloaded after that (`--drain-time`).
        trust: Start commands that only the run directory names (`resume`, `rerun`).
        adopt_results: Take over what the results know and ``run.db`` does not, where such a directory is else refused.
        verify: Download files again that are gone or were changed (`resume`).
        new: Begin a new run even if the manifest was run elsewhere.
        catch_up: First fetch what older runs of the series paid for (`--no-catch-up`).
        keep_runs: Delete older runs of the series, all but the newest N, this one included; see `retention`.
        keep_days: Delete older runs of the series, all but those of the last N days.
        variables: Over those of the manifest (`--var`).
        base_url: Over the environment's and the manifest's.
        env_file: A file of variables in place of ``.env`` beside the manifest.
        submit_per_s: Over the manifest's ``limits``, as are `poll_per_s`, `in_flight` and `downloads`.
    """

    simulate: bool = False
    real_time: bool = False
    scenario: str | None = None
    limit: int | None = None
    job: str | None = None
    retry_failed: bool = False
    skip_invalid: bool = False
    strict: bool = False
    on_changed: OnChanged = OnChanged.ERROR
    max_failures: MaxFailures = None
    run_s: float | None = None
    stop_at: float | None = None
    drain_s: float = 600.0
    if_locked: IfLocked = IfLocked.FAIL
    trust: bool = False
    adopt_results: bool = False
    verify: bool = False
    new: bool = False
    catch_up: bool = True
    keep_runs: int | None = None
    keep_days: int | None = None
    variables: Mapping[str, Json] = field(default_factory=dict)
    base_url: str | None = None
    env_file: Path | None = None
    submit_per_s: float | None = None
    poll_per_s: float | None = None
    in_flight: int | None = None
    downloads: int | None = None

    def after(self, elapsed_s: float) -> RunOptions:
        """
        Return the options with what is left of `run_s` after some time.

        >>> RunOptions(run_s=60.0).after(45.0).run_s
        15.0
        """
        return self if self.run_s is None else replace(self, run_s=max(0.0, self.run_s - elapsed_s))
