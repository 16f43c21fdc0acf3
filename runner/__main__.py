"""The entry point of `runner` and `python -m runner`."""

from __future__ import annotations

import gc
import os
import sys

_GARBAGE_THRESHOLDS = (100_000, 20, 20)
"""New objects before the collector looks for cycles: imports and jobs make many that stay, and hardly any cycles."""


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        if sys.getfilesystemencoding() != "utf-8":
            _start_again_with_utf8()
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
        from runner.cli import main, streams

        streams.prepare_streams()
        code = main.run_command_line(sys.argv[1:])
        if "asyncio" not in sys.modules:
            # Neither threads nor child processes are left. Freeing every object one by one would take longer than `--help`.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        # What is left goes with the process: the interpreter need not look for cycles in it first.
        gc.freeze()
        _end_silently_at_ctrl_c()
    except KeyboardInterrupt:
        # Before the command began, or after it had ended.
        os.write(2, b"interrupted\n")
        os._exit(130)
    sys.exit(code)


def _end_silently_at_ctrl_c() -> None:
    """Let Ctrl-C end the process from here on: libraries that clean up at exit would print a traceback of it."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _start_again_with_utf8() -> None:
    """Start this command again in Python's UTF-8 mode: else no file could have a name that the locale has no characters for."""
    # What is printed stays in the encoding of the terminal.
    os.environ.setdefault("PYTHONIOENCODING", getattr(sys.stdout, "encoding", "utf-8"))
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - it is this command


if __name__ == "__main__":
    main()
