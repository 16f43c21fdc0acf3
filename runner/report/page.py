"""`report.html`: one file that makes no request to any host."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from msgspec import Struct
from msgspec.structs import asdict

from runner.core.advice import advice
from runner.core.lifecycle import State, describe
from runner.core.model import AssetKind, Failure, FailureClass, JobRecord, Json
from runner.core.sanitize import sanitize_text
from runner.core.settings import SIMULATED
from runner.core.summary import Summary, SummaryBuilder, headline
from runner.core.units import format_count, format_duration, format_size
from runner.jsontext import dumps
from runner.report.aggregates import JobSample, TimeBins, histogram
from runner.results.files import atomic_write
from runner.results.formats import utc_text
from runner.results.inline_media import replace_inline_media

MAX_JOBS = 10_000
"""The most jobs that the page lists; its counts and charts include all jobs."""
_MAX_MODELS = 12
_SCRIPTS = ("charts.js", "timeline.js", "jobs.js")


class FailureGroup(Struct, frozen=True):
    """The jobs that share a failure class, with the id and message of the first of them."""

    cls: FailureClass
    jobs: int
    job_id: str
    message: str
    advice: str


def write_report(
    records: Iterable[JobRecord],
    path: Path,
    *,
    run: str,
    gateway: str,
    now_at: float,
    max_jobs: int = MAX_JOBS,
) -> Summary:
    """
    Write the report of a run, reading its jobs once and listing at most ``max_jobs`` of them.

    The file belongs in the run directory, because videos are played from ``assets/`` beside it.
    """
    builder = ReportBuilder(max_jobs)
    for record in records:
        builder.add(record)
    return write_page(builder, path, run=run, gateway=gateway, now_at=now_at)


def write_page(builder: ReportBuilder, path: Path, *, run: str, gateway: str, now_at: float) -> Summary:
    """Write the report of the jobs that were added to a builder."""
    summary = builder.summary.summary()
    # In chunks, because the page of ten thousand jobs has many megabytes.
    chunks = (
        _environment().get_template("report.html").generate(_context(builder, summary, run, gateway, now_at))
    )
    with atomic_write(path) as file:
        for chunk in chunks:
            file.write(chunk.encode("utf-8", "replace"))
    return summary


class ReportBuilder:
    """
    Collects what the report needs from jobs added one by one, so that the caller can use each job too.

    Attributes:
        summary: The summary of the jobs.
    """

    def __init__(self, max_jobs: int = MAX_JOBS) -> None:
        self.summary = SummaryBuilder()
        self.rows: JobSample[_EncodedRow] = JobSample(max_jobs)
        self.bins = TimeBins("succeeded", "other", "throttled")
        self.examples: dict[FailureClass, JobRecord] = {}

    def add(self, record: JobRecord) -> None:
        """Add a job."""
        succeeded = record.state is State.SUCCEEDED
        self.summary.add(record)
        self.rows.add(lambda: _encode(record), succeeded=succeeded)
        if record.finished_at is not None:
            self.bins.add("succeeded" if succeeded else "other", record.finished_at)
        for attempt in record.attempts:
            if attempt.outcome == "throttled":
                self.bins.add("throttled", attempt.submitted_at)
        if record.error is not None and not succeeded:
            self.examples.setdefault(record.error.cls, record)


class _EncodedRow(NamedTuple):
    """A job as JSON for the page's script, which takes a fifth of the memory of a `JobRow`."""

    position: int
    json: Markup


def _encode(record: JobRecord) -> _EncodedRow:
    return _EncodedRow(record.index, _safe_json(list(job_row(record))))


def failure_groups(summary: Summary, examples: dict[FailureClass, JobRecord]) -> Iterator[FailureGroup]:
    """Group the failures of a run by class, most frequent first, each with what to do about it."""
    is_given_up = not summary.by_state[State.UNCERTAIN]
    for cls, jobs in summary.by_class.items():
        example = examples[cls]
        message = example.error.message if example.error else ""
        yield FailureGroup(
            cls,
            jobs,
            _shorten(example.job_id, 200),
            _shorten(message, 500),
            advice(cls, is_given_up=is_given_up),
        )


def _context(
    builder: ReportBuilder, summary: Summary, run: str, gateway: str, now_at: float
) -> dict[str, Json]:
    rows = sorted(builder.rows.items(), key=lambda row: row.position)
    script = Markup("\n").join(map(_template_source, _SCRIPTS))
    style = _template_source("report.css")
    return {
        "run": _shorten(run, 200),
        "gateway": _shorten(gateway, 200),
        "is_simulated": gateway == SIMULATED,
        "generated_at": utc_text(now_at),
        "headline": headline(summary),
        "summary": summary,
        "elapsed_s": _elapsed_s(summary),
        "first_at": utc_text(summary.first_submitted_at),
        "last_at": utc_text(summary.last_finished_at),
        "states": [(state, count, describe(state)) for state, count in summary.by_state.items() if count],
        "models": list(summary.by_model.items())[:_MAX_MODELS],
        "more_models": max(0, len(summary.by_model) - _MAX_MODELS),
        "groups": list(failure_groups(summary, builder.examples)),
        "listed": len(rows),
        "fields": _safe_json(JobRow._fields),
        "jobs": (row.json for row in rows),
        **_charts(builder, summary),
        "script": script,
        "style": style,
        "script_hash": _csp_hash(script),
        "style_hash": _csp_hash(style),
    }


def _charts(builder: ReportBuilder, summary: Summary) -> dict[str, Markup]:
    binned = builder.bins.binned()
    counts = builder.summary.generate_counts()
    times = histogram(
        {model: counts[model] for model in list(summary.by_model)[:_MAX_MODELS] if counts[model]}
    )
    return {
        "bins": _safe_json(None if binned is None else asdict(binned)),
        "times": _safe_json(None if times is None else asdict(times)),
    }


def _elapsed_s(summary: Summary) -> float | None:
    if summary.first_submitted_at is None or summary.last_finished_at is None:
        return None
    return max(0.0, summary.last_finished_at - summary.first_submitted_at)


def _safe_json(value: Json) -> Markup:
    r"""
    Encode a value as JSON that can't contain an HTML tag, a comment or the end of its script element.

    >>> _safe_json({"prompt": "</script><!--"})
    Markup('{"prompt":"\\u003c/script\\u003e\\u003c!--"}')
    """
    text = dumps(value).decode()
    # In JSON these characters occur only inside strings, where the escape is equivalent.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


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
        size=format_size,
        duration=format_duration,
        count=format_count,
        number="{:,}".format,
        code_spans=code_spans,
        shorten=_shorten,
    )
    return environment


_MAX_VALUE_CHARS = 300
_MAX_VALUES = 40


class JobRow(NamedTuple):
    """
    What the page shows of a job. The page's script reads the fields by their names.

    Attributes:
        first_at: Time of the first attempt; this and the other times are in seconds since 1970.
        params: Key and text of each request field except model and prompt.
        metadata: Key and text of each metadata field.
        video: Path of the video relative to the run directory, or None.
        poster: Path of the last frame relative to the run directory, or None.
        video_info: Dimensions, duration and size of the video.
    """

    id: str
    state: str
    model: str
    cls: str | None
    message: str
    prompt: str
    params: list[tuple[str, str]]
    metadata: list[tuple[str, str]]
    first_at: float | None
    submitted_at: float | None
    generate_s: float | None
    download_s: float | None
    finished_at: float | None
    task_id: str
    attempts: int
    throttled: int
    video: str | None
    poster: str | None
    video_info: str


def job_row(record: JobRecord) -> JobRow:
    """Return what the page shows of a job, its texts shortened."""
    # The video may be older than the job's request.
    own = next((asset.request for asset in record.assets if asset.request is not None), record.request)
    request = replace_inline_media(own)
    error = record.error
    return JobRow(
        id=_shorten(record.job_id, 200),
        state=record.state.value,
        model=_shorten(record.model, 200),
        cls=None if error is None else error.cls.value,
        message="" if error is None else _message(error),
        prompt=_shorten(str(request.get("prompt") or ""), 2000),
        params=_pairs({key: value for key, value in request.items() if key not in ("model", "prompt")}),
        metadata=_pairs(record.metadata),
        first_at=_rounded(record.attempts[0].submitted_at if record.attempts else record.submitted_at),
        submitted_at=_rounded(record.submitted_at),
        generate_s=_rounded(record.generate_s),
        download_s=_rounded(record.download_s),
        finished_at=_rounded(record.finished_at),
        task_id=_shorten(record.task_id or "", 200),
        attempts=len(record.attempts),
        throttled=sum(attempt.outcome == "throttled" for attempt in record.attempts),
        video=_path(record, AssetKind.VIDEO),
        poster=_path(record, AssetKind.LAST_FRAME),
        video_info=_video_info(record),
    )


def _shorten(text: str, max_chars: int) -> str:
    return sanitize_text(text, max_chars=max_chars)


def _path(record: JobRecord, kind: AssetKind) -> str | None:
    return next((asset.path for asset in record.assets if asset.kind is kind), None)


def _message(error: Failure) -> str:
    details = _shorten(error.details, 100)
    return _shorten(error.message, 500) + (f" ({details})" if details else "")


def _pairs(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    pairs = [
        (_shorten(str(key), 100), _value_text(value)) for key, value in islice(values.items(), _MAX_VALUES)
    ]
    if len(values) > _MAX_VALUES:
        pairs.append(("…", f"{len(values) - _MAX_VALUES} more"))
    return pairs


def _value_text(value: Json) -> str:
    return _shorten(value if isinstance(value, str) else dumps(value).decode(), _MAX_VALUE_CHARS)


def _video_info(record: JobRecord) -> str:
    for asset in record.assets:
        if asset.kind is AssetKind.VIDEO:
            dimensions = f"{asset.width} × {asset.height}" if asset.width and asset.height else ""
            duration = format_duration(asset.duration_s) if asset.duration_s else ""
            return ", ".join(filter(None, (dimensions, duration, format_size(asset.bytes))))
    return ""


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
