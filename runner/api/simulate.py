"""Running against the simulator inside the process: nothing is sent anywhere, and nobody waits long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from runner.api.options import Overrides
from runner.core.settings import PollPolicy, Settings
from runner.gateway.credentials import ApiKey, KeySet, fingerprint

LEDGER_NAME = "simulator.jsonl"
"""Where the simulator keeps its tasks, in the run directory, so that a run that was killed finds them again."""

SIMULATED = "simulator"
"""What the results of a simulated run name as their gateway, so that they are never taken for a real one's."""

_SECRET = "simulated-key"  # noqa: S105  (opens nothing but the simulator)
_SUBMIT_PER_S = 20.0
_POLL_PER_S = 100.0
_POLL = PollPolicy(first_s=0.2, interval_s=0.2, max_interval_s=0.4)


def simulated_keys() -> KeySet:
    """Name the key that a simulated run uses, so that none has to be set."""
    return KeySet((ApiKey(fingerprint(_SECRET), _SECRET),))


def with_simulator_speed(settings: Settings, overrides: Overrides) -> Settings:
    """Shorten rates and waits, except where the command line sets them, since nobody is to be spared."""
    limits = settings.limits
    if overrides.submit_per_s is None:
        limits = replace(limits, submit_per_s=max(limits.submit_per_s, _SUBMIT_PER_S))
    if overrides.poll_per_s is None:
        limits = replace(limits, poll_per_s=max(limits.poll_per_s, _POLL_PER_S))
    return replace(settings, limits=limits, poll=replace(_POLL, timeout_s=settings.poll.timeout_s))


@asynccontextmanager
async def simulated_gateway(run_dir: Path, scenario: str | None) -> AsyncIterator[str]:
    """
    Start the simulator for the length of a run, and give its base URL.

    Raises:
        ScenarioError: The scenario can't be acted out.
    """
    # A real run needs nothing of it.
    from runner.simulator.scenario_reader import load_scenario
    from runner.simulator.server import Simulator

    chosen = None if scenario is None else load_scenario(scenario)
    async with Simulator(chosen, ledger_path=run_dir / LEDGER_NAME) as simulator:
        yield simulator.base_url


async def serve_simulator(
    scenario: str | None, *, port: int, ledger: Path | None, ready: Callable[[str, str], None]
) -> None:
    """
    Serve the simulator until this is cancelled.

    Args:
        ready: Gets its base URL, and a key that it takes, once it can be used.

    Raises:
        ScenarioError: The scenario can't be acted out.
        OSError: The port is taken.
    """
    from runner.simulator.scenario_reader import load_scenario
    from runner.simulator.server import serve

    chosen = load_scenario(scenario or "demo")
    key = chosen.keys[0] if chosen.keys else _SECRET
    await serve(chosen, port=port, ledger_path=ledger, ready=lambda base_url: ready(base_url, key))
