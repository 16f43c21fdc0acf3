"""Metrics in the Prometheus text format, for the textfile collector of the node exporter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from runner.core.cost import Spend
from runner.core.summary import DurationSummary, Summary
from runner.engine.events import Snapshot
from runner.results.writers import atomic_write

_Sample = tuple[dict[str, str], float | str] | tuple[dict[str, str], float | str, str]
"""Labels and a value; and what is added to the name of the family, if anything is."""
_Families = list[tuple[str, str, list[_Sample]]]
_JOBS = "Jobs of the run by state."
_COST = "What the run spent and reserved, by currency and state."


def write_metrics(path: Path, summary: Summary, *, run: str, exit_code: int, now_at: float) -> None:
    """Write the metrics of a run to a file that appears complete, as the collector of the node exporter requires."""
    families: _Families = [
        ("jobs", _JOBS, _by("state", summary.by_state.items())),
        ("failures", "Jobs that did not succeed by class.", _by("class", summary.by_class.items())),
        (
            "model_jobs",
            "Jobs of the run by model.",
            _by("model", ((name, model.jobs) for name, model in summary.by_model.items())),
        ),
        ("generate_seconds", "Time to generate a video.", _quantiles(summary.generate)),
        ("download_seconds", "Time to download the assets of a job.", _quantiles(summary.download)),
        ("asset_bytes", "Bytes of the downloaded assets.", [({}, summary.asset_bytes)]),
        ("throttled_answers", "Submissions answered with 'too many requests'.", [({}, summary.throttled)]),
        ("cost", _COST, _costs(summary.cost.spend)),
        ("exit_code", "Exit code of the process; 0 if every job succeeded.", [({}, exit_code)]),
        ("last_end_timestamp_seconds", "Time when the process ended.", [({}, now_at)]),
    ]
    _write(path, families, run)


def write_live_metrics(path: Path, snapshot: Snapshot, *, run: str, now_at: float) -> None:
    """Write the metrics of a run that is active, as `write_metrics` does at its end."""
    families: _Families = [
        ("jobs", _JOBS, _by("state", snapshot.counts.items())),
        ("in_flight", "Remote tasks that exist.", [({}, snapshot.in_flight)]),
        ("downloads", "Downloads in progress.", [({}, len(snapshot.downloads))]),
        ("allowed_submissions_per_second", "Rate that is allowed now.", [({}, snapshot.submit_per_s)]),
        ("submissions_per_second", "Rate over the last minute.", [({}, round(snapshot.accepted_per_s, 4))]),
        ("cost", _COST, _costs(snapshot.spend)),
        ("last_update_timestamp_seconds", "Time of these values.", [({}, now_at)]),
    ]
    if snapshot.seconds_left is not None:
        families.append(("left_seconds", "Estimated time left.", [({}, round(snapshot.seconds_left))]))
    _write(path, families, run)


def _write(path: Path, families: _Families, run: str) -> None:
    with atomic_write(path) as file:
        for name, description, samples in families:
            file.write("".join(_family(name, description, samples, run)).encode("utf-8", "replace"))


def _family(name: str, description: str, samples: list[_Sample], run: str) -> Iterator[str]:
    # A rerun may decrease the numbers of a run, so that none is a counter.
    kind = "summary" if any("quantile" in labels for labels, *_ in samples) else "gauge"
    yield f"# HELP runner_run_{name} {description}\n# TYPE runner_run_{name} {kind}\n"
    for labels, value, *suffix in samples:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"run": run, **labels}.items())
        yield f"runner_run_{name}{''.join(suffix)}{{{pairs}}} {value}\n"


def _by(label: str, counts: Iterable[tuple[str, int]]) -> list[_Sample]:
    return [({label: str(name)}, count) for name, count in counts]


def _quantiles(durations: DurationSummary | None) -> list[_Sample]:
    if durations is None:
        return []
    values = {"0.5": durations.p50_s, "0.9": durations.p90_s, "1": durations.max_s}
    return [
        *(({"quantile": quantile}, round(value, 3)) for quantile, value in values.items()),
        ({}, round(durations.mean_s * durations.count, 3), "_sum"),
        ({}, durations.count, "_count"),
    ]


def _costs(spend: Iterable[Spend]) -> list[_Sample]:
    return [
        ({"currency": each.currency, "state": state}, amount)
        for each in spend
        for state, amount in each.json().items()
        if state not in ("currency", "spent")
    ]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
