"""
Measure what a video shows, with PyAV (the extra ``media``).

Four pictures a second are measured, as 32 x 32 gray pixels, and the sound at 8,000 samples a second.

Run as a program, it answers each path, a JSON line, with a JSON line: measures, or the reason why there are none. A
decoder that is given damaged files may crash, or hang; in a process of its own it ends nothing else.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from runner.checks.judge import Measures
from runner.media.decode import open_video

if TYPE_CHECKING:
    import av


_SIDE = 32
_INTERVAL_S = 0.25
_MIN_PICTURES = 8
"""A video shorter than two seconds is sampled more often."""
_MAX_SECONDS = 600.0
"""Nothing after this is decoded: a file may state any length."""
_BLACK_LEVEL = 32
"""Of 255; black is 16 in video, and compression adds to it."""
_BLACK_SHARE = 0.98
_STILL_MEAN = 0.5
_STILL_MAX = 6
"""Between two pictures without a change, no pixel of 255 levels differs by more: compression changes a little."""
_HASHED_PICTURES = 4
_HASH_SIDE = 8
_MIN_CONTRAST = 2.0
"""The standard deviation of a picture's pixels below which its hash would be noise."""

Picture = bytes
"""Gray levels of `_SIDE` rows of `_SIDE` pixels."""


def measure(path: str) -> Measures:
    """
    Measure a video file; it blocks.

    Raises:
        ValueError: It can't be decoded, or has no picture.
    """
    import av

    pictures: list[tuple[float, Picture]] = []
    peak: float | None = None
    try:
        with open_video(path) as container:
            video = container.streams.video[0]
            sound = container.streams.audio[0] if container.streams.audio else None
            stated_s = container.duration / 1e6 if container.duration else 0.0
            interval_s = min(_INTERVAL_S, stated_s / _MIN_PICTURES) if stated_s else _INTERVAL_S
            resampler = av.AudioResampler(format="s16", layout="mono", rate=8000)
            end_s = 0.0
            for frame in _frames(container, video, sound):
                if isinstance(frame, av.VideoFrame):
                    at_s = frame.time or 0.0
                    end_s = max(end_s, at_s + 1 / float(video.average_rate or 24))
                    if at_s >= len(pictures) * interval_s - 1e-6:
                        pictures.append((at_s, _picture(frame)))
                else:
                    peak = max(peak or 0.0, _peak(resampler.resample(frame)))
    except (av.FFmpegError, OSError, ArithmeticError) as error:
        raise ValueError(f"can't be decoded ({type(error).__name__})") from None
    if not pictures:
        raise ValueError("has no pictures")
    return _summarize(pictures, round(end_s, 3), peak)


def _frames(container: Any, video: Any, sound: Any) -> Iterator[av.VideoFrame | av.AudioFrame]:
    for packet in container.demux(*filter(None, (video, sound))):
        if packet.pts is not None and packet.time_base and packet.pts * packet.time_base > _MAX_SECONDS:
            return
        yield from packet.decode()


def _picture(frame: av.VideoFrame) -> Picture:
    gray = frame.reformat(width=_SIDE, height=_SIDE, format="gray")
    plane = gray.planes[0]
    data = bytes(plane)
    return b"".join(data[row * plane.line_size :][:_SIDE] for row in range(_SIDE))


def _peak(frames: Sequence[av.AudioFrame]) -> float:
    samples = (array("h", bytes(frame.planes[0])[: 2 * frame.samples]) for frame in frames)
    return max((max(map(abs, values)) / 32768 for values in samples if values), default=0.0)


def _summarize(pictures: list[tuple[float, Picture]], end_s: float, peak: float | None) -> Measures:
    times = [*(at_s for at_s, _ in pictures), end_s]
    shown = [picture for _, picture in pictures]
    still = [_is_still(before, after) for before, after in pairwise(shown)]
    return Measures(
        duration_s=end_s,
        black_s=_longest_s(times, [_is_black(picture) for picture in shown]),
        # The last picture is frozen if it shows what the one before showed.
        frozen_s=_longest_s(times, [*still, still[-1]]) if still else 0.0,
        peak=None if peak is None else round(peak, 4),
        picture_hash=picture_hash(
            [shown[len(shown) * (2 * n + 1) // (2 * _HASHED_PICTURES)] for n in range(_HASHED_PICTURES)]
        ),
    )


def _longest_s(times: Sequence[float], flags: Sequence[bool]) -> float:
    """
    Return how long the longest stretch of pictures lasts that all have a flag.

    Args:
        times: When each picture is shown, and the end.

    >>> _longest_s([0.0, 1.0, 2.0, 3.0, 4.5], [True, False, True, True])
    2.5
    """
    longest_s, start_s = 0.0, None
    for flag, at_s, until_s in zip(flags, times, times[1:], strict=False):
        if not flag:
            start_s = None
            continue
        start_s = at_s if start_s is None else start_s
        longest_s = max(longest_s, until_s - start_s)
    return round(longest_s, 3)


def _is_black(picture: Picture) -> bool:
    return sum(level <= _BLACK_LEVEL for level in picture) >= _BLACK_SHARE * len(picture)


def _is_still(before: Picture, after: Picture) -> bool:
    changes = [abs(a - b) for a, b in zip(before, after, strict=True)]
    return max(changes) <= _STILL_MAX and sum(changes) <= _STILL_MEAN * len(changes)


def picture_hash(pictures: Sequence[Picture]) -> str | None:
    """
    Return a hash of pictures that differs in few bits where they look alike, in hex; None without any contrast.

    Each has 64 bits: whether a low frequency of its cosine transform is above their median.
    """
    bits = 0
    for picture in pictures:
        mean = sum(picture) / len(picture)
        if math.sqrt(sum((level - mean) ** 2 for level in picture) / len(picture)) < _MIN_CONTRAST:
            return None
        frequencies = _low_frequencies(picture)
        median = sorted(frequencies)[len(frequencies) // 2]
        for value in frequencies:
            bits = bits << 1 | (value > median)
    return f"{bits:0{len(pictures) * _HASH_SIDE**2 // 4}x}"


def _low_frequencies(picture: Picture) -> list[float]:
    """Return the lowest 8 x 8 frequencies, from the second one in each direction: the first is the brightness."""
    basis = _basis()
    rows = [picture[row * _SIDE : (row + 1) * _SIDE] for row in range(_SIDE)]
    across = [[sum(map(_times, wave, row)) for row in rows] for wave in basis]
    return [sum(map(_times, wave, column)) for wave in basis for column in across]


_times: Callable[[float, float], float] = float.__mul__


@cache
def _basis() -> list[list[float]]:
    return [
        [math.cos(math.pi * wave * (2 * at + 1) / (2 * _SIDE)) for at in range(_SIDE)]
        for wave in range(1, _HASH_SIDE + 1)
    ]


_NICENESS = 10
"""What was paid for, and what is next to be submitted, comes first."""


def main() -> None:
    """Answer until the input ends."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    for line in sys.stdin.buffer:
        path = msgspec.json.decode(line, type=str)
        try:
            answer = msgspec.json.encode({"measures": measure(path)})
        except ValueError as error:
            answer = msgspec.json.encode({"problem": str(error)})
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
