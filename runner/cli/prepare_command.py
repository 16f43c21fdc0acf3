"""`runner prepare`."""

from __future__ import annotations

from pathlib import Path

import click

from runner.api.options import RunOptions
from runner.cli.console import echo_stderr, show_warning
from runner.cli.param_types import MANIFEST, VARIABLE
from runner.cli.shared_options import ASSETS, PER_SHARD, with_options
from runner.core.units import format_count


@click.command("prepare")
@click.argument("manifest", type=MANIFEST)
@click.option("--journal", metavar="URL", required=True, help="Where the journal of the run is kept.")
@click.option(
    "--shards",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many shards the run has; their number never changes.",
)
@with_options(ASSETS, PER_SHARD)
@click.option("--simulate", is_flag=True, help="For a run with a simulated gateway.")
@VARIABLE
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="File of variables to read instead of .env."
)
def command(
    manifest: Path,
    journal: str,
    shards: int,
    assets: str | None,
    keep_local: bool,
    per_shard: bool,
    simulate: bool,
    var: dict[str, str],
    env_file: Path | None,
) -> None:
    """
    Put the jobs of MANIFEST, and the local files that they name, into a journal, so that other machines need neither.

    Each machine then runs its shard with `runner resume URL --shard I/N`. Nothing is submitted here.
    """
    from runner.api.prepare import prepare

    options = RunOptions(
        simulate=simulate,
        assets=assets,
        keep_local=keep_local,
        per_shard=per_shard,
        var=var,
        env_file=env_file,
    )
    done = prepare(
        manifest,
        journal,
        shards,
        options=options,
        on_problem=show_warning,
    )
    for index, jobs in enumerate(done.jobs):
        what = "has begun, and was left as it is" if jobs is None else format_count(jobs, "job")
        echo_stderr(f"shard {index}/{shards}: {what}")
    if done.files:
        echo_stderr(f"{format_count(done.files, 'local file')} in the journal")
    echo_stderr(f"start each shard with: runner resume {journal} --shard I/{shards}")
