"""Arguments that name a run by the URL of its journal."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click

from runner.api.config import read_environment
from runner.api.journals import check_out, find_run, write_snapshot
from runner.api.options import RunOptions
from runner.cli.console import echo_stderr
from runner.cli.shared_options import GIVEN_URL
from runner.core.sharding import Shard
from runner.objects import url_of_path


def local_paths(
    ctx: click.Context, paths: Iterable[Path], *, is_read: bool, shard: Shard | None = None
) -> list[Path]:
    """
    Return paths as they are, and run directories for the URLs among them.

    Args:
        shard: The only one to work on.
        is_read: Whether the runs are only read: then a temporary directory has what the journal holds now.

    Raises:
        RunnerError: See `find_run`, `write_snapshot` and `check_out`.
    """
    found: list[Path] = []
    for path in paths:
        url = url_of_path(path)
        if url is None:
            found.append(path)
            continue
        run = find_run(url, read_environment(RunOptions(), Path()))
        if not is_read:
            found += check_out(run, shard=shard)
            continue
        folder = Path(tempfile.mkdtemp(prefix="runner-"))
        if ctx.info_name != "report":
            ctx.call_on_close(lambda folder=folder: shutil.rmtree(folder, ignore_errors=True))
        ctx.meta[GIVEN_URL] = url
        found.append(write_snapshot(run, folder))
    return found


def merge_sources(ctx: click.Context, paths: Iterable[Path]) -> list[Path]:
    """Return the directories of shards to merge; those of a URL are made from its journal, without files."""
    found: list[Path] = []
    for path in paths:
        if (url := url_of_path(path)) is None:
            found.append(path)
            continue
        folder = Path(tempfile.mkdtemp(prefix="runner-"))
        ctx.call_on_close(lambda folder=folder: shutil.rmtree(folder, ignore_errors=True))
        echo_stderr(f"reading the journals of {url}")
        found += check_out(find_run(url, read_environment(RunOptions(), Path())), folder=folder)
    return found
