"""The terminal: messages and errors for people to stderr, data to stdout; servers that run until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import TextIO

import click

from runner.core.problem import Problem, Severity
from runner.core.sanitize import redact, sanitize_line, sanitize_text
from runner.errors import RunnerError, UsageError
from runner.schema.wording import did_you_mean

_BUG_EXIT_CODE = 3
_PATH_ERRORS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
_MAX_PROBLEMS = 50
"""Of a manifest that is refused; `validate` shows all."""


def wants_color(stream: TextIO | None = None) -> bool:
    """Return whether to use colors: as NO_COLOR and FORCE_COLOR say, else if the stream (stderr) is a terminal with colors."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return (stream or sys.stderr).isatty() and os.environ.get("TERM") != "dumb"


def echo_stderr(
    text: str,
    *,
    style: str | None = None,
    head: str = "",
    head_style: str | None = None,
    max_chars: int | None = None,
) -> None:
    """
    Print a line for people, in a color if given, after a bold start; control characters are shown as pictures.

    With ``max_chars`` the text becomes one line of at most that length without secrets, as by `sanitize_line`.
    """
    line = _safe(text) if max_chars is None else sanitize_line(text, max_chars=max_chars)
    _echo(line, style, head, head_style, is_error=True)


def echo_stdout(text: str, *, head: str = "", head_style: str | None = None) -> None:
    """Print a line of data, after a start in another color; control characters are shown as pictures."""
    _echo(_safe(text), None, head, head_style, is_error=False)


@contextlib.contextmanager
def shown_if_slow(text: str, *, after_s: float = 1.0) -> Iterator[None]:
    """Print a line to a terminal if the body takes longer."""
    timer = threading.Timer(after_s, echo_stderr, [text])
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _echo(line: str, style: str | None, head: str, head_style: str | None, *, is_error: bool) -> None:
    """Print a safe line to a terminal: the only place where texts from outside get there."""
    if style:
        line = click.style(line, fg=style)
    if head:
        line = click.style(_safe(head), fg=head_style, bold=is_error or None) + line
    click.echo(line, err=is_error, color=wants_color(sys.stderr if is_error else sys.stdout))


def _safe(text: str) -> str:
    return sanitize_text(text, max_chars=len(text))


def show_error(error: RunnerError) -> None:
    """Print an error: what happened, where, and what to do next."""
    echo_stderr(f" {error.message}", head=f"error[{error.reference}]:", head_style="red")
    # Warnings were shown as they were found.
    errors = [problem for problem in error.problems if problem.severity is Severity.ERROR]
    for problem in errors[:_MAX_PROBLEMS]:
        echo_stderr(f"  {problem}")
    if len(errors) > _MAX_PROBLEMS:
        echo_stderr(f"  (these are the first {_MAX_PROBLEMS})")
    if error.hint:
        echo_stderr(f"  hint: {error.hint}")


def show_warning(problem: Problem) -> None:
    """Print a problem of a manifest with its position if it is a warning; errors are shown when the manifest is refused."""
    if problem.severity is Severity.WARNING:
        echo_stderr(str(problem))


def usage_error(error: Exception) -> Exception:
    """
    Return an error of the command line as one of the program's own, with what may have been meant; or one of a path that
    nobody can look at. Any other error is returned as it is.
    """
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename:
        message = f"{error.filename} can't be read: {error.strerror}"
        return UsageError(message, hint="check the path, and who may enter its folders")
    if not isinstance(error, click.ClickException):
        return error
    ctx = getattr(error, "ctx", None)
    hint = None if ctx is None else f"try '{ctx.command_path} --help'"
    message = error.format_message().replace("a valid integer range", "a whole number")
    if isinstance(error, click.NoSuchOption):
        near = did_you_mean(error.option_name, error.possibilities or ())
        message = f"No such option {error.option_name!r}" + (f"; {near}" if near else ".")
    return UsageError(message, hint=hint)


def show_bug(error: Exception, arguments: Sequence[str]) -> int:
    """
    Print an internal error, and write its traceback to a file; with ``-v`` print that too.

    Returns:
        The exit code.
    """
    import traceback

    trace = redact("".join(traceback.format_exception(error)))
    if {"-v", "--verbose"} & set(arguments):
        echo_stderr(trace)
    message = sanitize_line(str(error), max_chars=200)
    echo_stderr(f"error[bug]: internal error: {type(error).__name__}: {message}")
    path = _write_trace(trace)
    if path is not None:
        echo_stderr(f"  note: the traceback was written to {path}")
    echo_stderr(
        "  hint: report the error with that file; submitted jobs are on disk, and the same command continues"
    )
    return _BUG_EXIT_CODE


def _write_trace(trace: str) -> str | None:
    # Slow to import, and rarely needed.
    import tempfile

    try:
        descriptor, path = tempfile.mkstemp(prefix="runner-bug-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(trace)
    except OSError:
        return None
    return path


def open_in_browser(url: str) -> None:
    """Open an address in the user's browser (the environment variable BROWSER names another), or say that there is none."""
    import webbrowser

    if not webbrowser.open(url):
        echo_stderr(f"no browser could be started; open {url}")


def serve_until_signal(server: Coroutine[None, None, None], port: int) -> None:
    """
    Run a server until Ctrl-C or SIGTERM.

    Raises:
        UsageError: It can't listen on the port.
    """
    # Slow to import, and used by two commands.
    import asyncio
    import signal

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        await server

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        return
    except OSError as error:
        raise UsageError(
            f"can't listen on port {port}: {error.strerror or error}",
            hint="choose another --port, or leave the option out to use a free one",
        ) from None
