"""
What a manifest says besides its jobs, with the defaults that apply where it is silent.

The defaults follow what is known of the API (fact F88): a first
query after 10 s, then every 15 s, since the gateway itself looks no more often;
8 tasks in flight; 120 s for a POST, since a short time-out manufactures doubt.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

DEFAULT_BASE_URL = "https://api.powertokens.ai"
TEST_HOST = "baze-api.powerbuyin.top"
"""The vendor's test environment; one of its documents shows it by mistake (fact F1)."""
DEFAULT_KEY_NAME = "POWERTOKENS_API_KEY"


class ModelLimits(Struct, frozen=True, kw_only=True):
    """Bounds for one model, within those of the whole run; None where there is none of its own."""

    in_flight: int | None = None
    submit_per_s: float | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """
    Bounds of the whole run.

    Attributes:
        submit_per_s: POSTs a second, evenly spaced.
        poll_per_s: Queries a second, evenly spaced.
        in_flight: Remote tasks that exist at once.
        downloads: Assets that are fetched at once.
    """

    submit_per_s: float = 1.0
    poll_per_s: float = 10.0
    in_flight: int = 8
    downloads: int = 4
    models: Mapping[str, ModelLimits] = field(default_factory=dict)


class PollPolicy(Struct, frozen=True, kw_only=True):
    """
    When to ask for a task.

    Attributes:
        first_s: After the submission, before the first query.
        interval_s: Between two queries at first; it grows up to ``max_interval_s``.
        timeout_s: After the submission, when our patience ends and the job is ``timed_out``.
    """

    first_s: float = 10.0
    interval_s: float = 15.0
    max_interval_s: float = 60.0
    timeout_s: float = 3600.0


class Timeouts(Struct, frozen=True, kw_only=True):
    """
    How long to wait for what.

    Attributes:
        connect_s: For a connection, DNS and TLS included.
        submit_s: For the answer to a POST.
        poll_s: For the answer to a query.
        stall_s: For the next bytes of a download.
        unknown_task_s: How long a young task may be unknown to the API (it answers before it stores the task).
    """

    connect_s: float = 10.0
    submit_s: float = 120.0
    poll_s: float = 30.0
    stall_s: float = 60.0
    unknown_task_s: float = 120.0


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """
    How often to try again what may be tried again: never a POST whose outcome is in doubt.

    Attributes:
        attempts: Tries in total, the first included.
        base_s: Upper bound of the first wait; each further bound is twice the one before.
        cap_s: Upper bound of any wait of ours; a server's Retry-After may be longer.
    """

    attempts: int = 6
    base_s: float = 2.0
    cap_s: float = 60.0


class AssetRules(Struct, frozen=True, kw_only=True):
    """
    What may be downloaded.

    Attributes:
        hosts: Names of the hosts that assets may come from; None for any public one.
    """

    max_bytes: int = 4_000_000_000
    hosts: tuple[str, ...] | None = None


class Notify(Struct, frozen=True, kw_only=True):
    """
    Whom to tell when a run ends.

    Attributes:
        on: Any of ``finish``, ``failure`` and ``uncertain``.
        webhook: Gets a POST with the summary as JSON.
        command: Is started with the summary on its standard input.
    """

    on: tuple[str, ...] = ("finish",)
    webhook: str | None = None
    command: tuple[str, ...] | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that a run needs to know besides its jobs."""

    name: str
    base_url: str | None = None
    key_names: tuple[str, ...] = (DEFAULT_KEY_NAME,)
    limits: Limits = Limits()
    poll: PollPolicy = PollPolicy()
    timeouts: Timeouts = Timeouts()
    retry: RetryPolicy = RetryPolicy()
    assets: AssetRules = AssetRules()
    notify: tuple[Notify, ...] = ()
