"""The step summary of a run for GitHub Actions, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from runner.core.advice import advice
from runner.core.lifecycle import State
from runner.core.model import JobRecord
from runner.core.sanitize import sanitize_text
from runner.core.summary import Summary, headline
from runner.core.units import format_duration, format_size

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
