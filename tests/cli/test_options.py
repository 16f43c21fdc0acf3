"""Values of options: how they are parsed, and which are refused with the allowed forms."""

from __future__ import annotations

import re
import time as clock_time
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path

import pytest

from runner.core.stop import parse_max_failures
from runner.core.units import next_time, parse_clock
from runner.simulator.scenario_reader import shipped_scenarios
from tests.cli.command import runner


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the time zone of this process to Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    clock_time.tzset()
    yield
    monkeypatch.undo()
    clock_time.tzset()


@pytest.mark.parametrize(
    ("now", "stop_at", "hours"),
    [
        ("2026-11-21 22:00", time(6, 0), 8),
        ("2026-11-21 06:00", time(6, 0), 0),
        ("2026-11-21 06:01", time(6, 0), 23 + 59 / 60),
        ("2026-10-25 02:10+01:00", time(2, 30), 1 / 3),
        ("2026-10-25 02:40+02:00", time(2, 30), 5 / 6),
        ("2026-10-24 22:00", time(6, 0), 9),
        ("2026-03-28 22:00", time(6, 0), 7),
    ],
    ids=[
        "tomorrow",
        "now",
        "just now",
        "in the second such hour",
        "in both such hours",
        "clocks go back",
        "clocks go forward",
    ],
)
def test_stop_at_is_the_next_such_time(berlin: None, now: str, stop_at: time, hours: float) -> None:
    """
    `--stop-at` is the next such local time, or this very minute; also in a night in which the clocks change.
    """
    local = datetime.fromisoformat(now).astimezone()

    assert pytest.approx(hours) == (next_time(stop_at, local) - local).total_seconds() / 3600


@pytest.mark.parametrize("text", ["-1", "101%", "5 %%", "many", "", "1.5", "nan%"])
def test_invalid_shares(text: str) -> None:
    """
    What is neither a number nor a percentage is refused, and both forms are shown.
    """
    with pytest.raises(ValueError, match="a percentage such as 5%"):
        parse_max_failures(text)


@pytest.mark.parametrize("text", ["24:00", "6", "06:60", "6:3:1", "-1:00", "٦:٠٠"])
def test_invalid_times_of_day(text: str) -> None:
    """
    What is not a time of day is refused, and the form is shown.
    """
    with pytest.raises(ValueError, match="HH:MM"):
        parse_clock(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-runtime", "60"), "has no unit; write a number and ms, s, m, h or d"),
        (("--submit-rate", "60"), "60/min"),
        (("--stop-at", "noon"), "HH:MM"),
        (("--max-failures", "lots"), "a percentage such as 5%"),
        (("--limit", "-1"), "x>=0"),
        (("--on-changed", "ask"), "'error', 'keep', 'rerun'"),
        (("--if-locked", "kill"), "'fail', 'wait', 'skip'"),
        (("--var", "novalue"), "NAME=VALUE"),
        (("--scenario", "demo"), "--simulate"),
        (("--real-time",), "--simulate"),
        (("--quiet", "--verbose"), "can't be used together"),
        (("--limits", "3"), "--limit"),
    ],
)
def test_invalid_option_is_a_usage_error(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    """
    The error shows the allowed forms, before the manifest is read.
    """
    done = runner("run", tmp_path / "absent.yaml", *options)

    assert 2 == done.exit_code
    assert done.stderr.startswith("error[usage]: ")
    assert message in done.stderr
    assert "run --help" in done.stderr


def test_the_scenarios_are_named_in_the_help() -> None:
    """The help of --scenario names every shipped scenario."""
    text = runner("run", "--help").stdout

    assert [] == [name for name in shipped_scenarios() if f" {name} (" not in " ".join(text.split())]


def test_many_options_are_in_sections() -> None:
    """The help of `run` has each option in one section, those that most runs need first, and names none that is no option."""
    from runner.cli.main import OPTION_SECTIONS, load_command

    text = runner("run", "--help").stdout
    titles = [line.removesuffix(":") for line in text.splitlines() if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    known = {param.name for name in ("run", "resume", "rerun") for param in load_command(name).params}

    assert list(OPTION_SECTIONS) == titles
    assert (
        text.index("--simulate ")
        < text.index("\nJobs:\n")
        < text.index("--job ")
        < text.index("\nWhen to stop:\n")
    )
    assert set() == {name for names in OPTION_SECTIONS.values() for name in names.split()} - known


@pytest.mark.parametrize("command", ["run", "resume", "rerun", "resolve", "simulate"])
def test_every_option_has_a_help_text(command: str) -> None:
    """
    The command and all its options have a help text.
    """
    from runner.cli.main import cli

    found = cli.get_command(None, command)  # type: ignore[arg-type]

    assert found is not None
    assert found.help
    assert [] == [
        p.name for p in found.params if p.param_type_name == "option" and not getattr(p, "help", None)
    ]
