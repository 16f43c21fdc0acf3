"""What a run directory remembers of its manifest, so that a run goes on without it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec
from msgspec import Struct

from runner.core.settings import (
    Settings,
)
from runner.errors import UsageError

SETTINGS, LEARNED, ORIGIN = "settings", "learned", "origin"
"""Keys of the store's facts about the whole run."""


class RunOrigin(Struct, frozen=True):
    """
    Where a run comes from.

    Attributes:
        manifest: The manifest's path as it was given, or None for a run that began from results.
        is_simulated: Whether its jobs went to the simulator; such a run never meets a real gateway.
        sharded: Whether its assets are spread over 256 folders.
    """

    manifest: str | None
    is_simulated: bool
    sharded: bool

    def text(self) -> str:
        """Write it for the store."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, text: str) -> RunOrigin:
        """Read back what `text` wrote."""
        return msgspec.json.decode(text, type=cls)


def default_run_dir(name: str, *, simulate: bool) -> Path:
    """
    Name the directory of a run that was given none. A simulated run has one of its own, so that it is never
    taken for a real one.

    >>> default_run_dir("kittens", simulate=True).as_posix()
    'output/kittens-simulated'
    """
    return Path("output") / (f"{name}-simulated" if simulate else name)


def expand_date(output: Path, today: date) -> Path:
    """
    Put the date into a run directory's path.

    >>> expand_date(Path("output/nightly-${date}"), date(2026, 11, 21)).as_posix()
    'output/nightly-2026-11-21'
    """
    return Path(str(output).replace("${date}", today.isoformat()))


def require_same_kind(origin: RunOrigin, run_dir: Path, *, simulate: bool) -> None:
    """
    Keep real and simulated runs apart.

    Raises:
        UsageError: The directory holds a run of the other kind.
    """
    if origin.is_simulated == simulate:
        return
    was, asked = ("simulated", "real") if origin.is_simulated else ("real", "simulated")
    raise UsageError(
        f"{run_dir} holds a {was} run, and this would be a {asked} one",
        hint="choose another run directory with -o" + (", or add --simulate" if was == "simulated" else ""),
    )


def settings_text(settings: Settings) -> str:
    """
    Encode settings as JSON for the store. They hold names of environment variables, never keys.

    >>> read_settings(settings_text(Settings(name="kittens"))) == Settings(name="kittens")
    True
    """
    return msgspec.json.encode(settings).decode()


def read_settings(text: str) -> Settings:
    """Decode what `settings_text` encoded."""
    return msgspec.json.decode(text, type=Settings)
