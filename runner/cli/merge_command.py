"""`runner merge`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from runner.cli.console import command_text, echo_stderr, echo_stdout
from runner.cli.param_types import RUN_DIR
from runner.core.units import format_count


@click.command("merge")
@click.argument("out", type=RUN_DIR)
@click.argument("run_dirs", metavar="(DIR...|URL)", type=RUN_DIR, nargs=-1, required=True)
@click.option("--partial", is_flag=True, help="Merge what there is, even if shards are missing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, out: Path, run_dirs: tuple[Path, ...], partial: bool, as_json: bool) -> int:
    """
    Make the run directory OUT of the directories of all shards of a run, or of what is in its journal at URL.

    OUT is a run like any other, and continues what the shards left. From then on the shards themselves can't be run any more.
    Videos get a second name by hard links where that is possible, else they are copied. Nothing is sent.
    """
    from runner.api import merge, run_dir
    from runner.cli.journal_argument import merge_sources

    merged = merge.merge(out, merge_sources(ctx, run_dirs), is_partial=partial, on_progress=echo_stderr)
    for path in merged.lost_files[:10]:
        echo_stderr(f"missing in its shard: {path}", style="yellow")
    if merged.lost_files:
        count = format_count(len(merged.lost_files), "file")
        verify = command_text("runner", "resume", out, "--verify", *run_dir.continue_options(out))
        echo_stderr(f"{count} missing: download again with {verify}", style="yellow")
    echo_stderr(f"merged {format_count(merged.summary.jobs, 'job')} into {out}/")
    if as_json:
        echo_stdout(json.dumps(merge.merge_summary(merged)))
    return 0
