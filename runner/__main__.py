"""The entry point of `runner` and `python -m runner`."""

from __future__ import annotations

import gc
import os
import sys

_GARBAGE_THRESHOLDS = (100_000, 20, 20)
"""New objects before the collector looks for cycles: imports and jobs make many that stay, and hardly any cycles."""


def main() -> None:
    """Run the command line, and exit with its code."""
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        from runner.cli import main, streams

        streams.prepare_streams()
        code = main.run_command_line(sys.argv[1:])
    except KeyboardInterrupt:
        # Before the command began, or after it had ended.
        os.write(2, b"interrupted\n")
        os._exit(130)
    if "asyncio" not in sys.modules:
        # Neither threads nor child processes are left. Freeing every object one by one would take longer than `--help`.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    # What is left goes with the process: the interpreter need not look for cycles in it first.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
