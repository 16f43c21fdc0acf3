"""`summary.json`, and the same value as the one line of `run --json`."""

from __future__ import annotations

from pathlib import Path

from runner.core.durations import Durations
from runner.core.model import Json
from runner.core.summary import Summary
from runner.jsontext import dumps
from runner.results.line import SCHEMA_VERSION, utc_text
from runner.results.whole_file import whole_file


def summary_json(summary: Summary, *, run: str, gateway: str) -> dict[str, Json]:
    """Say what a run came to in the shape that other programs read; every status has its count, zeros included."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "gateway": gateway,
        "jobs": summary.jobs,
        "by_status": {state.value: count for state, count in summary.by_state.items()},
        "by_class": {cls.value: count for cls, count in summary.by_class.items()},
        "by_model": {
            name: {
                "jobs": model.jobs,
                "by_status": {state.value: count for state, count in model.by_state.items() if count},
                "generate_s": _durations(model.generate),
            }
            for name, model in summary.by_model.items()
        },
        "generate_s": _durations(summary.generate),
        "download_s": _durations(summary.download),
        "assets": summary.assets,
        "asset_bytes": summary.asset_bytes,
        "attempts": summary.attempts,
        "throttled": summary.throttled,
        "polls": summary.polls,
        "warnings": summary.warnings,
        "first_submitted_at": utc_text(summary.first_submitted_at),
        "last_finished_at": utc_text(summary.last_finished_at),
    }


def write_summary(path: Path, summary: Summary, *, run: str, gateway: str) -> None:
    """Write `summary.json`, whole and durable."""
    with whole_file(path) as file:
        file.write(dumps(summary_json(summary, run=run, gateway=gateway)) + b"\n")


def _durations(durations: Durations | None) -> Json:
    if durations is None:
        return None
    return {
        "count": durations.count,
        "mean": round(durations.mean_s, 3),
        "p50": round(durations.p50_s, 3),
        "p90": round(durations.p90_s, 3),
        "max": round(durations.max_s, 3),
    }
