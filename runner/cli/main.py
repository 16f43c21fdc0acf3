"""Find and run the command, and turn errors into messages and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import click

from runner import __version__
from runner.errors import RunnerError

COMMAND_GROUPS = {
    "Prepare": {
        "init": "Create a commented starter manifest.",
        "models": "List the available models, or show the parameters of one.",
        "schema": "Print the JSON Schema of manifests, prices, results or a model.",
        "validate": "Check manifests without sending anything.",
        "plan": "Show what a run would do, without sending anything.",
        "prices": "Show the prices that hold today, and what is unknown.",
        "doctor": "Check the key, the gateway, the clock and the disk, for free.",
    },
    "Run": {
        "run": "Run a manifest: submit its jobs and download the videos.",
        "resume": "Continue a run without its manifest.",
        "rerun": "Rerun the jobs that did not succeed, from a run or its results.",
        "prepare": "Put a manifest into a journal, for other machines.",
        "merge": "Make one run directory of the shards of a run.",
        "resolve": "Resolve uncertain jobs, whose submission got no clear answer.",
    },
    "Look": {
        "status": "Show the status of a run, even while it is active.",
        "jobs": "List the jobs of a run.",
        "show": "Show one job of a run with all its attempts.",
        "report": "Regenerate the report of a run, or export it in another format.",
        "spend": "Show what runs with a budget spent, by day, model, run or tag.",
    },
    "Use the videos": {
        "review": "Judge the videos of a run in a browser: keep or reject.",
        "check-media": "Check the videos of a run: black, frozen, silent, alike.",
        "export": "Make a dataset from the videos of a run.",
    },
    "Test and debug": {
        "simulate": "Serve a simulated gateway on this machine.",
        "explain": "Show how an answer of the API is read, and what would be done.",
    },
}
"""The help text of every command, in groups, so that `--help` imports none of them."""
COMMANDS = reduce(or_, COMMAND_GROUPS.values())

OPTION_SECTIONS = {
    "Options": "",
    "Jobs": "job where sample states classes verdict new_seed retry_failed skip_invalid verify strict on_changed var",
    "When to stop": "limit max_failures max_runtime stop_at max_cost drain_time",
    "Run directory": "if_locked new catch_up keep_runs keep_days adopt_results",
    "Rates and gateway": "submit_rate poll_rate in_flight downloads base_url env_file",
    "Messages and files": "as_json quiet verbose log_file metrics_file",
    "Stores and many machines": "shard journal assets keep_local per_shard engine workers shards ray_address",
}
"""The options of a command that has many, by name; the first section has all others."""

_MODULES = {
    "setup_commands": ("init", "models", "schema"),
    "validate_command": ("validate",),
    "cost_commands": ("plan", "prices", "spend"),
    "run_commands": ("run", "resume", "prepare"),
    "rerun_commands": ("rerun", "merge"),
    "resolve_command": ("resolve",),
    "status_commands": ("status", "jobs", "show"),
    "video_commands": ("report", "review", "check-media", "export"),
    "debug_commands": ("doctor", "simulate", "explain"),
}
"""Where the commands are."""


def load_command(name: str) -> click.Command:
    """Import the module of a command, and return the command."""
    module = next(module for module, names in _MODULES.items() if name in names)
    command: click.Command = getattr(
        importlib.import_module(f"runner.cli.{module}"), f"{name.replace('-', '_')}_command"
    )
    return command


class InSections(click.Command):
    """A command with so many options that its help text needs sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections, whose texts begin in the same column."""
        section_of = {name: title for title, names in OPTION_SECTIONS.items() for name in names.split()}
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in OPTION_SECTIONS}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                sections[section_of.get(param.name or "", "Options")].append((record[0].ljust(24), record[1]))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=24)


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command, and return the command."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help texts of the commands without importing them."""
        width = max(map(len, COMMANDS))
        for title, commands in COMMAND_GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or suggest the one with the nearest name."""
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
To enable shell completion, add the line for your shell to its startup file:
  bash  eval "$(_RUNNER_COMPLETE=bash_source runner)"
  zsh   eval "$(_RUNNER_COMPLETE=zsh_source runner)"
  fish  _RUNNER_COMPLETE=fish_source runner | source
"""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
    invoke_without_command=True,
)
@click.version_option(__version__, message="runner %(version)s", help="Show the version and exit.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """
    Run batches of paid, asynchronous video generation jobs, and never pay for one twice.

    First steps, free of charge: `runner init`, then `runner run manifest.yaml --simulate`, then `runner report --open`.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are printed to stderr."""
    try:
        code: Any = cli.main(args=list(arguments), prog_name="runner", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return _report_interrupt()
    except BrokenPipeError:
        return _close_stdout()
    except Exception as error:
        return _report(error, arguments)


def _report(error: Exception, arguments: Sequence[str]) -> int:
    from runner.cli.console import show_bug, show_error, usage_error

    error = usage_error(error)
    if isinstance(error.__cause__, KeyboardInterrupt):
        # Python 3.11 turns one in the middle of an import into another error.
        return _report_interrupt()
    if not isinstance(error, RunnerError):
        return show_bug(error, arguments)
    show_error(error)
    return error.exit_code


def _report_interrupt() -> int:
    click.echo("interrupted", err=True)
    return 130


def _close_stdout() -> int:
    # The reader went away, as `head` does. What is still buffered must not be written, and fail, at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
