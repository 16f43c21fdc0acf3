"""Running against the simulator inside the process: nothing is sent anywhere, and waits are short."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from runner.api.options import RunOptions
from runner.core.filenames import SIMULATOR_LEDGER_NAME
from runner.core.prices import PriceTable
from runner.core.problem import Problem
from runner.core.settings import PollPolicy, Settings
from runner.core.units import format_duration, format_rate
from runner.disk import write_error
from runner.errors import ManifestError, UsageError
from runner.gateway.credentials import ApiKey, KeySet, fingerprint
from runner.manifest.header import read_price_file
from runner.schema.price_tables import Pricer, pricer_for

if TYPE_CHECKING:
    from runner.simulator.scenario import Scenario

_SECRET = "simulated-key"  # noqa: S105  (valid for the simulator only)
_SUBMIT_PER_S = 20.0
_POLL_PER_S = 100.0
_POLL = PollPolicy(first_s=0.2, interval_s=0.2, max_interval_s=0.4)


def simulated_keys() -> KeySet:
    """Return the key that a simulated run uses, so that none has to be set."""
    return KeySet((ApiKey(fingerprint(_SECRET), _SECRET),))


def check_simulation(options: RunOptions, *, simulate: bool) -> None:
    """
    Check the options that only a simulated run has, before anything is done.

    Raises:
        UsageError: One of them is given, and the run is none.
        ScenarioError: The scenario is not valid.
    """
    for name, value in (("--scenario", options.scenario), ("--real-time", options.real_time)):
        if value and not simulate:
            raise UsageError(f"{name} needs --simulate: a real run has no use for it", hint="leave it out")
    if options.scenario is not None:
        _load_scenario(options.scenario)


def speed_line(settings: Settings) -> str:
    """
    Return a line with the rates and waits of a simulated run.

    Args:
        settings: With the simulator's speed.
    """
    limits, poll = settings.limits, settings.poll
    return (
        f"simulated: {format_rate(limits.submit_per_s)} submissions and {format_rate(limits.poll_per_s)} polls, the first after "
        f"{format_duration(poll.first_s)}, in place of the manifest's rates and waits (--real-time keeps them)"
    )


def with_simulator_speed(settings: Settings, options: RunOptions) -> Settings:
    """Raise rates and shorten waits, except for rates that an option sets."""
    limits = settings.limits
    if options.submit_rate is None:
        limits = replace(limits, submit_per_s=max(limits.submit_per_s, _SUBMIT_PER_S))
    if options.poll_rate is None:
        limits = replace(limits, poll_per_s=max(limits.poll_per_s, _POLL_PER_S))
    return replace(settings, limits=limits, poll=replace(_POLL, timeout_s=settings.poll.timeout_s))


@asynccontextmanager
async def simulated_gateway(run_dir: Path, scenario: str | None, pricer: Pricer) -> AsyncIterator[str]:
    """
    Start the simulator for the length of a run, and return its base URL.

    Args:
        pricer: Says what it charges.

    Raises:
        ScenarioError: The scenario is not valid.
        RunDirError: The simulator's ledger can't be written.
    """
    chosen = None if scenario is None else _load_scenario(scenario)
    ledger = run_dir / SIMULATOR_LEDGER_NAME
    simulator = _server().Simulator(chosen, ledger_path=ledger, pricer=pricer)
    try:
        await simulator.start()
    except OSError as error:
        raise write_error(error, ledger) from None
    try:
        yield simulator.base_url
    finally:
        await simulator.stop()


async def serve_simulator(
    scenario: str | None,
    *,
    port: int,
    ledger: Path | None,
    prices: Path | None = None,
    ready: Callable[[str, str], None],
) -> None:
    """
    Serve the simulator until this is canceled.

    Args:
        prices: A price table; it charges by this one, and else by the one that comes with the program.
        ready: Gets its base URL, and a key that it accepts, once it can be used.

    Raises:
        ScenarioError: The scenario is not valid.
        OSError: The port is taken.
    """
    chosen = _load_scenario(scenario or "demo")
    key = chosen.keys[0] if chosen.keys else _SECRET
    settings = Settings(name="", prices=None if prices is None else _read_prices(prices))
    await _server().serve(
        chosen,
        port=port,
        ledger_path=ledger,
        pricer=pricer_for(settings),
        ready=lambda base_url: ready(base_url, key),
    )


def _server() -> ModuleType:
    # Not needed by a real run, and its web framework is slow to import.
    from runner.simulator import server

    return server


def _load_scenario(name: str) -> Scenario:
    from runner.simulator.scenario_reader import load_scenario

    return load_scenario(name)


def _read_prices(path: Path) -> PriceTable:
    problems: list[Problem] = []
    try:
        table = read_price_file(path, None, problems.append)
    except ManifestError as error:
        raise UsageError(str(error.problems[0] if error.problems else error.message)) from error
    if table is None:
        raise UsageError(str(problems[0]))
    return table
