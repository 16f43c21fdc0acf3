"""A step summary for GitHub Actions: Markdown, well under the 1 MiB that a step may write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from runner.core.advice import advice
from runner.core.lifecycle import State
from runner.core.model import JobRecord
from runner.core.summary import Summary
from runner.report.words import duration_text, outcome_text, plain, size_text

# GitHub shows nothing at all of a step that writes over 1 MiB. A hundred jobs of at most
# 500 characters, each of up to 6 bytes as a reference, stay far below it.
_MOST_LISTED = 100
_SPECIAL = re.compile(r"[!-+./:<-@\[-`{-~]")


def step_summary(summary: Summary, not_succeeded: Iterable[JobRecord], *, run: str) -> str:
    """
    Say in Markdown how a run went: counts, failures by class with what to do, and the first jobs behind them.

    No more of the jobs are read than are listed.
    """
    return "\n".join(_lines(summary, not_succeeded, run)) + "\n"


def _lines(summary: Summary, not_succeeded: Iterable[JobRecord], run: str) -> Iterator[str]:
    yield f"## {_text(run, 200)}"
    yield ""
    yield outcome_text(summary.by_state[State.SUCCEEDED], summary.jobs)
    yield ""
    yield "| | |"
    yield "|---|---:|"
    yield from _counts(summary)
    if summary.by_class:
        yield ""
        yield "| failure | jobs | what to do |"
        yield "|---|---:|---|"
        for cls, jobs in summary.by_class.items():
            yield f"| `{cls}` | {jobs:,} | {advice(cls)} |"
    yield from _jobs(summary, not_succeeded)


def _counts(summary: Summary) -> Iterator[str]:
    for state, count in summary.by_state.items():
        if count:
            yield f"| {state.replace('_', ' ')} | {count:,} |"
    if summary.generate:
        yield f"| to generate, median | {duration_text(summary.generate.p50_s)} |"
        yield f"| to generate, 90th percentile | {duration_text(summary.generate.p90_s)} |"
    yield f"| delivered | {size_text(summary.asset_bytes)} |"


def _jobs(summary: Summary, not_succeeded: Iterable[JobRecord]) -> Iterator[str]:
    behind = summary.jobs - summary.by_state[State.SUCCEEDED]
    if not behind:
        return
    listed = f"the first {_MOST_LISTED} of {behind:,}" if behind > _MOST_LISTED else f"{behind:,}"
    yield ""
    yield f"<details><summary>Jobs that did not succeed: {listed}</summary>"
    yield ""
    yield "| job | model | state | reason |"
    yield "|---|---|---|---|"
    for place, record in enumerate(not_succeeded):
        if place >= _MOST_LISTED:
            break
        reason = "" if record.error is None else f"{record.error.cls}: {record.error.message}"
        cells = (
            _text(record.job_id, 100),
            _text(record.model, 100),
            record.state.replace("_", " "),
            _text(reason, 300),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "</details>"


def _text(text: str, most: int) -> str:
    r"""
    Write foreign text so that Markdown shows it as it is: what could be markup becomes a character reference.

    >>> _text("a|b\n<b>*x*", 100)
    'a&#124;b &#60;b&#62;&#42;x&#42;'
    """
    one_line = " ".join(plain(text, most).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", one_line)
