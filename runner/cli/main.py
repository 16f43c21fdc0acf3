"""Find the command, run it, and turn errors into messages and exit codes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

from runner.errors import RunnerError, UsageError

COMMANDS = {
    "init": "Write a commented starter manifest.",
    "models": "List the models that can be run, or one model's parameters.",
    "schema": "Print the JSON Schema of a model, the manifest or the results.",
    "validate": "Check manifests; nothing is sent.",
    "plan": "Say what a run would do now; nothing is sent.",
    "run": "Run a manifest: every video on disk, one line per job.",
    "resume": "Go on with a run without its manifest.",
    "rerun": "Run again what did not succeed, from a run or its results.",
    "resolve": "Settle jobs whose submission is in doubt.",
    "status": "Say how a run stands, also while it is going.",
    "report": "Draw the report of a run anew, or in other formats.",
    "simulate": "Serve a simulated gateway on this machine.",
    "doctor": "Check the key, the gateway, the clock and the disk; costs nothing.",
}
"""Every command with its one sentence, so that `--help` imports none of them."""


class LazyGroup(click.Group):
    """A group whose commands live in modules of their names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and take the command from it."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"runner.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or name the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None


_EPILOG = """\
\b
Completion of commands, run directories, job ids and models, by a line in the shell's start-up file:
  bash  eval "$(_RUNNER_COMPLETE=bash_source runner)"
  zsh   eval "$(_RUNNER_COMPLETE=zsh_source runner)"
  fish  _RUNNER_COMPLETE=fish_source runner | source
"""


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from runner import __version__

        click.echo(f"runner {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def cli() -> None:
    """Run batches of paid, asynchronous video generation jobs, and never pay for one twice."""


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what went wrong is on stderr."""
    try:
        code: Any = cli.main(args=list(arguments), prog_name="runner", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        from runner.cli.console import show_error

        show_error(_in_our_words(error))
        return 2
    except click.exceptions.Abort:
        return 130
    except RunnerError as error:
        from runner.cli.console import show_error

        show_error(error)
        return error.exit_code
    except BrokenPipeError:
        return _pipe_closed()
    except Exception as error:
        from runner.cli.console import show_bug

        return show_bug(error, arguments)


def _in_our_words(error: click.ClickException) -> UsageError:
    """Give click's complaints the shape of all others."""
    ctx = getattr(error, "ctx", None)
    hint = None if ctx is None else f"see {ctx.command_path} --help"
    return UsageError(error.format_message(), hint=hint)


def _pipe_closed() -> int:
    """End quietly where the reader of our output went away, as `head` does."""
    import os
    import sys

    # What is still buffered must not be written, and fail, at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
