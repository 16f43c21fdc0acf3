"""
What a manifest sets besides its jobs, with the defaults.

The defaults follow what is known about the API (fact F88): a first poll after 10 s, then every 15 s,
because the gateway itself checks its tasks no more often; 8 tasks in flight; 120 s for a POST, because a short
timeout makes jobs uncertain without need.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from msgspec import Struct, field

from runner.core.money import Money
from runner.core.prices import PriceTable

DEFAULT_BASE_URL = "https://api.powertokens.ai"
SIMULATED = "simulator"
"""What the results of a simulated run name as their gateway, so that they are never taken for a real one's."""
TEST_HOST = "baze-api.powerbuyin.top"
"""The vendor's test environment, which one of its documents names by mistake (fact F1)."""
DEFAULT_KEY_NAME = "POWERTOKENS_API_KEY"


class ModelLimits(Struct, frozen=True, kw_only=True):
    """Limits for one model, within those of the whole run; None if it has none of its own."""

    in_flight: int | None = None
    submit_per_s: float | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """
    Limits of the whole run.

    Attributes:
        submit_per_s: POSTs per second, evenly spaced.
        poll_per_s: Polls per second, evenly spaced.
        in_flight: Remote tasks that exist at once.
        downloads: Assets that are downloaded at once.
        upload_per_s: Uploads of inputs per second, evenly spaced.
        uploads: Inputs that are uploaded at once.
    """

    submit_per_s: float = 1.0
    poll_per_s: float = 10.0
    in_flight: int = 8
    downloads: int = 4
    upload_per_s: float = 5.0
    uploads: int = 4
    models: Mapping[str, ModelLimits] = field(default_factory=dict)


class PollPolicy(Struct, frozen=True, kw_only=True):
    """
    When to poll a task.

    Attributes:
        first_s: From the submission to the first poll.
        interval_s: Between two polls at first; it grows up to ``max_interval_s``.
        timeout_s: From the submission until the job is ``timed_out``.
    """

    first_s: float = 10.0
    interval_s: float = 15.0
    max_interval_s: float = 60.0
    timeout_s: float = 3600.0


class Timeouts(Struct, frozen=True, kw_only=True):
    """
    How long to wait.

    Attributes:
        connect_s: For a connection, including DNS and TLS.
        submit_s: For the answer to a POST.
        poll_s: For the answer to a poll.
        stall_s: For the next bytes of a download.
        unknown_task_s: How long the API may not know a new task (it answers before it stores the task).
        least_bytes_per_s: A download that is slower over a minute is interrupted, and tried again.
        download_s: For one asset, with all its addresses, tries and pauses.
    """

    connect_s: float = 10.0
    submit_s: float = 120.0
    poll_s: float = 30.0
    stall_s: float = 60.0
    unknown_task_s: float = 120.0
    least_bytes_per_s: float = 10_000.0
    download_s: float = 7200.0


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """
    How often to retry what may be retried: never a POST that may have been accepted.

    Attributes:
        attempts: In total, including the first.
        base_s: Maximum of the first wait; each further maximum is twice the one before.
        cap_s: Maximum of any wait; a server's Retry-After may be longer.
    """

    attempts: int = 6
    base_s: float = 2.0
    cap_s: float = 60.0


class AssetRules(Struct, frozen=True, kw_only=True):
    """
    What may be downloaded.

    Attributes:
        hosts: Names of the hosts that assets may come from; None for any public host.
    """

    max_bytes: int = 4_000_000_000
    hosts: tuple[str, ...] | None = None


class Notify(Struct, frozen=True, kw_only=True):
    """
    A notification at the end of a run.

    Attributes:
        on: Any of ``finish``, ``failure``, ``uncertain``, ``unfinished``, and thresholds such as ``failed>=5%``.
        webhook: Gets a POST with the summary as JSON.
        command: Is started with the summary on its standard input.
    """

    on: tuple[str, ...] = ("finish",)
    webhook: str | None = None
    command: tuple[str, ...] | None = None


class Budget(Struct, frozen=True, kw_only=True):
    """
    How much may be spent. All amounts have one currency.

    Attributes:
        run: For the run directory: all attempts of all processes.
        day: For a day (UTC), of all runs that share the ledger.
        month: For a month (UTC), of all runs that share the ledger.
        ledger: Path of the ledger, as written in the manifest, and absolute once the run has begun; None for the default.
        unknown: What a job without a known price counts as; None refuses such jobs.
        failed: Whether a task that failed remotely counts as charged.
    """

    run: Money | None = None
    day: Money | None = None
    month: Money | None = None
    ledger: str | None = None
    unknown: Money | None = None
    failed: Literal["charged", "refunded"] = "charged"

    @property
    def currency(self) -> str | None:
        """The currency of the amounts; None if there are none."""
        amounts = (self.run, self.day, self.month, self.unknown)
        return next((money.currency for money in amounts if money is not None), None)


class CanaryPolicy(Struct, frozen=True, kw_only=True):
    """
    Jobs to submit first, before all others.

    Attributes:
        jobs: How many.
        succeed: How many of them must have a video before the others are submitted.
    """

    jobs: int
    succeed: int


class Check(StrEnum):
    """What a video can be checked for."""

    BLACK = "black"
    FROZEN = "frozen"
    SILENT = "silent"
    DURATION = "duration"
    SIZE = "size"
    FPS = "fps"
    NEAR_DUPLICATE = "near_duplicate"


class OnAsset(Struct, frozen=True, kw_only=True):
    """
    A command that is started for each finished asset, with what is known of it on its standard input.

    Attributes:
        timeout_s: After how long it is killed.
        at_once: How many may run at the same time.
    """

    command: tuple[str, ...]
    timeout_s: float = 60.0
    at_once: int = 2


ASSET_LIBRARY = "powertokens"
"""What ``inputs.upload`` calls the vendor's asset library."""


class Inputs(Struct, frozen=True, kw_only=True):
    """
    Where local files are uploaded.

    Attributes:
        upload: The URL of an object store, or `ASSET_LIBRARY`.
        expires_s: How long a presigned address holds at least.
        public_url: Where anybody can read the bucket, ending in a slash; None for presigned addresses.
    """

    upload: str
    expires_s: float = 86400.0
    public_url: str | None = None

    @property
    def is_library(self) -> bool:
        """Whether files go to the vendor's asset library."""
        return self.upload == ASSET_LIBRARY


class Settings(Struct, frozen=True, kw_only=True):
    """
    All settings of a run, besides its jobs.

    Attributes:
        checks: What videos are checked for.
        reject: Which of these give a job the verdict ``reject``.
        on_asset: A command for each finished asset, or None.
        reroll: How many new takes the run pays for by itself after a job's task failed, by failure class.
        schemas: Absolute paths of the user's own schemas.
        prices: The user's own price table.
        budget: How much may be spent; None for any amount.
        canary: Jobs to submit before all others; None for none.
        inputs: None if local files are not uploaded.
    """

    name: str
    base_url: str | None = None
    key_names: tuple[str, ...] = (DEFAULT_KEY_NAME,)
    limits: Limits = Limits()
    poll: PollPolicy = PollPolicy()
    timeouts: Timeouts = Timeouts()
    retry: RetryPolicy = RetryPolicy()
    assets: AssetRules = AssetRules()
    notify: tuple[Notify, ...] = ()
    checks: tuple[Check, ...] = ()
    reject: tuple[Check, ...] = ()
    on_asset: OnAsset | None = None
    reroll: Mapping[str, int] = field(default_factory=dict)
    schemas: tuple[str, ...] = ()
    prices: PriceTable | None = None
    budget: Budget | None = None
    canary: CanaryPolicy | None = None
    inputs: Inputs | None = None

    @property
    def max_takes(self) -> int:
        """How many attempts at one job the run may pay for, at most."""
        return 1 + sum(self.reroll.values())
