"""JUnit XML of a run, for CI services."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from runner.core.advice import advice
from runner.core.cost import cost_json
from runner.core.lifecycle import State
from runner.core.model import JobRecord
from runner.core.sanitize import sanitize_text
from runner.core.summary import Summary
from runner.results.formats import utc_text
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
