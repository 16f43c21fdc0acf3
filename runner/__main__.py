"""The program's entrance: `runner` and `python -m runner`."""

from __future__ import annotations

import gc
import sys

_GARBAGE_THRESHOLDS = (100_000, 20, 20)
"""New objects before the collector looks for cycles: imports and jobs make many that stay, and hardly any garbage."""


def main() -> None:
    """Run the command line; whatever happens, the exit code says what."""
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    from runner.cli.main import run_command_line

    code = run_command_line(sys.argv[1:])
    # What is left goes with the process: the interpreter need not search it for cycles first.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
