"""The report is one file that shows the whole run, makes no request, and runs no foreign text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Attempt, FailureClass, JobRecord
from runner.core.units import format_duration
from runner.report.page import write_report
from tests.report.browser import CHROMIUM, DRIVER, Browser, browser
from tests.results.records import AT, HOSTILE, VIDEO, succeeded, unsuccessful

JOBS = [
    *(
        succeeded(
            f"job-{n:02}",
            index=n,
            request={"model": "wan2.7-i2v", "prompt": f"A kitten, take {n}", "seed": n},
            submitted_at=AT + n,
            finished_at=AT + n + 90,
            assets=(replace(VIDEO, path=f"assets/{name}.mp4"),),
        )
        for n, name in enumerate(["sky", "sky #1?", *["absent"] * 28])
    ),
    *(
        unsuccessful(
            text[:150],
            State.FAILED,
            FailureClass.MODERATION,
            text[:400],
            index=30 + n,
            request={"prompt": text},
        )
        for n, text in enumerate(HOSTILE)
    ),
    unsuccessful(
        "unclear", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, model="seedance-1-5-pro-251215", index=50
    ),
    succeeded(
        "late",
        index=51,
        attempts=(Attempt(1, AT - 9, "throttled", http_status=429), Attempt(2, AT, "accepted", "t", 200)),
    ),
]


def report(folder: Path, jobs: Iterable[JobRecord] = JOBS, **options: Any) -> Path:
    path = folder / "report.html"
    write_report(iter(jobs), path, run="kittens", gateway="https://api.powertokens.ai", now_at=AT, **options)
    return path


class Parsed(HTMLParser):
    """The tags of a page, as an HTML parser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_hostile_text_makes_no_tags(tmp_path: Path) -> None:
    """Whatever prompts and the API contain, the page has the tags of its template and no others."""
    harmless = Parsed(report(tmp_path, [succeeded()]).read_text())
    hostile = Parsed(report(tmp_path).read_text())

    added = {tag for tag, _ in hostile.tags} - {tag for tag, _ in harmless.tags}
    assert added <= {"article", "h3", "span", "code"}
    assert 2 == sum(tag == "script" for tag, _ in hostile.tags)
    assert [] == [
        attributes for _, attributes in hostile.tags if any(name.startswith("on") for name in attributes)
    ]


def test_page_refers_to_no_host(tmp_path: Path) -> None:
    """No tag of the page refers to another host, and its policy forbids scripts to."""
    page = Parsed(report(tmp_path).read_text())

    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert [] == [
        a for _, a in page.tags if a.get("src") or (a.get("href") or "data:").split(",")[0] != "data:"
    ]


def test_long_texts_are_cut(tmp_path: Path) -> None:
    """A prompt of a megabyte does not make a page of megabytes."""
    assert report(tmp_path).stat().st_size < 200_000


def test_many_jobs_are_sampled(tmp_path: Path) -> None:
    """Of more jobs than it can list the page lists a sample with the failures in it, and counts all."""
    jobs = [succeeded(f"job-{n}", index=n) for n in range(500)]
    failed = [unsuccessful(f"bad-{n}", State.FAILED, FailureClass.QUOTA, index=500 + n) for n in range(5)]

    text = report(tmp_path, jobs + failed, max_jobs=50).read_text()

    data = data_of(text)
    state = data["fields"].index("state")
    assert 50 == len(data["jobs"])
    assert 5 == sum(job[state] == "failed" for job in data["jobs"])
    assert "include all 505 jobs. This page lists a random sample of 50 jobs" in text
    assert "500 of 505 jobs succeeded" in text


def test_empty_run(tmp_path: Path) -> None:
    """The report of a run without jobs says so."""
    assert "There was nothing to do." in report(tmp_path, []).read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "assets").mkdir()
    return folder


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    with browser(tmp_path_factory.mktemp("profile")) as session:
        session.open(report(folder))
        yield session


MATCHING = "return document.getElementById('matching').textContent"
CARDS = "return [...document.querySelectorAll('.card .id')].map((node) => node.textContent)"
FILTER = """
    for (const id of ['state', 'model', 'cls']) document.getElementById(id).value = arguments[0][id] || '';
    document.getElementById('search').value = arguments[0].search || '';
    filterJobs();
"""


def test_filters(page: Browser) -> None:
    """State, model, failure class and search words filter the jobs, alone and together."""
    cases = {
        "40 of 40 jobs": {},
        "8 of 40 jobs": {"state": "failed"},
        "1 of 40 jobs": {"model": "seedance-1-5-pro-251215"},
        "0 of 40 jobs": {"model": "seedance-1-5-pro-251215", "cls": "moderation"},
    }
    for matching, choice in cases.items():
        page.run(FILTER, choice)
        assert matching == page.run(MATCHING)
    page.run(FILTER, {"search": "KITTEN take 17"})
    assert ["job-17"] == page.run(CARDS)


def test_durations_are_formatted_as_in_the_terminal(page: Browser) -> None:
    """The script's form of a duration is the one of `format_duration`."""
    durations = [0, 0.25, 0.9996, 1, 1.5, 9.94, 9.96, 42, 59.6, 93.1, 100, 3599.6, 5400, 7325, 86399, 93600]

    assert [format_duration(seconds) for seconds in durations] == page.run(
        "return arguments[0].map(formatDuration)", durations
    )


def test_gallery_is_paged(page: Browser) -> None:
    """A page of the gallery has 24 cards, and the next page has the next ones."""
    page.run(FILTER, {})
    assert 24 == len(page.run(CARDS))

    page.run("[...document.querySelectorAll('.pager button')].find((b) => b.textContent === 'Next').click()")

    assert "job-24" == page.run(CARDS)[0]


def test_hostile_text_does_not_run(page: Browser) -> None:
    """Every hostile prompt is shown as text, and none of it runs."""
    page.run(FILTER, {"state": "failed"})

    assert "kittens · run report" == page.run("return document.title")
    assert 0 == page.run(
        "return document.querySelectorAll('#gallery img, #gallery script, #gallery b').length"
    )
    assert HOSTILE[0][:150] in page.run(CARDS)


def test_no_request_leaves_the_file(page: Browser) -> None:
    """Opening and using the page makes no request to a host, and violates no rule of its policy."""
    page.run(FILTER, {})

    messages = [json.loads(message)["message"] for message in page.log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # The browser's own start page makes requests as well.
    urls = [params["request"]["url"] for params in sent if params["documentURL"].startswith("file://")]
    assert urls
    assert [] == [url for url in urls if not url.startswith(("file://", "data:"))]
    assert [] == [
        line for line in page.log("browser") if "Content Security Policy" in line or "Uncaught" in line
    ]


def test_charts_are_drawn_and_nothing_overflows(page: Browser) -> None:
    """Each chart is drawn and has a label for screen readers, and nothing is wider than the page."""
    page.run(FILTER, {})

    labels = page.run(
        "return [...document.querySelectorAll('figure svg')].map((svg) => svg.getAttribute('aria-label'))"
    )
    assert 3 == len(labels)
    assert all(labels)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth") is True


def test_videos_play_and_missing_ones_are_reported(page: Browser, folder: Path) -> None:
    """A video beside the page plays, whatever its name; a missing one is named."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to make a video")
    made = folder / "assets" / "sky #1?.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x36:rate=5", "-t", "1", "-pix_fmt", "yuv420p"]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *source, str(made)], check=True)

    page.run(FILTER, {"search": "job-01"})
    played = page.run(
        "const video = document.querySelector('.card video'); video.muted = true;"
        "return video.play().then(() => [video.videoWidth, video.videoHeight])"
    )
    page.run(FILTER, {"search": "job-05"})
    message = page.run(
        "const video = document.querySelector('.card video'); if (video) video.preload = 'metadata';"
        "return new Promise((done) => { const check = () => { const text = document.querySelector('.no-video');"
        " if (text) done(text.textContent); else setTimeout(check, 20); }; check(); })"
    )

    assert [64, 36] == played
    assert "assets/absent.mp4 is missing or can't be played" == message
