"""The report of a run, generated from ``run.db``; it is only read, so the run may be active."""

from __future__ import annotations

import os
import selectors
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import Struct

from runner.api.asset_store import PRESIGNED_S, AssetAddresses
from runner.api.config import run_environment
from runner.api.outputs import Outputs
from runner.api.run_facts import RunFacts, read_facts
from runner.core.filenames import ASSETS_NAME, REPORT_NAME, RESULTS_NAME, VERDICTS_NAME
from runner.core.lifecycle import State
from runner.core.summary import summarize
from runner.disk import open_own, require_output
from runner.errors import ReportError, RunnerError
from runner.jsontext import dumps
from runner.report.csv_table import MAX_KEYS, TooManyKeys, write_csv
from runner.report.junit import write_junit as write_junit_file
from runner.report.page import PageInfo, ReportBuilder, write_page
from runner.report.step_summary import step_summary
from runner.results.formats import openai_batch_line
from runner.results.verdicts import known_verdicts, read_verdicts
from runner.results.writers import atomic_write
from runner.store import query
from runner.store.database import reading
from runner.store.freshness import has_derived_files
from runner.store.store import Store

MAX_STEP_SUMMARY_BYTES = 1 << 20
"""GitHub shows nothing of a larger one."""


def write_html(run_dir: Path, *, now_at: float) -> Path:
    """
    Write ``report.html`` into the run directory, beside the assets that it plays, and return its path.

    Raises:
        RunDirError: The directory is not a run directory, or its ``run.db`` can't be read.
        ReportError: There are no jobs, or the file can't be written.
    """
    out = run_dir / REPORT_NAME
    page, info = build_page(run_dir, PosterMaker(run_dir), now_at=now_at)
    with _writing(out, hint="check the directory's owner and permissions, or report on a copy of it"):
        write_page(page, out, info)
    return out


def build_page(
    run_dir: Path, posters: PosterMaker, *, now_at: float, is_review: bool = False
) -> tuple[ReportBuilder, PageInfo]:
    """Read what the report of a run shows; the errors are those of `open_report`."""
    with open_report(run_dir) as run:
        address = AssetAddresses(run_dir, run_environment(run.facts), is_served=is_review)
        page = ReportBuilder(known_verdicts(run_dir), address=address)
        for record in query.records(run.reader):
            page.add(record)
    shown = posters.posters(page.videos())
    info = PageInfo(
        run.facts.settings.name,
        run.facts.gateway,
        run_dir,
        now_at,
        is_review,
        shown,
        address.origins,
        now_at + PRESIGNED_S,
    )
    return page, info


def restore_missing_files(run_dir: Path, *, now_at: float) -> None:
    """
    Write the derived files again if one is missing or out of date, unless another process works on the run, which will.

    Raises:
        RunDirError: The directory is not a run directory, or its ``run.db`` can't be read.
        ReportError: There are no jobs.
    """
    with open_report(run_dir) as run:
        if has_derived_files(run.reader, run_dir):
            return
    # The report itself does not depend on them, and may be of a directory that can only be read.
    with suppress(RunnerError, OSError), Store(run_dir) as store:
        facts = read_facts(store.reader)
        if facts is not None:
            with closing(Outputs(store, facts)) as outputs:
                outputs.finish(now_at=now_at)


def write_junit(run_dir: Path, out: Path) -> None:
    """Write the jobs as JUnit XML; the errors are those of `write_html`."""
    with open_report(run_dir) as run, _writing(out):
        require_output(out)
        summary = summarize(query.records(run.reader))
        write_junit_file(out, query.records(run.reader), summary, run=run.facts.settings.name)


def write_openai(run_dir: Path, out: Path) -> None:
    """Write the jobs in the shape of the OpenAI batch API's output; the errors are those of `write_html`."""
    with open_report(run_dir) as run, _writing(out):
        require_output(out)
        with atomic_write(out) as file:
            for record in query.records(run.reader):
                file.write(dumps(openai_batch_line(record, run=run.facts.settings.name)) + b"\n")


def write_table(run_dir: Path, out: Path) -> None:
    """Write the jobs as CSV; the errors are those of `write_html`, and `ReportError` if they have too many keys."""
    verdicts = read_verdicts(run_dir / VERDICTS_NAME)
    with open_report(run_dir) as run, _writing(out):
        require_output(out)
        try:
            write_csv(out, partial(query.records, run.reader), verdicts)
        except TooManyKeys:
            raise ReportError(
                f"the metadata and requests of {run_dir} have more than {MAX_KEYS:,} different keys, too many for a table",
                hint=f"read {RESULTS_NAME} instead",
            ) from None


def markdown(run_dir: Path) -> str:
    """Summarize a run in Markdown, in less than 1 MiB; the errors are those of `write_html`."""
    with open_report(run_dir) as run:
        summary = summarize(query.records(run.reader))
        others = (record for record in query.records(run.reader) if record.state is not State.SUCCEEDED)
        return step_summary(summary, others, run=run.facts.settings.name)


def append_step_summary(run_dir: Path, out: Path) -> None:
    """
    Append the Markdown to a step's summary file, as GitHub Actions names it in ``GITHUB_STEP_SUMMARY``.

    Raises:
        ReportError: It can't be written, or GitHub would show nothing because the file would get too large.
    """
    text = markdown(run_dir).encode()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with _writing(out), os.fdopen(open_own(out, flags), "ab") as file:
        if file.tell() + len(text) > MAX_STEP_SUMMARY_BYTES:
            raise ReportError(
                f"{out} would be larger than the 1 MiB that GitHub shows of a step",
                hint="write this summary in a step of its own",
            )
        file.write(text)


class OpenReport(Struct, frozen=True):
    """A run that has jobs, with a connection that reads it."""

    reader: sqlite3.Connection
    facts: RunFacts


@contextmanager
def open_report(run_dir: Path) -> Iterator[OpenReport]:
    """
    Open a run to report on it.

    Raises:
        StoreMissing, StoreDamaged, StoreTooNew: It is not a run directory, or one that can't be read.
        ReportError: There are no jobs.
    """
    with reading(run_dir) as reader:
        facts = read_facts(reader)
        if facts is None or not next(query.records(reader), None):
            raise ReportError(
                f"{run_dir} holds no jobs yet: there is nothing to report", hint="runner run MANIFEST"
            )
        yield OpenReport(reader, facts)


@contextmanager
def _writing(out: Path, *, hint: str = "name another file") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportError(f"{out} can't be written: {error.strerror or error}", hint=hint) from error


MAX_POSTERS = 1_000
"""Of a page, for the videos that it shows first: each has some 6 kB."""
_LIMIT_S = 30.0
_LIMIT_OF_ONE_S = 10.0
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")
_PROGRAM = (sys.executable, "-P", "-m", "runner.media.decode")


class PosterMaker(Struct):
    """
    Makes posters in a process of its own, and keeps them; without the extra ``media`` it makes none.

    Args:
        run_dir: The run directory, below whose ``assets/`` the videos are.
        program: How the process is started.
        limit_of_one_s: How long one video may take.
    """

    run_dir: Path
    program: tuple[str, ...] = _PROGRAM
    limit_of_one_s: float = _LIMIT_OF_ONE_S
    _known: dict[str, str | None] = {}
    _process: subprocess.Popen[bytes] | None = None

    def posters(self, videos: Iterable[str]) -> Mapping[str, str]:
        """
        Return posters by the path of the video, as JPEG in base64, as many as half a minute is enough for.

        Args:
            videos: Paths relative to the run directory, those to be shown first at the start.
        """
        if find_spec("av") is None:
            return {}
        until = time.monotonic() + _LIMIT_S
        folder = (self.run_dir / ASSETS_NAME).resolve()
        try:
            for video in list(videos)[:MAX_POSTERS]:
                if video not in self._known:
                    if time.monotonic() > until:
                        break
                    path = (self.run_dir / video).resolve()
                    # The paths may be of a foreign directory.
                    is_own = path.is_relative_to(folder) and path.is_file()
                    self._known[video] = self._ask(path) if is_own else None
        finally:
            self._end()
        return {video: poster for video, poster in self._known.items() if poster is not None}

    def _ask(self, path: Path) -> str | None:
        """Return the poster of a video; None if it can't be decoded, or the process crashed or hung over it."""
        if self._process is None:
            self._process = subprocess.Popen(
                self.program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # It reads foreign files, and needs no keys.
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(str(path)) + b"\n")
            self._process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(self._process.stdout, selectors.EVENT_READ)
                if not selector.select(self.limit_of_one_s):
                    raise TimeoutError
            return msgspec.json.decode(self._process.stdout.readline(), type=str | None)
        except (OSError, msgspec.DecodeError):
            self._end()
            return None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
