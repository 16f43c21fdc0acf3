"""
What the page of a report shows: totals, samples and histograms of any number of jobs, in bounded memory, and its rows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from itertools import islice, pairwise
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct, field

from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Failure, JobRecord, Json
from runner.core.sanitize import sanitize_text
from runner.core.summary import SummaryBuilder, bucket_middle_s
from runner.jsontext import dumps
from runner.results.inline_media import replace_inline_media

T = TypeVar("T")


class Reservoir(Generic[T]):
    """
    A uniform random sample of a stream of unknown length (Vitter's algorithm R).

    The random numbers come from a generator with a fixed seed: the same run gives the same sample.
    """

    def __init__(self, capacity: int) -> None:
        self.items: list[T] = []
        self._seen = 0
        self._capacity = capacity
        self._random = random.Random(capacity)

    def add(self, make: Callable[[], T]) -> None:
        """Add one item, which is made only if it is kept."""
        self._seen += 1
        if len(self.items) < self._capacity:
            self.items.append(make())
            return
        index = int(self._random.random() * self._seen)
        if index < self._capacity:
            self.items[index] = make()

    def shrink(self) -> None:
        """Remove a random item and its slot; the rest is still a uniform sample."""
        self._capacity = len(self.items) - 1
        self.items[int(self._random.random() * len(self.items))] = self.items[-1]
        del self.items[-1]


class JobSample(Generic[T]):
    """
    A sample of jobs in which those that did not succeed get up to half of the slots.

    People open the report of a million jobs to see what failed.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._succeeded: Reservoir[T] = Reservoir(capacity)
        self._others: Reservoir[T] = Reservoir(capacity)

    def add(self, make: Callable[[], T], *, succeeded: bool) -> None:
        """Add one job, which is made only if it is kept."""
        (self._succeeded if succeeded else self._others).add(make)
        if len(self._succeeded.items) + len(self._others.items) > self._capacity:
            has_many_others = len(self._others.items) > self._capacity // 2
            (self._others if has_many_others else self._succeeded).shrink()

    def items(self) -> list[T]:
        """Return the sampled jobs, at most ``capacity``."""
        return self._others.items + self._succeeded.items


_MAX_BINS = 200
# Each width is a multiple of the one before, so that bins can be merged.
_WIDTHS_S = (1, 5, 15, 60, 300, 900, 3600, 10_800, 43_200, 86_400, 604_800)


class BinnedCounts(Struct, frozen=True):
    """
    Counts in adjacent bins of equal width.

    Attributes:
        start_at: Start of the first bin, in seconds since 1970.
        counts: For each kind, one number per bin.
    """

    start_at: int
    width_s: int
    counts: dict[str, list[int]]


class TimeBins(Struct):
    """
    Counts events in time bins, which get wider as the time span grows.

    Bins of the same kinds can be merged, and stored by msgspec.
    """

    kinds: tuple[str, ...]
    width_s: int = _WIDTHS_S[0]
    counts: dict[int, list[int]] = field(default_factory=dict)

    def add(self, kind: str, at: float) -> None:
        """Count one event at a time in seconds since 1970."""
        index, column = int(at // self.width_s), self.kinds.index(kind)
        row = self.counts.get(index)
        if row is not None:
            row[column] += 1
            return
        row = self.counts[index] = [0] * len(self.kinds)
        row[column] = 1
        self._fit()

    def merge(self, other: TimeBins) -> None:
        """Add the events of other bins."""
        while self.width_s < other.width_s:
            self._widen()
        factor = self.width_s // other.width_s
        for index, counts in other.counts.items():
            _add_row(self.counts, index // factor, counts)
        self._fit()

    def binned(self) -> BinnedCounts | None:
        """Return the counts, or None if there was no event."""
        if not self.counts:
            return None
        first, last = min(self.counts), max(self.counts)
        zeros = [0] * len(self.kinds)
        rows = [self.counts.get(index, zeros) for index in range(first, last + 1)]
        return BinnedCounts(
            start_at=first * self.width_s,
            width_s=self.width_s,
            counts={kind: [row[column] for row in rows] for column, kind in enumerate(self.kinds)},
        )

    def idle_s(self, *, at_least_s: float) -> float:
        """Return the total length of the times without an event that are at least this long, in seconds."""
        used = sorted(self.counts)
        gaps = [(after - before - 1) * self.width_s for before, after in pairwise(used)]
        return float(sum(gap for gap in gaps if gap >= max(at_least_s, 1)))

    def _fit(self) -> None:
        while self.counts and max(self.counts) - min(self.counts) >= _MAX_BINS:
            self._widen()

    def _widen(self) -> None:
        width_s = next((width for width in _WIDTHS_S if width > self.width_s), self.width_s * 4)
        factor = width_s // self.width_s
        merged: dict[int, list[int]] = {}
        for index, counts in self.counts.items():
            _add_row(merged, index // factor, counts)
        self.width_s, self.counts = width_s, merged


def _add_row(rows: dict[int, list[int]], index: int, counts: list[int]) -> None:
    row = rows.setdefault(index, [0] * len(counts))
    for column, count in enumerate(counts):
        row[column] += count


_BARS = 40
_LOGARITHMIC_FROM = 12


class Histogram(Struct, frozen=True):
    """
    Counts of durations by model, in bars with shared edges.

    Attributes:
        edges_s: One more than there are bars; evenly spaced, or evenly by logarithm if the longest duration
            is more than 12 times the shortest.
    """

    edges_s: list[float]
    is_logarithmic: bool
    counts: dict[str, list[int]]


def histogram(counts_by_model: Mapping[str, Mapping[int, int]]) -> Histogram | None:
    """Merge the buckets of `core.summary` into bars; return None if there are no counts."""
    used = [bucket for counts in counts_by_model.values() for bucket in counts]
    if not used:
        return None
    low, high = bucket_middle_s(min(used)) * 0.99, bucket_middle_s(max(used)) * 1.01
    is_logarithmic = high > low * _LOGARITHMIC_FROM
    scale, unscale = (math.log, math.exp) if is_logarithmic else (float, float)
    step = (scale(high) - scale(low)) / _BARS
    rows: dict[str, list[int]] = {}
    for model, counts in counts_by_model.items():
        row = rows[model] = [0] * _BARS
        for bucket, count in counts.items():
            bar = int((scale(bucket_middle_s(bucket)) - scale(low)) / step)
            row[min(max(bar, 0), _BARS - 1)] += count
    edges_s = [round(unscale(scale(low) + step * edge), 3) for edge in range(_BARS + 1)]
    return Histogram(edges_s, is_logarithmic, rows)


class Totals(Struct):
    """
    Builds the summary of jobs and the counts of the report's charts; those of parts of a run can be merged.

    Attributes:
        bins: When jobs were submitted, and ended.
    """

    summary: SummaryBuilder = field(default_factory=SummaryBuilder)
    bins: TimeBins = field(default_factory=lambda: TimeBins(("succeeded", "other", "throttled", "submitted")))

    def add(self, record: JobRecord) -> None:
        """Add a job."""
        self.summary.add(record)
        if record.finished_at is not None:
            self.bins.add("succeeded" if record.state is State.SUCCEEDED else "other", record.finished_at)
        for attempt in record.attempts:
            kind = "throttled" if attempt.outcome == "throttled" else "submitted"
            self.bins.add(kind, attempt.submitted_at)

    def merge(self, other: Totals) -> None:
        """Add the jobs of other totals."""
        self.summary.merge(other.summary)
        self.bins.merge(other.bins)


MAX_JOBS = 10_000
"""The most jobs that the page lists; its counts and charts include all jobs."""

Address = Callable[[Asset], str]

_MAX_VALUE_CHARS = 300
_MAX_VALUES = 40
_MAX_WARNINGS = 5


class JobRow(NamedTuple):
    """
    What the page shows of a job. The page's script reads the fields by their names.

    Attributes:
        first_at: Time of the first attempt; this and the other times are in seconds since 1970.
        params: Key and text of each request field except model and prompt.
        metadata: Key and text of each metadata field.
        video: Path of the video relative to the run directory, or web address, or None.
        width, height, duration_s, bytes: Of the video.
        takes: The same of other videos of the job, such as those before it was submitted again.
        last_frame: The same of the last frame, or None.
        checks: Name and text of each finding of checks.
        warnings: One sentence each, the first ones.
        verdict: ``keep`` or ``reject``, or None.
        verdict_why: The checks that rejected the video, or "".
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
    width: int | None
    height: int | None
    duration_s: float | None
    bytes: int | None
    takes: list[str]
    last_frame: str | None
    checks: list[tuple[str, str]]
    warnings: list[str]
    verdict: str | None
    verdict_why: str


def job_row(record: JobRecord, verdict: str | None, address: Address = attrgetter("path")) -> JobRow:
    """
    Return what the page shows of a job, its texts shortened.

    Args:
        address: Returns where the page finds an asset.
    """
    videos = _videos(record)
    video = videos[0] if videos else None
    # The video may be older than the job's request.
    own = record.request if video is None or video.request is None else video.request
    request = replace_inline_media(own)
    error = record.error
    last_frame = next((asset for asset in record.assets if asset.kind is AssetKind.LAST_FRAME), None)
    return JobRow(
        id=shorten(record.job_id, 200),
        state=record.state.value,
        model=shorten(record.model, 200),
        cls=None if error is None else error.cls.value,
        message="" if error is None else _message(error),
        prompt=shorten(str(request.get("prompt") or ""), 2000),
        params=_pairs({key: value for key, value in request.items() if key not in ("model", "prompt")}),
        metadata=_pairs(record.metadata),
        first_at=_rounded(record.attempts[0].submitted_at if record.attempts else record.submitted_at),
        submitted_at=_rounded(record.submitted_at),
        generate_s=_rounded(record.generate_s),
        download_s=_rounded(record.download_s),
        finished_at=_rounded(record.finished_at),
        task_id=shorten(record.task_id or "", 200),
        attempts=len(record.attempts),
        throttled=sum([attempt.outcome == "throttled" for attempt in record.attempts]),
        video=None if video is None else address(video),
        width=None if video is None else video.width,
        height=None if video is None else video.height,
        duration_s=None if video is None else video.duration_s,
        bytes=None if video is None else video.bytes,
        takes=[address(take) for take in videos[1:]],
        last_frame=None if last_frame is None else address(last_frame),
        checks=_pairs({name: _finding(value) for name, value in (record.checks or {}).items()}),
        warnings=[shorten(warning, _MAX_VALUE_CHARS) for warning in record.warnings[:_MAX_WARNINGS]],
        verdict=verdict,
        verdict_why="" if record.verdict is None else shorten(str(record.verdict["why"]), _MAX_VALUE_CHARS),
    )


def row_bytes(record: JobRecord, verdict: str | None, address: Address = attrgetter("path")) -> bytes:
    """Return what the page shows of a job as JSON for its script."""
    return safe_json(job_row(record, verdict, address))


_UNSAFE = {character.encode(): f"\\u{ord(character):04x}".encode() for character in "<>&\u2028\u2029"}


def safe_json(value: Json) -> bytes:
    r"""
    Encode a value as JSON that can't contain an HTML tag, a comment or the end of its script element.

    >>> safe_json({"prompt": "</script><!--"})
    b'{"prompt":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = dumps(value)
    # In JSON these characters occur only inside strings, where the escape is equivalent.
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return text


def shorten(text: str, max_chars: int) -> str:
    """Return a text as the page shows it."""
    return sanitize_text(text, max_chars=max_chars)


def _videos(record: JobRecord) -> list[Asset]:
    """Return the videos of a job, first the one that its present request made."""
    videos = [asset for asset in record.assets if asset.kind is AssetKind.VIDEO]
    return videos if len(videos) < 2 else sorted(videos, key=lambda video: video.request is not None)


def _message(error: Failure) -> str:
    details = shorten(error.details, 100)
    return shorten(error.message, 500) + (f" ({details})" if details else "")


def _pairs(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    if not values:
        return []
    pairs = [
        (shorten(str(key), 100), _value_text(value)) for key, value in islice(values.items(), _MAX_VALUES)
    ]
    if len(values) > _MAX_VALUES:
        pairs.append(("…", f"{len(values) - _MAX_VALUES} more"))
    return pairs


def _finding(value: Json) -> Json:
    """
    Return what a check found as text; what a command answered as it is.

    >>> _finding({"ok": False, "black_s": 2.5, "of": None}), _finding(0.7)
    ('failed, black_s 2.5', 0.7)
    """
    if not isinstance(value, dict) or not isinstance(value.get("ok"), bool):
        return value
    numbers = (f"{name} {number}" for name, number in value.items() if name != "ok" and number is not None)
    return ", ".join(["ok" if value["ok"] else "failed", *numbers])


def _value_text(value: Json) -> str:
    return shorten(value if isinstance(value, str) else dumps(value).decode(), _MAX_VALUE_CHARS)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
