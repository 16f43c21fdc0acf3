"""What the driver of a run on Ray tells its shards; nothing here needs Ray."""

from __future__ import annotations

from pathlib import Path

from runner.api.options import RunOptions
from runner.api.run_facts import RunFacts, RunOrigin
from runner.core.settings import Settings
from runner.scale.driver import shard_options

FACTS = RunFacts(
    Settings(name="run", base_url="https://api.example"), RunOrigin(None, is_simulated=False, sharded=False)
)


def test_shards_leave_to_the_governor_what_counts_over_all() -> None:
    """
    No shard has a limit of jobs or failures of its own, asks anything, or looks for files of the driver's machine.
    """
    given = RunOptions(limit=10, max_failures=5, journal="file:///srv/run", env_file=Path(".env"))

    own = shard_options(given, FACTS, now_at=1000.0)

    assert (None, "off", None, None, True) == (
        own.limit,
        own.max_failures,
        own.journal,
        own.env_file,
        own.yes,
    )
    assert "https://api.example" == own.base_url


def test_a_time_limit_ends_all_shards_at_once() -> None:
    """
    A shard that begins late has no hour of its own; of two limits, the earlier one holds.
    """
    hour = RunOptions(max_runtime=3600.0)

    assert (None, 4600.0) == (
        shard_options(hour, FACTS, now_at=1000.0).max_runtime,
        shard_options(hour, FACTS, now_at=1000.0).stop_at,
    )
    early = RunOptions(max_runtime=3600.0, stop_at=1500.0)
    assert 1500.0 == shard_options(early, FACTS, now_at=1000.0).stop_at
    assert shard_options(RunOptions(), FACTS, now_at=1000.0).stop_at is None
