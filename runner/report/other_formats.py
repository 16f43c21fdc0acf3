"""Reports for other programs: JUnit XML, step summaries for GitHub Actions, and CSV."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from runner.core.advice import advice
from runner.core.cost import cost_json
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, JobRecord, Json, Verdicts
from runner.core.sanitize import sanitize_text
from runner.core.summary import Summary, headline
from runner.core.units import format_duration, format_size
from runner.jsontext import dumps
from runner.results.formats import utc_text
from runner.results.inline_media import replace_inline_media
from runner.results.writers import atomic_write

# What XML 1.0 does not allow, not even as a reference.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, records: Iterable[JobRecord], summary: Summary, *, run: str) -> None:
    """
    Write the jobs of a run as one test suite, streamed.

    A failed job is a failure. A job that is uncertain, undelivered, timed out or not finished is an error,
    because there is something left to do. A pending job is skipped.
    """
    with atomic_write(path) as file:
        for line in _lines(records, summary, run):
            file.write(line.encode())


def _lines(records: Iterable[JobRecord], summary: Summary, run: str) -> Iterator[str]:
    states = summary.by_state
    skipped, failures = states[State.PENDING], states[State.FAILED]
    counts: dict[str, str | int] = {
        "name": run,
        "tests": summary.jobs,
        "failures": failures,
        "errors": summary.jobs - states[State.SUCCEEDED] - failures - skipped,
        "skipped": skipped,
        "timestamp": (utc_text(summary.first_submitted_at) or "").removesuffix("Z"),
    }
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
    yield f"<testsuite{_attributes({key: value for key, value in counts.items() if value != ''})}>\n"
    yield _properties(
        {
            f"cost.{spend.currency}.{name}": amount
            for spend in summary.cost.spend
            for name, amount in spend.json().items()
            if name != "currency"
        }
    )
    for record in records:
        yield _case(record)
    yield "</testsuite>\n</testsuites>\n"


def _case(record: JobRecord) -> str:
    time_s = (record.generate_s or 0) + (record.download_s or 0)
    head = _attributes({"classname": record.model, "name": record.job_id, "time": f"{time_s:.3f}"})
    cost = cost_json(record.costs)
    result = _properties(
        {} if cost is None else {f"cost.{name}": str(value) for name, value in cost.items() if value}
    )
    result += _result(record)
    return f"<testcase{head}>{result}</testcase>\n" if result else f"<testcase{head}/>\n"


def _properties(values: dict[str, str]) -> str:
    if not values:
        return ""
    properties = (
        f"<property{_attributes({'name': name, 'value': value})}/>" for name, value in values.items()
    )
    return f"<properties>{''.join(properties)}</properties>"


def _result(record: JobRecord) -> str:
    if record.state is State.SUCCEEDED:
        return ""
    if record.state is State.PENDING:
        return "<skipped/>"
    tag = "failure" if record.state is State.FAILED else "error"
    if record.error is None:
        return f"<{tag}{_attributes({'type': record.state.value})}/>"
    attributes = _attributes({"type": record.error.cls.value, "message": record.error.message})
    task = f"\ntask: {record.task_id}" if record.task_id else ""
    what_to_do = advice(record.error.cls, is_given_up=record.state is State.FAILED)
    return f"<{tag}{attributes}>{escape(_legal(what_to_do + task))}</{tag}>"


def _attributes(values: dict[str, str | int]) -> str:
    return "".join(f" {key}={quoteattr(_legal(str(value)))}" for key, value in values.items())


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", sanitize_text(text, max_chars=2000))


# GitHub shows no summary over 1 MiB at all. A hundred jobs of at most 500 characters, each
# written as a reference of up to 6 bytes, stay far below that.
_MAX_LISTED = 100
_SPECIAL = re.compile(r"[!-+./:<-@\[-`{-~]")


def step_summary(summary: Summary, unsuccessful: Iterable[JobRecord], *, run: str) -> str:
    """
    Summarize a run in Markdown: counts, failures by class with what to do, and the first jobs that failed.

    Args:
        unsuccessful: The jobs that did not succeed; no more of them are read than are listed.
    """
    return "\n".join(_summary_lines(summary, unsuccessful, run)) + "\n"


def _summary_lines(summary: Summary, unsuccessful: Iterable[JobRecord], run: str) -> Iterator[str]:
    yield f"## {_markdown_text(run, 200)}"
    yield ""
    yield headline(summary)
    yield ""
    yield "| | |"
    yield "|---|---:|"
    yield from _counts(summary)
    if summary.by_class:
        yield ""
        yield "| failure | jobs | what to do |"
        yield "|---|---:|---|"
        for cls, jobs in summary.by_class.items():
            yield f"| `{cls}` | {jobs:,} | {advice(cls, is_given_up=not summary.by_state[State.UNCERTAIN])} |"
    yield from _jobs(summary, unsuccessful)


def _counts(summary: Summary) -> Iterator[str]:
    for state, count in summary.by_state.items():
        if count:
            yield f"| {state.label} | {count:,} |"
    if summary.generate:
        yield f"| generation time, median | {format_duration(summary.generate.p50_s)} |"
        yield f"| generation time, 90th percentile | {format_duration(summary.generate.p90_s)} |"
    yield f"| downloaded | {format_size(summary.asset_bytes)} |"


def _jobs(summary: Summary, unsuccessful: Iterable[JobRecord]) -> Iterator[str]:
    total = summary.jobs - summary.by_state[State.SUCCEEDED]
    if not total:
        return
    listed = f"the first {_MAX_LISTED} of {total:,}" if total > _MAX_LISTED else f"{total:,}"
    yield ""
    yield f"<details><summary>Jobs that did not succeed: {listed}</summary>"
    yield ""
    yield "| job | model | state | reason |"
    yield "|---|---|---|---|"
    for record in islice(unsuccessful, _MAX_LISTED):
        reason = "" if record.error is None else f"{record.error.cls}: {record.error.message}"
        cells = (
            _markdown_text(record.job_id, 100),
            _markdown_text(record.model, 100),
            record.state.label,
            _markdown_text(reason, 300),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "</details>"


def _markdown_text(text: str, max_chars: int) -> str:
    r"""
    Escape foreign text for a cell of a Markdown table: what could be markup becomes a character reference.

    >>> _markdown_text("a|b\n<b>*x*", 100)
    'a&#124;b &#60;b&#62;&#42;x&#42;'
    """
    one_line = " ".join(sanitize_text(text, max_chars=max_chars).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", one_line)


MAX_KEYS = 1_000
"""Of metadata and requests together: a spreadsheet has 16,384 columns."""
_MAX_CELL_CHARS = 32_000
"""A cell of a spreadsheet holds 32,767."""
# A spreadsheet computes a text that starts like this, after what it skips; the last four are as wide as Chinese letters.
_FORMULA = re.compile(r"""[\s"']*[=+\-@＝＋－＠]|[\t\n]""")


class TooManyKeys(Exception):
    """The jobs have too many different keys for a table."""


def write_csv(path: Path, read_jobs: Callable[[], Iterable[JobRecord]], verdicts: Verdicts) -> None:
    """
    Write one row per job, with a column for each key of its metadata and its request.

    Texts that a spreadsheet would compute as formulas start with an apostrophe, which makes them text there.

    Args:
        read_jobs: Is called twice: for the columns and for the rows.
        verdicts: For the column of that name.

    Raises:
        TooManyKeys: There are more than `MAX_KEYS` keys.
    """
    metadata, request = _keys(read_jobs())
    with atomic_write(path) as file:
        writer = csv.writer(codecs.getwriter("utf-8")(file, "replace"))
        names = [*(f"metadata.{key}" for key in metadata), *(f"request.{key}" for key in request)]
        writer.writerow(map(_cell, [*_OWN_COLUMNS, *names]))
        for record in read_jobs():
            own = _own_values(record, verdicts.of(record))
            body = replace_inline_media(record.request)
            rest = [*(record.metadata.get(key) for key in metadata), *(body.get(key) for key in request)]
            writer.writerow(map(_cell, [*own, *rest]))


_OWN_COLUMNS = (
    "job_id",
    "index",
    "status",
    "class",
    "message",
    "verdict",
    "model",
    "prompt",
    "video",
    "bytes",
    "sha256",
    "width",
    "height",
    "duration_s",
    "last_frame",
    "task_id",
    "submitted_at",
    "completed_at",
    "finished_at",
    "generate_s",
    "download_s",
    "attempts",
    "warnings",
)


def _own_values(record: JobRecord, verdict: str | None) -> tuple[Json, ...]:
    video, last_frame = _asset(record, AssetKind.VIDEO), _asset(record, AssetKind.LAST_FRAME)
    about_video = (
        (None,) * 6
        if video is None
        else (video.url or video.path, video.bytes, video.sha256, video.width, video.height, video.duration_s)
    )
    return (
        record.job_id,
        record.index,
        record.state.value,
        None if record.error is None else record.error.cls.value,
        None if record.error is None else record.error.message,
        verdict,
        record.model,
        record.request.get("prompt"),
        *about_video,
        None if last_frame is None else last_frame.url or last_frame.path,
        record.task_id,
        utc_text(record.submitted_at),
        utc_text(record.completed_at),
        utc_text(record.finished_at),
        record.generate_s,
        record.download_s,
        len(record.attempts),
        "\n".join(record.warnings) or None,
    )


def _asset(record: JobRecord, kind: AssetKind) -> Asset | None:
    return next((asset for asset in record.assets if asset.kind is kind), None)


def _keys(jobs: Iterable[JobRecord]) -> tuple[list[str], list[str]]:
    """Return the keys of the metadata and of the requests, in the order in which they come."""
    metadata: dict[str, None] = {}
    request: dict[str, None] = {}
    for record in jobs:
        metadata.update(dict.fromkeys(record.metadata))
        request.update(dict.fromkeys(key for key in record.request if key not in ("model", "prompt")))
        if len(metadata) + len(request) > MAX_KEYS:
            raise TooManyKeys
    return list(metadata), list(request)


def _cell(value: Json) -> Json:
    r"""
    Return a value as it is written: numbers as they are, texts so that no spreadsheet computes them.

    >>> _cell("=1+1"), _cell(" @SUM(A1)"), _cell(-5), _cell(True), _cell(["a"])
    ("'=1+1", "' @SUM(A1)", -5, 'true', '["a"]')
    """
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = value if isinstance(value, str) else dumps(value).decode()
    text = sanitize_text(text, max_chars=_MAX_CELL_CHARS)
    return f"'{text}" if _FORMULA.match(text) else text
