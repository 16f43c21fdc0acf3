"""What is wrong with a video, from what was measured and what was requested."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from msgspec import Struct, field

from runner.assets.request import duration_mismatch, size_mismatches
from runner.core.model import Asset, Json, asks_for_sound
from runner.core.settings import Check
from runner.core.units import format_duration
from runner.media import MediaInfo

_LONGEST_S = 2.0
"""A stretch of this length that is black or frozen is a fault; in a short video, half of it."""
_MIN_FPS = 12.0
_MIN_PEAK = 0.001
"""Of full scale, -60 dB: less is silence."""
_FPS_TOLERANCE = 0.05


class Measures(Struct, frozen=True):
    """
    What was measured of a video's pictures and sound.

    Attributes:
        duration_s: From the first picture to the end of the last one.
        black_s, frozen_s: The longest stretch that is black, or without any change.
        peak: The loudest moment of the sound, from 0 to 1; None if there is no sound.
        picture_hash: A perceptual hash of several pictures, in hex; None if they have no contrast.
    """

    duration_s: float
    black_s: float
    frozen_s: float
    peak: float | None = None
    picture_hash: str | None = None


class Findings(Struct):
    """
    What was found of one video.

    Attributes:
        checks: By name of the check, its numbers, with ``ok``.
        warnings: A sentence for each check that is not passed.
    """

    checks: dict[str, Json] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, check: str, problem: str | None, **numbers: Json) -> None:
        """Add the result of a check; it is passed if there is no problem."""
        self.checks[check] = {"ok": problem is None, **numbers}
        if problem is not None:
            self.warnings.append(problem)

    def verdict(self, reject: Collection[str]) -> dict[str, Json] | None:
        """Return the verdict ``reject`` with the failed checks that demand it; None if none does."""
        failed = [name for name in reject if not self.checks.get(name, {}).get("ok", True)]
        return {"value": "reject", "by": "checks", "why": ", ".join(failed)} if failed else None


def judge(
    video: Asset, request: Mapping[str, Json], checks: Collection[Check], measures: Measures | None
) -> Findings:
    """
    Judge a video by all checks except near duplicates, which need the others of the run.

    Args:
        measures: None if the pictures were not decoded: then only what the file states is judged.

    >>> video = Asset("video", "a.mp4", 9, "", "video/mp4", 1280, 720, 5.0, fps=24.0, has_sound=False)
    >>> judge(video, {"seconds": 8}, [Check.DURATION, Check.FPS], None).warnings
    ['the video is 5s long; 8s was requested']
    """
    findings = Findings()
    for check in checks:
        if (find := _CHECKS.get(check)) is not None:
            find(findings, video, request, measures)
    return findings


def _find_black(
    findings: Findings, video: Asset, request: Mapping[str, Json], measures: Measures | None
) -> None:
    if measures is not None:
        stretch_s = measures.black_s
        problem = _stretch_problem("black", stretch_s, measures.duration_s)
        findings.add(Check.BLACK, problem, black_s=stretch_s, duration_s=measures.duration_s)


def _find_frozen(
    findings: Findings, video: Asset, request: Mapping[str, Json], measures: Measures | None
) -> None:
    if measures is not None:
        stretch_s = measures.frozen_s
        problem = _stretch_problem("frozen", stretch_s, measures.duration_s)
        findings.add(Check.FROZEN, problem, frozen_s=stretch_s, duration_s=measures.duration_s)


def _stretch_problem(word: str, stretch_s: float, duration_s: float) -> str | None:
    if stretch_s <= 0 or stretch_s < min(_LONGEST_S, duration_s / 2):
        return None
    return f"the video is {word} for {format_duration(stretch_s)} of {format_duration(duration_s)}"


def _find_silent(
    findings: Findings, video: Asset, request: Mapping[str, Json], measures: Measures | None
) -> None:
    is_asked, problem = asks_for_sound(request), None
    peak = None if measures is None else measures.peak
    if is_asked and video.has_sound is False:
        problem = "the video has no sound; sound was requested"
    elif is_asked and peak is not None and peak < _MIN_PEAK:
        problem = "the video's sound is silence; sound was requested"
    findings.add(Check.SILENT, problem, has_sound=video.has_sound, peak=peak, requested=is_asked)


def _find_duration(
    findings: Findings, video: Asset, request: Mapping[str, Json], measures: Measures | None
) -> None:
    problem = duration_mismatch(request, _info(video))
    findings.add(
        Check.DURATION, problem, duration_s=video.duration_s, requested=_plain(request.get("seconds"))
    )


def _find_size(
    findings: Findings, video: Asset, request: Mapping[str, Json], measures: Measures | None
) -> None:
    problems = size_mismatches(request, _info(video))
    asked = {"size": _plain(request.get("size")), "ratio": _plain(request.get("ratio"))}
    findings.add(
        Check.SIZE, "; ".join(problems) or None, width=video.width, height=video.height, requested=asked
    )


def _find_fps(
    findings: Findings, video: Asset, request: Mapping[str, Json], measures: Measures | None
) -> None:
    asked, problem = _plain(request.get("fps")), None
    if video.fps is not None and isinstance(asked, int | float):
        if abs(video.fps - asked) > _FPS_TOLERANCE * asked:
            problem = f"the video has {video.fps:g} frames per second; {asked:g} were requested"
    elif video.fps is not None and video.fps < _MIN_FPS:
        problem = f"the video has {video.fps:g} frames per second, fewer than {_MIN_FPS:g}"
    findings.add(Check.FPS, problem, fps=video.fps, codec=video.codec, requested=asked)


_Find = Callable[[Findings, Asset, Mapping[str, Json], Measures | None], None]
_CHECKS: Mapping[Check, _Find] = {
    Check.BLACK: _find_black,
    Check.FROZEN: _find_frozen,
    Check.SILENT: _find_silent,
    Check.DURATION: _find_duration,
    Check.SIZE: _find_size,
    Check.FPS: _find_fps,
}

NEEDS_DECODER = frozenset({Check.BLACK, Check.FROZEN, Check.NEAR_DUPLICATE})
"""Checks of what the pictures show; `silent` also works on what the file states."""


def _info(video: Asset) -> MediaInfo:
    return MediaInfo(video.content_type, video.width, video.height, video.duration_s)


def _plain(value: Json) -> Json:
    """Return a value of a request that is fit for a column of one type; None for anything else."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else None
