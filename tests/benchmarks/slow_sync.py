"""The command line on a machine whose every commit takes a number of milliseconds longer (the first argument)."""

from __future__ import annotations

import sys
import time

from runner.cli.main import run_command_line
from runner.store.writer import Writer


def main() -> None:
    """Make each commit of a run dearer, and run the rest of the arguments as a command."""
    dearer_s = float(sys.argv[1]) / 1000
    commit = Writer._commit

    def slow(self: Writer, batch: object) -> object:
        time.sleep(dearer_s)
        return commit(self, batch)  # type: ignore[arg-type]

    Writer._commit = slow  # type: ignore[assignment]
    sys.exit(run_command_line(sys.argv[2:]))


if __name__ == "__main__":
    main()
