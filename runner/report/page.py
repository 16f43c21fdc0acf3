"""`report.html`: one file that asks no other host for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from msgspec import Struct
from msgspec.structs import asdict

from runner.core.advice import advice
from runner.core.lifecycle import State, describe
from runner.core.model import AssetKind, FailureClass, JobRecord, Json
from runner.core.summary import Summary, SummaryBuilder
from runner.jsontext import dumps
from runner.report.aggregates import JobSample, TimeBins, histogram
from runner.report.words import duration_text, outcome_text, plain, size_text
from runner.results.files import atomic_write
from runner.results.formats import utc_text
from runner.results.inline_media import replace_inline_media

MOST_JOBS = 10_000
"""Jobs that a page shows one by one; counts and charts are of all, however many."""
_MOST_MODELS = 12
_SCRIPTS = ("charts.js", "timeline.js", "jobs.js")


class FailureGroup(Struct, frozen=True):
    """The jobs that share a class of failure, with the first of them as an example."""

    cls: FailureClass
    jobs: int
    job_id: str
    message: str
    advice: str


def write_report(
    records: Iterable[JobRecord],
    out: Path,
    *,
    run: str,
    gateway: str,
    now_at: float,
    most_jobs: int = MOST_JOBS,
) -> Summary:
    """
    Draw the report of a run, reading its jobs once and keeping at most ``most_jobs`` of them.

    It is to stand in the run directory: videos play from ``assets/`` beside it.
    """
    page = ReportBuilder(most_jobs)
    for record in records:
        page.add(record)
    return write_page(page, out, run=run, gateway=gateway, now_at=now_at)


def write_page(page: ReportBuilder, out: Path, *, run: str, gateway: str, now_at: float) -> Summary:
    """Draw the report of the jobs that were taken in."""
    summary = page.summary.summary()
    # Piece by piece: of ten thousand jobs the whole page has many megabytes, and would be there more than once.
    pieces = (
        _environment().get_template("report.html").generate(_context(page, summary, run, gateway, now_at))
    )
    with atomic_write(out) as file:
        for piece in pieces:
            file.write(piece.encode("utf-8", "replace"))
    return summary


class ReportBuilder:
    """
    Takes the jobs in one by one and keeps what the page needs of them, for a reader that has other use of them too.

    Attributes:
        summary: What they come to.
    """

    def __init__(self, most_jobs: int = MOST_JOBS) -> None:
        self.summary = SummaryBuilder()
        self.rows: JobSample[_Shown] = JobSample(most_jobs)
        self.bins = TimeBins("succeeded", "other", "throttled")
        self.examples: dict[FailureClass, JobRecord] = {}

    def add(self, record: JobRecord) -> None:
        """Take in a job."""
        succeeded = record.state is State.SUCCEEDED
        self.summary.add(record)
        self.rows.offer(lambda: _shown(record), succeeded=succeeded)
        if record.finished_at is not None:
            self.bins.add("succeeded" if succeeded else "other", record.finished_at)
        for attempt in record.attempts:
            if attempt.outcome == "throttled":
                self.bins.add("throttled", attempt.submitted_at)
        if record.error is not None and not succeeded:
            self.examples.setdefault(record.error.cls, record)


class _Shown(NamedTuple):
    """A job's card as the page's script reads it, ready to be written: a fifth of what the card itself takes."""

    place: int
    text: Markup


def _shown(record: JobRecord) -> _Shown:
    return _Shown(record.index, _safe_json(list(job_row(record))))


def failure_groups(summary: Summary, examples: dict[FailureClass, JobRecord]) -> Iterator[FailureGroup]:
    """Put the failures of a run together by class, most frequent first, each with what to do about it."""
    for cls, jobs in summary.by_class.items():
        example = examples[cls]
        message = example.error.message if example.error else ""
        yield FailureGroup(cls, jobs, plain(example.job_id, 200), plain(message, 500), advice(cls))


def _context(page: ReportBuilder, summary: Summary, run: str, gateway: str, now_at: float) -> dict[str, Json]:
    cards = sorted(page.rows.chosen(), key=lambda shown: shown.place)
    script = Markup("\n").join(map(_source, _SCRIPTS))
    style = _source("report.css")
    return {
        "run": plain(run, 200),
        "gateway": plain(gateway, 200),
        "made_at": utc_text(now_at),
        "verdict": outcome_text(summary.by_state[State.SUCCEEDED], summary.jobs),
        "summary": summary,
        "elapsed_s": _elapsed_s(summary),
        "first_at": utc_text(summary.first_submitted_at),
        "last_at": utc_text(summary.last_finished_at),
        "states": [(state, count, describe(state)) for state, count in summary.by_state.items() if count],
        "models": list(summary.by_model.items())[:_MOST_MODELS],
        "more_models": max(0, len(summary.by_model) - _MOST_MODELS),
        "groups": list(failure_groups(summary, page.examples)),
        "shown": len(cards),
        "fields": _safe_json(JobRow._fields),
        "jobs": (shown.text for shown in cards),
        **_charts(page, summary),
        "script": script,
        "style": style,
        "script_hash": _csp_hash(script),
        "style_hash": _csp_hash(style),
    }


def _charts(page: ReportBuilder, summary: Summary) -> dict[str, Markup]:
    bins = page.bins.bins()
    counts = page.summary.generate_counts()
    times = histogram(
        {model: counts[model] for model in list(summary.by_model)[:_MOST_MODELS] if counts[model]}
    )
    return {
        "bins": _safe_json(None if bins is None else asdict(bins)),
        "times": _safe_json(None if times is None else asdict(times)),
    }


def _elapsed_s(summary: Summary) -> float | None:
    if summary.first_submitted_at is None or summary.last_finished_at is None:
        return None
    return max(0.0, summary.last_finished_at - summary.first_submitted_at)


def _safe_json(value: Json) -> Markup:
    r"""
    Write JSON that no HTML parser takes for a tag, a comment or the end of its script element.

    >>> _safe_json({"prompt": "</script><!--"})
    Markup('{"prompt":"\\u003c/script\\u003e\\u003c!--"}')
    """
    text = dumps(value).decode()
    # These characters occur in JSON only inside strings, where the escape means the same.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _csp_hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def code_spans(text: str) -> Markup:
    """
    Set what stands between backticks as code, and escape the rest.

    >>> code_spans("use `<x>` & go")
    Markup('use <code>&lt;x&gt;</code> &amp; go')
    """
    parts = re.split("`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


@cache
def _source(name: str) -> Markup:
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
        size=size_text, duration=duration_text, code_spans=code_spans, plain=plain, number="{:,}".format
    )
    return environment


_LONGEST_VALUE = 300
_MOST_VALUES = 40


class JobRow(NamedTuple):
    """
    What the page knows of a job. The page's script reads the fields by their names.

    Attributes:
        place: In the manifest, from 0.
        first_at: When its first attempt was made; the other times likewise in seconds since 1970.
        params: The request but for model and prompt, and ``metadata`` likewise: key and text.
        video: Path of the video, relative to the run directory, or None.
    """

    place: int
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
    facts: str


def job_row(record: JobRecord) -> JobRow:
    """Shorten a job to what the page shows of it."""
    video = _path(record, AssetKind.VIDEO)
    request = replace_inline_media(record.request)
    error = record.error
    return JobRow(
        place=record.index,
        id=plain(record.job_id, 200),
        state=record.state.value,
        model=plain(record.model, 200),
        cls=None if error is None else error.cls.value,
        message="" if error is None else _message(error.message, error.code, error.http_status),
        prompt=plain(str(request.get("prompt") or "")),
        params=_pairs({key: value for key, value in request.items() if key not in ("model", "prompt")}),
        metadata=_pairs(record.metadata),
        first_at=_rounded(record.attempts[0].submitted_at if record.attempts else record.submitted_at),
        submitted_at=_rounded(record.submitted_at),
        generate_s=_rounded(record.generate_s),
        download_s=_rounded(record.download_s),
        finished_at=_rounded(record.finished_at),
        task_id=plain(record.task_id or "", 200),
        attempts=len(record.attempts),
        throttled=sum(attempt.outcome == "throttled" for attempt in record.attempts),
        video=video,
        poster=_path(record, AssetKind.LAST_FRAME),
        facts=_facts(record),
    )


def _path(record: JobRecord, kind: AssetKind) -> str | None:
    return next((asset.path for asset in record.assets if asset.kind is kind), None)


def _message(message: str, code: str | None, http_status: int | None) -> str:
    known = ", ".join(filter(None, (plain(code or "", 100), f"HTTP {http_status}" if http_status else "")))
    return plain(message, 500) + (f" ({known})" if known else "")


def _pairs(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    pairs = [(plain(str(key), 100), _shown_card(value)) for key, value in list(values.items())[:_MOST_VALUES]]
    if len(values) > _MOST_VALUES:
        pairs.append(("…", f"{len(values) - _MOST_VALUES} more"))
    return pairs


def _shown_card(value: Json) -> str:
    text = value if isinstance(value, str) else dumps(value).decode()
    return plain(text, _LONGEST_VALUE)


def _facts(record: JobRecord) -> str:
    """Say of the video what its file says of itself."""
    for asset in record.assets:
        if asset.kind is AssetKind.VIDEO:
            shape = f"{asset.width} × {asset.height}" if asset.width and asset.height else ""
            length = f"{asset.duration_s:.1f} s" if asset.duration_s else ""
            return _joined((shape, length, f"{asset.bytes / 1e6:.1f} MB"))
    return ""


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
