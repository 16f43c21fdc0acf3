"""`report.html`: one file that makes no request to any host."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from array import array
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib import resources
from io import BytesIO
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from msgspec import Struct
from msgspec.structs import asdict

from runner.core.advice import advice
from runner.core.cost import SpentOn
from runner.core.filenames import VERDICTS_NAME
from runner.core.lifecycle import State, describe
from runner.core.model import FailureClass, JobRecord, Json, Verdicts
from runner.core.money import format_money, from_nanos
from runner.core.sanitize import command_text
from runner.core.settings import SIMULATED
from runner.core.summary import Summary, SummaryBuilder, headline
from runner.core.units import format_count, format_duration, format_size
from runner.jsontext import loads
from runner.report.page_data import (
    MAX_JOBS,
    Address,
    JobRow,
    JobSample,
    Totals,
    histogram,
    row_bytes,
    safe_json,
    shorten,
)
from runner.results.formats import utc_text
from runner.results.writers import atomic_write

_MAX_MODELS = 12
_MIN_IDLE_S = 1800.0
_NO_VERDICTS = Verdicts()
_SCRIPTS = (
    "base.js",
    "charts.js",
    "timeline.js",
    "filters.js",
    "gallery.js",
    "compare.js",
    "review.js",
    "keyboard.js",
    "main.js",
)


class PageInfo(Struct, frozen=True):
    """
    What a page says beside its jobs.

    Attributes:
        run: The name of the run.
        gateway: Its base URL, or `SIMULATED`.
        run_dir: The run directory, as commands on the page name it.
        now_at: When the page is made.
        is_review: Whether `runner review` serves it, and saves the verdicts.
        posters: First pictures of videos by their paths, as JPEG in base64.
        origins: Web servers that the page may load videos from, when they are played.
        links_until: When the addresses there expire.
    """

    run: str
    gateway: str
    run_dir: Path
    now_at: float
    is_review: bool = False
    posters: Mapping[str, str] = {}
    origins: Collection[str] = ()
    links_until: float | None = None


class FailureGroup(Struct, frozen=True):
    """The jobs that share a failure class, with the id and message of the first, advice, and the commands in that."""

    cls: FailureClass
    jobs: int
    job_id: str
    message: str
    advice: str
    commands: tuple[str, ...]


def write_page(builder: ReportBuilder, path: Path, info: PageInfo) -> None:
    """
    Write the report of the jobs that were added to a builder.

    The file belongs in the run directory, because videos are played from ``assets/`` beside it.
    """
    with atomic_write(path) as file:
        for chunk in page_chunks(builder, info):
            file.write(chunk)


def page_chunks(builder: ReportBuilder, info: PageInfo) -> Iterator[bytes]:
    """Yield the page in parts, because that of ten thousand jobs has many megabytes."""
    template = _environment().get_template("report.html")
    for chunk in template.generate(_context(builder, info)):
        yield chunk.encode("utf-8", "replace")


class ReportBuilder:
    """
    Collects what the report needs from jobs added one by one, so that the caller can use each job too.

    Args:
        rows: A file for the jobs that the page lists, so that they take no memory; None to keep them there.
        address: Returns where the page finds an asset.

    Attributes:
        totals: Of all jobs.
        examples: The first job of each failure class.
    """

    def __init__(
        self,
        verdicts: Verdicts = _NO_VERDICTS,
        rows: BinaryIO | None = None,
        address: Address = attrgetter("path"),
        *,
        max_jobs: int = MAX_JOBS,
    ) -> None:
        self._verdicts = verdicts
        self._address = address
        self.totals = Totals()
        self.examples: dict[FailureClass, JobRecord] = {}
        # What is sampled are the numbers of rows in the file, each with its place there and in the manifest.
        self._sample: JobSample[int] = JobSample(max_jobs)
        self._rows = rows or BytesIO()
        self._ends = array("q", [self._rows.tell()])
        self._positions = array("q")

    @property
    def summary(self) -> SummaryBuilder:
        """The summary of the jobs."""
        return self.totals.summary

    def add(self, record: JobRecord) -> None:
        """Add a job."""
        self.totals.add(record)
        self.add_row(record)
        if record.error is not None and record.state is not State.SUCCEEDED:
            self.examples.setdefault(record.error.cls, record)

    def add_row(self, record: JobRecord) -> None:
        """Offer a job to be listed, without adding it to the totals."""
        self._sample.add(
            lambda: self._write_row(
                row_bytes(record, self._verdicts.of(record), self._address), record.index
            ),
            succeeded=record.state is State.SUCCEEDED,
        )

    def add_made_row(self, row: bytes, index: int, *, succeeded: bool) -> None:
        """Offer a job to be listed of which there is what `row_bytes` returned."""
        self._sample.add(lambda: self._write_row(row, index), succeeded=succeeded)

    def _write_row(self, row: bytes, index: int) -> int:
        self._ends.append(self._ends[-1] + self._rows.write(row))
        self._positions.append(index)
        return len(self._positions) - 1

    def listed(self) -> Iterator[bytes]:
        """Yield the jobs that the page lists as JSON for its script, in the order of the manifest."""
        for number in sorted(self._sample.items(), key=self._positions.__getitem__):
            start, end = self._ends[number : number + 2]
            self._rows.seek(start)
            yield self._rows.read(end - start)

    @property
    def listed_jobs(self) -> int:
        """The number of jobs that the page lists."""
        return len(self._sample.items())

    def videos(self) -> list[str]:
        """Return the paths of the videos that the page lists, in the order in which it shows them first."""
        rows = [JobRow(*loads(row)) for row in self.listed()]
        rows.sort(key=lambda row: row.state != State.SUCCEEDED.value)
        return [row.video for row in rows if row.video is not None]


def failure_groups(
    summary: Summary, examples: dict[FailureClass, JobRecord], run_dir: Path
) -> Iterator[FailureGroup]:
    """Group the failures of a run by class, most frequent first, each with what to do about it."""
    is_given_up = not summary.by_state[State.UNCERTAIN]
    for cls, jobs in summary.by_class.items():
        example = examples[cls]
        message = example.error.message if example.error else ""
        text = advice(cls, is_given_up=is_given_up)
        yield FailureGroup(
            cls, jobs, shorten(example.job_id, 200), shorten(message, 500), text, commands_in(text, run_dir)
        )


def commands_in(advice_text: str, run_dir: Path) -> tuple[str, ...]:
    """
    Return the commands on a run that an advice names, with the directory, so that they can be pasted into a shell.

    >>> commands_in("`runner rerun --class lost` submits it again.", Path("/my runs/a"))
    ("runner rerun '/my runs/a' --class lost",)
    """
    found = re.findall(r"`runner (resume|rerun|resolve)( [^`]*)?`", advice_text)
    return tuple(command_text("runner", name, run_dir) + options for name, options in found)


def _context(builder: ReportBuilder, info: PageInfo) -> dict[str, Json]:
    summary = builder.summary.summary()
    script = Markup("\n").join(map(_template_source, _SCRIPTS))
    style = _template_source("report.css")
    states = sorted(summary.by_state.items(), key=lambda item: item[0] is not State.SUCCEEDED)
    run_dir = Path(os.path.abspath(info.run_dir))
    return {
        "run": shorten(info.run, 200),
        "run_json": _safe_json(info.run),
        "gateway": shorten(info.gateway, 200),
        "is_simulated": info.gateway == SIMULATED,
        "is_review": info.is_review,
        "origins": " ".join(sorted(info.origins)),
        "links_until": utc_text(info.links_until) if info.origins else None,
        "generated_at": utc_text(info.now_at),
        "headline": headline(summary),
        "summary": summary,
        "tiles": list(_tiles(summary, builder)),
        "first_at": utc_text(summary.first_submitted_at),
        "last_at": utc_text(summary.last_finished_at),
        "states": [(state, count, describe(state)) for state, count in states if count],
        "state_counts": _safe_json([[state.value, count] for state, count in states if count]),
        "models": list(summary.by_model.items())[:_MAX_MODELS],
        "more_models": max(0, len(summary.by_model) - _MAX_MODELS),
        "costs": [
            (title, [_cost_row(each) for each in entries])
            for title, entries in (("model", summary.cost.by_model), ("day (UTC)", summary.cost.by_day))
            if entries
        ],
        "groups": list(failure_groups(summary, builder.examples, run_dir)),
        "listed": builder.listed_jobs,
        "fields": _safe_json(JobRow._fields),
        "jobs": _joined(builder.listed()),
        "posters": _safe_json(info.posters),
        "append_command": _safe_json(
            f"cat ~/Downloads/{VERDICTS_NAME} >> {command_text(run_dir / VERDICTS_NAME)}"
        ),
        **_charts(builder, summary),
        "script": script,
        "style": style,
        "script_hash": _csp_hash(script),
        "style_hash": _csp_hash(style),
    }


def _tiles(summary: Summary, builder: ReportBuilder) -> Iterator[tuple[str, str, str]]:
    """Yield numbers of the run as (label, value, explanation)."""
    first_at, last_at = summary.first_submitted_at, summary.last_finished_at
    if first_at is not None and last_at is not None:
        elapsed_s = max(0.0, last_at - first_at)
        longest_s = summary.generate.max_s if summary.generate else 0.0
        idle_s = builder.totals.bins.idle_s(at_least_s=max(_MIN_IDLE_S, 2 * longest_s))
        if 0 < idle_s < elapsed_s:
            yield (
                "at work",
                format_duration(elapsed_s - idle_s),
                "without the times in which nothing happened",
            )
            yield "from the first submission to the last end", format_duration(elapsed_s), ""
        else:
            yield "elapsed", format_duration(elapsed_s), ""
    if summary.generate:
        yield "generation time, median", format_duration(summary.generate.p50_s), ""
        yield "generation time, 90th percentile", format_duration(summary.generate.p90_s), ""
    yield "downloaded", format_size(summary.asset_bytes), ""
    for spend in summary.cost.spend:
        explanation = str(spend).partition(" of which ")[2].partition(";")[0]
        yield "spent", format_money(from_nanos(spend.spent), spend.currency), explanation
    if summary.throttled:
        yield "throttled submissions", f"{summary.throttled:,}", "the API answered with “too many requests”"


def _cost_row(each: SpentOn) -> tuple[str, int, str, str]:
    """Return what was spent on something, and its estimate: what was reserved for the same attempts."""
    spent, estimate = (
        format_money(from_nanos(amount), each.currency) for amount in (each.amount, each.estimate)
    )
    return shorten(each.name, 200), each.attempts, spent, estimate


def _charts(builder: ReportBuilder, summary: Summary) -> dict[str, Markup]:
    binned = builder.totals.bins.binned()
    counts = builder.summary.generate_counts()
    times = histogram(
        {model: counts[model] for model in list(summary.by_model)[:_MAX_MODELS] if counts[model]}
    )
    return {
        "bins": _safe_json(None if binned is None else asdict(binned)),
        "times": _safe_json(None if times is None else asdict(times)),
    }


def _joined(rows: Iterator[bytes]) -> Iterator[Markup]:
    """Yield rows in a few parts, with commas between them: a template takes as long for each part as for a row."""
    comma = b""
    while part := list(islice(rows, 500)):
        yield Markup((comma + b",".join(part)).decode())  # noqa: S704 - escaped before
        comma = b","


def _safe_json(value: Json) -> Markup:
    return Markup(safe_json(value).decode())  # noqa: S704 - escaped there


def _csp_hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def code_spans(text: str) -> Markup:
    """
    Convert text in backticks to code elements, and escape the rest.

    >>> code_spans("use `<x>` & go")
    Markup('use <code>&lt;x&gt;</code> &amp; go')
    """
    parts = re.split("`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in enumerate(parts)
    )


@cache
def _template_source(name: str) -> Markup:
    text = resources.files("runner.report").joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - our own file


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("runner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        minute=_minute,
        duration=format_duration,
        count=format_count,
        number="{:,}".format,
        code_spans=code_spans,
        shorten=shorten,
    )
    return environment


def _minute(utc: str) -> str:
    """
    Return the minute of a time in UTC, which the page's script shows in the reader's time zone.

    >>> _minute("2026-11-21T02:00:01.250Z")
    '2026-11-21 02:00 UTC'
    """
    return f"{utc[:10]} {utc[11:16]} UTC"
