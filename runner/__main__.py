"""The program's entrance: `runner` and `python -m runner`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; whatever happens, the exit code says what."""
    from runner.cli.main import run_command_line

    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
