"""What was delivered and what was requested: a warning if they differ, and none if they do not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runner.assets.mismatch import mismatches
from runner.media import MediaInfo


@pytest.mark.parametrize(
    ("request_body", "width", "height", "duration_s"),
    [
        ({"seconds": "5", "size": "720P", "ratio": "16:9"}, 1280, 720, 5.04),
        ({"seconds": 5, "size": "720p", "ratio": "1:1"}, 960, 960, 5.0),
        ({"seconds": "-1", "size": "480p", "ratio": "21:9"}, 992, 416, 7.0),
        ({"size": "1080P", "ratio": "adaptive"}, 1088, 1920, 5.0),
        ({"size": "1280*720"}, 1280, 720, 5.0),
        ({"seconds": None, "size": None, "ratio": "0:0"}, 100, 100, 5.0),
        ({"seconds": "5", "size": "720P", "ratio": "16:9"}, None, None, None),
        ({}, 1, 1, 1.0),
    ],
)
def test_a_matching_video_gets_no_warning(
    request_body: Mapping[str, object], width: int | None, height: int | None, duration_s: float | None
) -> None:
    """Whole frames, sides that are multiples of 16, and unknown facts are no differences."""
    assert () == mismatches(request_body, MediaInfo("video/mp4", width, height, duration_s))


@pytest.mark.parametrize(
    ("request_body", "ending"),
    [
        ({"seconds": "10"}, "10s was requested"),
        ({"size": "1080P"}, "1080P was requested"),
        ({"size": "1280x704"}, "1280x704 was requested"),
        ({"ratio": "9:16"}, "the ratio 9:16 was requested"),
    ],
)
def test_a_difference_is_a_warning(request_body: Mapping[str, object], ending: str) -> None:
    """Both the delivered and the requested value are in the sentence."""
    (sentence,) = mismatches(request_body, MediaInfo("video/mp4", 1280, 720, 5.0))

    assert sentence.endswith(ending)
