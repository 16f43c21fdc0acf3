"""How the report looks in a real browser: charts, colors, shapes of clips, times; and that everybody can use it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from tests.report.browser import Browser, show
from tests.report.pages import JOBS, report
from tests.results.records import succeeded


def test_charts_are_drawn_and_nothing_overflows(page: Browser) -> None:
    """Each chart is drawn and has a label for screen readers, and nothing is wider than the page, on a phone neither."""
    labels = page.run(
        "return [...document.querySelectorAll('figure svg, #whole svg')].map((svg) => svg.getAttribute('aria-label'))"
    )
    assert 4 == len(labels)
    assert all(labels)
    for width in (1400, 390):
        page.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        fits = page.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert fits is True, width
    page.devtools("Emulation.clearDeviceMetricsOverride")


@pytest.mark.extended
def test_labels_of_a_short_run_differ(chromium: Browser, tmp_path: Path) -> None:
    """The time axis of a run of seconds has no label twice."""
    report(tmp_path, [replace(job, finished_at=job.finished_at and JOBS[0].finished_at) for job in JOBS[:3]])
    show(chromium, tmp_path)

    labels = chromium.run(
        "return [...document.querySelectorAll('#throughput text')].map((text) => text.textContent).filter((text) => text.includes(':'))"
    )

    assert labels
    assert len(set(labels)) == len(labels)


@pytest.mark.extended
def test_charts_without_data_say_so(chromium: Browser, tmp_path: Path) -> None:
    """A run that has not begun shows words in place of charts."""
    pending = replace(
        succeeded("sky"), state=State.PENDING, assets=(), attempts=(), submitted_at=None, finished_at=None
    )
    report(tmp_path, [replace(pending, generate_s=None, download_s=None)])
    show(chromium, tmp_path)

    assert [
        "No job has finished yet.",
        "No video has been generated yet.",
        "None of these jobs has been submitted.",
    ] == chromium.run("return [...document.querySelectorAll('figure')].map((figure) => figure.textContent)")


LUMINANCE = """
    const canvas = document.createElement('canvas').getContext('2d');
    const styles = getComputedStyle(document.documentElement);
    return arguments[0].map((name) => {
      canvas.fillStyle = styles.getPropertyValue(name);
      canvas.fillRect(0, 0, 1, 1);
      const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => {
        const share = part / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    });
"""


@pytest.mark.extended
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_differ_in_brightness(page: Browser, scheme: str) -> None:
    """What lies side by side in a chart differs without color vision: in brightness, and failures in their pattern."""
    page.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    names = ["--good", "--generate", "--download", "--bad-ink", "--bad-paper", "--surface"]
    light: dict[str, float] = dict(zip(names, page.run(LUMINANCE, names), strict=True))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light[one], light[other]))
        return (high + 0.05) / (low + 0.05)

    assert contrast("--generate", "--download") >= 3
    assert contrast("--bad-ink", "--bad-paper") >= 3
    assert contrast("--good", "--surface") >= 3
    assert page.run("return getComputedStyle(document.querySelector('.s-failed')).fill").startswith(
        'url("#hatch")'
    )
    page.devtools("Emulation.setEmulatedMedia", features=[])


@pytest.mark.slow
def test_clips_have_their_shape_and_play_on_hover(page: Browser, folder: Path) -> None:
    """A clip has the shape that is known of it, plays without sound while the mouse is on it, and by the space bar; a missing one is named."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to make a video")
    made = folder / "assets" / "sky #1?.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=32x32:rate=5", "-t", "1", "-pix_fmt", "yuv420p"]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *source, str(made)], check=True)
    show(page, folder, "q=job-01")

    shape = page.run(
        "const box = document.querySelector('.card video').getBoundingClientRect(); return box.width / box.height"
    )
    page.hover(".card video")
    until_playing = (
        "const video = document.querySelector('.card video');"
        "return new Promise((done) => { const check = () => (video.paused || !video.videoWidth ? setTimeout(check, 20) :"
        " done([video.videoWidth, video.videoHeight, video.muted, video.loop])); check(); })"
    )
    playing = page.run(until_playing)
    page.hover("h1")
    is_paused = page.run("return document.querySelector('.card video').paused")
    page.press("right", " ")
    playing_again = page.run(until_playing)

    assert 90 / 160 == pytest.approx(shape, rel=0.02)
    assert ([32, 32, True, True], True, [32, 32, True, True]) == (playing, is_paused, playing_again)

    show(page, folder, "q=job-05")
    message = page.run(
        "return new Promise((done) => { const check = () => { const text = document.querySelector('.no-video');"
        " if (text) done(text.textContent); else setTimeout(check, 20); }; check(); })"
    )
    assert "assets/absent.mp4 is missing or can't be played" == message
    assert 90 / 160 == pytest.approx(
        page.run(
            "const box = document.querySelector('.no-video').getBoundingClientRect(); return box.width / box.height"
        ),
        rel=0.02,
    )


@pytest.mark.extended
def test_times_are_those_of_the_reader(page: Browser, folder: Path) -> None:
    """Times are in the time zone of the browser, with its name."""
    page.devtools("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
    show(page, folder)
    texts = page.run(
        "return [document.querySelector('time').textContent, document.querySelector('#throughput figcaption').textContent,"
        " document.querySelector('#throughput svg > text:last-of-type').textContent]"
    )
    page.devtools("Emulation.setTimezoneOverride", timezoneId="")

    assert "2026-11-21 07:29 GMT+5:30" == texts[0]
    assert texts[1].endswith("times are GMT+5:30.")
    assert texts[2].startswith("07:3")


@pytest.mark.extended
@pytest.mark.parametrize(
    ("settings", "keys"),
    [("", []), ("by=model", []), ("state=failed", []), ("", ["right", "k", "r", "enter"])],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Browser, folder: Path, settings: str, keys: list[str], scheme: str) -> None:
    """axe-core finds no violation of the rules for accessible pages."""
    axe = os.environ.get("AXE_CORE")
    if axe is None:
        pytest.skip("set AXE_CORE to the axe.min.js of axe-core (npm install axe-core)")
    page.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    show(page, folder, settings)
    page.press(*keys)
    page.devtools("Runtime.evaluate", expression=Path(axe).read_text())

    passed, violated = page.run(
        "return axe.run(document).then((found) => [found.passes.length, found.violations.map((each) => [each.id,"
        " each.nodes.map((node) => node.html.slice(0, 200))])])"
    )

    page.devtools("Emulation.setEmulatedMedia", features=[])
    assert passed > 20
    assert [] == violated
