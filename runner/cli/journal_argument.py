"""Arguments that name a run by the URL of its journal."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from runner.api.config import read_environment
from runner.api.journals import JournaledRun, check_out, find_run, has_shards, write_snapshot
from runner.api.options import DEFAULT_OPTIONS
from runner.cli.console import echo_stderr
from runner.cli.shared_options import GIVEN_URL
from runner.core.sanitize import command_text
from runner.core.sharding import Shard, share
from runner.errors import RunnerError, UsageError
from runner.objects import url_of_path


def local_paths(
    ctx: click.Context,
    paths: Iterable[Path],
    *,
    is_read: bool,
    shard: Shard | None = None,
    jobs: Sequence[str] | None = None,
) -> list[Path]:
    """
    Return paths as they are, and run directories for the URLs among them.

    Args:
        shard: The only one to work on.
        is_read: Whether the runs are only read: then a temporary directory has what the journal holds now.
        jobs: Ids of jobs that are all in the one shard to work on; None to work on every shard.

    Raises:
        UsageError: The jobs do not name one shard of several.
        RunnerError: See `find_run`, `write_snapshot` and `check_out`.
    """
    found: list[Path] = []
    for path in paths:
        url = url_of_path(path)
        if url is None:
            found.append(path)
            continue
        run = find_run(url, read_environment(DEFAULT_OPTIONS, Path()))
        if not is_read:
            # Before any shard is taken over.
            own = shard if jobs is None or run.shards == 1 else _shard_of(jobs, run)
            found += check_out(run, shard=own)
            continue
        folder = Path(tempfile.mkdtemp(prefix="runner-"))
        if ctx.info_name != "report":
            ctx.call_on_close(lambda folder=folder: shutil.rmtree(folder, ignore_errors=True))
        ctx.meta[GIVEN_URL] = url
        found.append(write_snapshot(run, folder))
    if not found:
        raise UsageError("that shard has not begun", hint="runner status URL shows what has")
    return found


def _shard_of(jobs: Sequence[str], run: JournaledRun) -> Shard:
    """Return the shard that has all the jobs; patterns are in every one."""
    if not jobs or any(set(job) & set("*?[") for job in jobs):
        raise UsageError(
            f"this run has {run.shards} shards, and one is worked on at a time",
            hint="name jobs by their ids; or name the directory of a shard, as `runner resume URL --limit 0` makes them",
        )
    members: dict[int, list[str]] = {}
    for job in jobs:
        members.setdefault(share(job, run.shards), []).append(job)
    if len(members) > 1:
        parts = "; ".join(f"shard {index}: {' '.join(ids)}" for index, ids in sorted(members.items()))
        raise UsageError("the jobs are in several shards", hint=f"name those of one at a time: {parts}")
    return Shard(next(iter(members)), run.shards)


@contextmanager
def merge_sources(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """
    Return the directories of shards to merge; those of a URL are made from its journal, without files, for the block.

    Raises:
        UsageError: A journal has no shards. It is not taken over.
        RunnerError: As in the block, with the URL in place of the directory that was made of it.
    """
    found: list[Path] = []
    urls: dict[str, str] = {}
    try:
        for path in paths:
            if (url := url_of_path(path)) is None:
                found.append(path)
                continue
            echo_stderr(f"reading the journals of {url}")
            run = find_run(url, read_environment(DEFAULT_OPTIONS, Path()))
            if not has_shards(run):
                raise UsageError(
                    f"the run in {url} has no shards",
                    hint=f"continue it: {command_text('runner', 'resume', url)}",
                )
            folder = tempfile.mkdtemp(prefix="runner-")
            urls[folder] = url
            found += check_out(run, folder=Path(folder))
        yield found
    except RunnerError as error:
        for folder, url in urls.items():
            error.message = error.message.replace(folder, url)
        raise
    finally:
        for folder in urls:
            shutil.rmtree(folder, ignore_errors=True)
