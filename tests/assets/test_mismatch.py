"""What was delivered and what was requested: a warning if they differ, and none if they do not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runner.assets.request import mismatches
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
    """Whole frames, sides that are multiples of 16, and unknown facts are not differences."""
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


@pytest.mark.parametrize(
    ("request_body", "matching", "different"),
    [
        ({"size": "720p"}, (1440, 800, None), (1441, 800, None)),
        ({"size": "720p"}, (864, 800, None), (863, 800, None)),
        ({"size": "1280*720"}, (1280, 720, None), (1280, 721, None)),
        ({"ratio": "1:1"}, (1059, 1000, None), (1061, 1000, None)),
        ({"ratio": "1:1"}, (941, 1000, None), (939, 1000, None)),
        ({"seconds": "5"}, (None, None, 5.5), (None, None, 5.51)),
        ({"seconds": "5"}, (None, None, 4.5), (None, None, 4.49)),
    ],
)
def test_how_much_may_differ(
    request_body: Mapping[str, object],
    matching: tuple[int | None, int | None, float | None],
    different: tuple[int | None, int | None, float | None],
) -> None:
    """A quarter of the area, 6 % of the ratio, half a second; of sides that were named, nothing."""
    assert () == mismatches(request_body, MediaInfo("video/mp4", *matching))
    assert 1 == len(mismatches(request_body, MediaInfo("video/mp4", *different)))
