"""The README of a dataset: what hubs read at its head, and what people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml

from runner.core.lifecycle import State
from runner.core.sanitize import sanitize_line
from runner.core.units import format_count, format_size
from runner.export.columns import COLUMNS
from runner.export.selection import ExportOptions, Format, Plan
from runner.version import __version__

_MAX_MODELS = 100
_MARKUP = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>()#|!&@~"})


def card(plan: Plan, options: ExportOptions) -> str:
    """Return the text of the README."""
    files = [{"split": split, "path": _paths(split, plan, options)} for split in plan.splits]
    config: dict[str, object] = {"config_name": "default", "data_files": files}
    if options.format is Format.VIDEOFOLDER:
        # The names of the folders are no classes.
        config["drop_labels"] = True
    head: dict[str, object] = {
        "license": plan.license or "other",
        "task_categories": ["text-to-video"],
        "tags": ["synthetic", "video"],
        "configs": [config],
    }
    if options.format is Format.WEBDATASET:
        head["dataset_info"] = {"config_name": "default", "features": _features(plan, options)}
    yaml_text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{yaml_text}---\n\n# {_runs(plan)}\n\n" + "\n".join(_body(plan)) + "\n"


def _paths(split: str, plan: Plan, options: ExportOptions) -> str | list[str]:
    """Return the patterns of the files of a split."""
    if options.format is Format.WEBDATASET:
        return f"data/{split}/*.tar"
    if options.format is Format.PARQUET:
        return f"data/{split}-*.parquet"
    # Without the captions: `datasets` takes a folder for what most of its files are.
    videos = [f"data/{split}/*/*{suffix}" for suffix in plan.suffixes]
    return [f"data/{split}/metadata.parquet", *videos]


def _features(plan: Plan, options: ExportOptions) -> list[Mapping[str, object]]:
    """Return the types of samples: `datasets` would drop each value that the first five samples do not have."""
    values = [{"name": column, "dtype": COLUMNS[column]} for column in options.columns or COLUMNS]
    videos = [{"name": suffix.removeprefix("."), "dtype": "video"} for suffix in plan.suffixes]
    texts = ["txt"] if options.captions else []
    others = [{"name": name, "dtype": "string"} for name in (*texts, "__key__", "__url__")]
    return [*videos, {"name": "json", "struct": values}, *others]


def _body(plan: Plan) -> Iterator[str]:
    yield f"{format_count(plan.rows, 'generated video')}, {format_size(plan.bytes)}, exported by runner {__version__}."
    if plan.is_simulated:
        yield "\n**Videos of a simulated run: test patterns, which no model generated.**"
    yield ""
    if plan.period:
        yield f"- Generated: {plan.period[0]} to {plan.period[1]}"
    yield f"- License: {plan.license or 'not given, or not the same for all videos'}"
    yield f"- SHA-256 of the results: `{plan.results_sha256}`"
    splits = {split: (size.rows, format_size(size.bytes)) for split, size in plan.splits.items()}
    yield from _table("Splits", ("split", "videos", "size"), splits)
    models = sorted(plan.models.items(), key=lambda item: (-item[1], item[0]))
    yield from _table("Models", ("model", "videos"), {name: (count,) for name, count in models[:_MAX_MODELS]})
    states = {state.value: (count,) for state, count in plan.summary.by_state.items() if count}
    yield from _table("Jobs of the runs", ("status", "jobs"), states)
    failures = {cls.value: (count,) for cls, count in plan.summary.by_class.items()}
    if failures:
        yield from _table("Failures", ("class", "jobs"), failures)
    if plan.summary.by_state[State.SUCCEEDED] > plan.rows:
        yield "\nOnly some of the succeeded jobs were selected."


def _runs(plan: Plan) -> str:
    return ", ".join(map(_safe, plan.runs[:10])) + (", …" if len(plan.runs) > 10 else "")


def _table(title: str, heads: tuple[str, ...], rows: Mapping[str, tuple[object, ...]]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for name, values in rows.items():
        cells = [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
        yield f"| {' | '.join([_safe(name), *cells])} |"


def _safe(text: str) -> str:
    """Return text from outside as one line without markup."""
    return sanitize_line(text, max_chars=200).translate(_MARKUP)
