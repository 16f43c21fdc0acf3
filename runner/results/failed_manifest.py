"""
`failed.yaml`: what did not succeed, as a manifest that can be run and pays for nothing twice.

The state of a job decides, as for a rerun:

- failed jobs are written as they were: they are submitted;
- jobs with a task at the API (timed out, undelivered, still running, or named by a person) are written with
  its ``task_id``: they are polled and downloaded, never submitted;
- jobs that may have a paid task with an unknown id (uncertain, lost, written off), or that would be refused
  again (moderation, invalid requests), are written only as comments: a person decides;
- pending jobs are left out: the run itself submits them.

If there is no job to run, there is no file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from functools import lru_cache
from json.encoder import encode_basestring
from pathlib import Path

from msgspec import Struct
from msgspec.structs import fields

from runner.core.filenames import MAX_NAME_CHARS
from runner.core.lifecycle import WITH_A_TASK, State
from runner.core.model import (
    FILE_KEY,
    MAY_HAVE_PAID_TASK,
    NEVER_RESUBMITTED,
    JobRecord,
    Json,
    is_file_reference,
)
from runner.core.money import amount_text
from runner.core.prices import table_json
from runner.core.sanitize import command_text, job_command
from runner.core.settings import Budget, Limits, Settings
from runner.core.units import exact_duration, exact_rate
from runner.results.formats import utc_text

_RERUN = re.compile(r"(.*)-rerun(?:-(\d{1,6}))?", re.ASCII | re.DOTALL)

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_MAX_PLAIN_CHARS = 100
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})
# Characters that are not printable in YAML, and the line breaks of YAML 1.1, which it folds.
_UNPRINTABLE = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"
_LONE_SURROGATE = "[\ud800-\udfff]"

KnownKeys = Callable[[str], AbstractSet[str] | None]
"""Returns the keys of a request in the schema with this name; None if there is no such schema."""


class _EntryKind(Enum):
    """How a job is written."""

    NONE = auto()
    COMMENT = auto()
    WITHOUT_TASK = auto()
    WITH_TASK = auto()


JOBS_KEY = b"jobs:\n"
"""What comes before the first job to run; comments on others may come before it."""


class Entries(Struct, frozen=True):
    """
    What `failed.yaml` says of some jobs that follow each other in the manifest.

    Attributes:
        comments: On jobs that are left out and come before the first one to run.
        jobs: The rest, from that one on.
        count: How many jobs the manifest runs of these.
    """

    comments: bytes
    jobs: bytes
    count: int


def failed_header(
    path: Path,
    *,
    run: str,
    base_url: str | None,
    key_names: Sequence[str],
    settings: Settings | None = None,
    schemas: Sequence[str] = (),
) -> bytes:
    """
    Return the manifest of what did not succeed up to its jobs.

    Args:
        key_names: Names of the environment variables that have the API keys.
        settings: If given, the manifest has the same, such as limits and time-outs.
        schemas: Paths of the user's own schemas.
    """
    head = "".join(_header(path, run, base_url, key_names))
    if schemas:
        head += f"schemas: {yaml_flow([_escaped(schema) for schema in schemas])}\n"
    return (head if settings is None else head + _settings(settings)).encode()


def failed_entries(
    records: Iterable[JobRecord], run_dir: Path, known_keys: KnownKeys | None = None
) -> Entries:
    """
    Return what the manifest says of some jobs.

    Args:
        known_keys: If given, keys of a request that its schema does not have are written under ``extra``.
    """
    comments: list[str] = []
    jobs: list[str] = []
    count = 0
    for record in records:
        entry = _entry(record)
        if entry is _EntryKind.NONE:
            continue
        if entry is _EntryKind.COMMENT:
            (jobs if count else comments).extend(_comment(record, run_dir))
            continue
        count += 1
        jobs.append(_job(record, entry, known_keys))
    return Entries("".join(comments).encode(), "".join(jobs).encode(), count)


def rerun_name(run: str) -> str:
    """
    Return the name of the run of a `failed.yaml`, which gets a directory of its own.

    >>> rerun_name("kittens"), rerun_name("kittens-rerun"), rerun_name("kittens-rerun-2")
    ('kittens-rerun', 'kittens-rerun-2', 'kittens-rerun-3')
    """
    stem, number = run, ""
    match = _RERUN.fullmatch(run)
    if match:
        stem, number = match[1], f"-{int(match[2] or 1) + 1}"
    return f"{stem[: MAX_NAME_CHARS - len('-rerun' + number)]}-rerun{number}"


def _entry(record: JobRecord) -> _EntryKind:
    state = record.state
    if state is State.SUCCEEDED:
        return _EntryKind.NONE
    if state in WITH_A_TASK:
        return _EntryKind.WITH_TASK if record.task_id else _EntryKind.COMMENT
    if state in (State.UNCERTAIN, State.SUBMITTING):
        return _EntryKind.COMMENT
    if state is State.PENDING:
        return _EntryKind.NONE
    if record.error is not None and record.error.cls in NEVER_RESUBMITTED:
        return _EntryKind.COMMENT
    # A job whose task a person named was not submitted by this run, and must not be by the next one.
    if record.task_id and record.attempts and record.attempts[-1].outcome == "attached":
        return _EntryKind.WITH_TASK
    # A job that was removed from the manifest is not to be paid for.
    return _EntryKind.NONE if record.is_gone else _EntryKind.WITHOUT_TASK


def _header(path: Path, run: str, base_url: str | None, key_names: Sequence[str]) -> Iterator[str]:
    yield (
        printable(
            f"# The jobs of run {yaml_text(run)} that did not succeed. To run them: {command_text('runner', 'run', path)}"
        )
        + "\n"
    )
    yield "# Jobs with a task_id are polled and downloaded, which is free; all others are submitted and paid for.\n"
    yield f"# Use either this file or `{command_text('runner', 'rerun', path.parent)}`, not both: neither knows what the other paid for.\n"
    yield "version: 1\n"
    yield f"name: {_literal(rerun_name(run))}\n"
    yield "gateway:\n"
    if base_url is not None:
        yield f"  base_url: {_literal(base_url)}\n"
    yield f"  api_keys: {yaml_flow(list(key_names))}\n"


def _settings(settings: Settings) -> str:
    defaults = Settings(name=settings.name)
    sections: dict[str, Json] = {
        "limits": _limits(settings.limits),
        "poll": _amounts(settings.poll),
        "timeouts": _amounts(settings.timeouts),
        "retry": _amounts(settings.retry),
    }
    if settings.assets != defaults.assets:
        sections["assets"] = _amounts(settings.assets)
    if settings.inputs is not None:
        sections["inputs"] = _amounts(settings.inputs)
    if settings.notify:
        sections["notify"] = [_amounts(notify) for notify in settings.notify]
    for name, checks in (("checks", settings.checks), ("reject", settings.reject)):
        if checks:
            sections[name] = [check.value for check in checks]
    if settings.on_asset is not None:
        sections["on_asset"] = _amounts(settings.on_asset)
    if settings.reroll:
        sections["reroll"] = settings.reroll
    if settings.prices is not None:
        sections["prices"] = table_json(settings.prices)
    if settings.budget is not None:
        sections["budget"] = _budget(settings.budget)
    if settings.canary is not None:
        sections["canary"] = {"jobs": settings.canary.jobs, "succeed": settings.canary.succeed}
    return "".join(f"{name}: {yaml_flow(value)}\n" for name, value in sections.items())


def _budget(budget: Budget) -> dict[str, Json]:
    amounts = {
        name: f"{amount_text(money.amount)} {money.currency}"
        for name in ("run", "day", "month", "unknown")
        if (money := getattr(budget, name)) is not None
    }
    ledger = {} if budget.ledger is None else {"ledger": budget.ledger}
    return {**amounts, **ledger, "failed": budget.failed}


def _limits(limits: Limits) -> dict[str, Json]:
    models = {
        model: {
            **({} if own.in_flight is None else {"in_flight": own.in_flight}),
            **({} if own.submit_per_s is None else {"submit": exact_rate(own.submit_per_s)}),
        }
        for model, own in limits.models.items()
    }
    bounds: dict[str, Json] = {
        "submit": exact_rate(limits.submit_per_s),
        "poll": exact_rate(limits.poll_per_s),
        "in_flight": limits.in_flight,
        "downloads": limits.downloads,
        "upload": exact_rate(limits.upload_per_s),
        "uploads": limits.uploads,
    }
    return {**bounds, "models": models} if models else bounds


def _amounts(section: Struct) -> dict[str, Json]:
    """Return a section of the settings as a manifest has it, without what is not set."""
    values: dict[str, Json] = {}
    for field in fields(section):
        value = getattr(section, field.name)
        if value is None:
            continue
        if field.name == "max_bytes":
            values["max_size"] = f"{value}B"
        elif field.name == "least_bytes_per_s":
            values["least_speed"] = f"{value:.0f}B/s"
        elif field.name.endswith("_s"):
            values[field.name.removesuffix("_s")] = exact_duration(value)
        else:
            values[field.name] = value
    return values


def _comment(record: JobRecord, run_dir: Path) -> Iterator[str]:
    if record.error is not None and record.error.cls in NEVER_RESUBMITTED - MAY_HAVE_PAID_TASK:
        yield f"  # Left out: {_described(record)}\n"
        yield "  #   It would be refused again: correct it, and give it a new id.\n"
        return
    sent_at = utc_text(record.attempts[-1].submitted_at if record.attempts else record.submitted_at)
    yield f"  # Left out: {_described(record)}\n"
    yield f"  #   It may have been paid for: sent {sent_at or 'at an unknown time'}, model {yaml_text(record.model)}"
    yield f", task {yaml_text(record.task_id)}.\n" if record.task_id else ".\n"
    if record.state in (State.UNCERTAIN, State.SUBMITTING):
        resolve = job_command("resolve", run_dir, record.job_id, "--task-id", "ID")
        yield f"  #   Look in the account, then: {resolve} (or --not-submitted)\n"


def _job(record: JobRecord, entry: _EntryKind, known_keys: KnownKeys | None) -> str:
    request, extra = _split(record, known_keys)
    lines = [f"  - id: {_literal(record.job_id)}  # {_described(record)}"]
    if entry is _EntryKind.WITH_TASK:
        lines.append(f"    task_id: {_literal(record.task_id or '')}")
    if record.schema:
        lines.append(f"    schema: {_literal(record.schema)}")
    lines.append("    request:")
    lines += [f"      {yaml_text(key)}: {yaml_flow(_escaped(value))}" for key, value in request.items()]
    if extra:
        lines.append(f"    extra: {yaml_flow(_escaped(extra))}")
    if record.metadata:
        lines.append(f"    metadata: {yaml_flow(_escaped(record.metadata))}")
    if record.timeout_s is not None:
        lines.append(f"    timeout: {exact_duration(record.timeout_s)}")
    lines.append("")
    return "\n".join(lines)


def _described(record: JobRecord) -> str:
    """Return the job's id, its state and its failure, in one line."""
    parts = [record.state.value]
    if record.error is not None:
        code = f" ({record.error.code})" if record.error.code else ""
        parts.append(f"{record.error.cls}{code}: {record.error.message[:300]}")
    return printable(" ".join(f"{yaml_text(record.job_id)} {', '.join(parts)}".split()))


def _split(record: JobRecord, known_keys: KnownKeys | None) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    known = None if known_keys is None else known_keys(record.schema)
    if known is None or record.request.keys() <= known:
        return record.request, {}
    request = {key: value for key, value in record.request.items() if key in known}
    return request, {key: value for key, value in record.request.items() if key not in known}


def _escaped(value: Json) -> Json:
    """Return the value as a manifest has it: placeholders are escaped, local files are paths."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        if is_file_reference(value):
            return _escaped(value[FILE_KEY])
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value


def _literal(value: str) -> str:
    return yaml_text(value.replace("${", "$${"))


def yaml_flow(value: Json) -> str:
    """
    Return a value as YAML, on one line.

    Text is plain only if it is text in every version of YAML, and otherwise in double quotes, in which
    JSON's escapes are YAML's too. So any reader reads the same value.

    >>> yaml_flow({"ratio": "16:9", "ok": "no", "count": 5, "tags": ["a", "小猫"], "none": None})
    '{ratio: "16:9", ok: "no", count: 5, tags: [a, "小猫"], none: null}'
    """
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{yaml_text(str(key))}: {yaml_flow(item)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(yaml_flow, value)) + "]"
    if isinstance(value, str):
        return yaml_text(value)
    return _number(value) if isinstance(value, float) else json.dumps(value)


def _number(value: float) -> str:
    """
    Return a float as YAML.

    >>> _number(0.5), _number(1e-7), _number(float("-inf"))
    ('0.5', '1.0e-07', '-.inf')
    """
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    # In YAML 1.1, 1e-07 is text: numbers have a point.
    mantissa, mark, exponent = repr(value).partition("e")
    return f"{mantissa}.0e{exponent}" if mark and "." not in mantissa else repr(value)


def yaml_text(value: str) -> str:
    r"""
    Return text as YAML, on one line; quoted unless it can only be text.

    >>> print(yaml_text("wan2.7-i2v"), yaml_text("no"), yaml_text("a\nb"), yaml_text("2026-11-21"))
    wan2.7-i2v "no" "a\nb" "2026-11-21"
    """
    return _short_text(value) if len(value) <= _MAX_PLAIN_CHARS else _quoted_text(value)


# A million jobs have the same few keys, models and sizes.
@lru_cache(maxsize=256)
def _short_text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return _quoted_text(value)


def _quoted_text(value: str) -> str:
    return printable(encode_basestring(value))


def printable(line: str) -> str:
    """Escape what YAML does not allow even in a comment; a lone surrogate, which has no UTF-8, becomes ``?``."""
    if line.isprintable():
        return line
    line = re.sub(_LONE_SURROGATE, "?", line)
    return re.sub(_UNPRINTABLE, lambda match: f"\\u{ord(match[0]):04x}", line)
