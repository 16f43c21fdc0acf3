"""The report is one file that shows a run as it was, and lets nothing in or out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Attempt, FailureClass
from runner.report.aggregates import TimeBins
from runner.report.page import write_report
from tests.report.browser import CHROMIUM, DRIVER, browser
from tests.results.records import AT, HOSTILE, VIDEO, succeeded, unsuccessful

JOBS = [
    *(
        succeeded(
            f"job-{place:02}",
            index=place,
            request={"model": "wan2.7-i2v", "prompt": f"A kitten, take {place}", "seed": place},
            submitted_at=AT + place,
            finished_at=AT + place + 90,
            assets=(replace(VIDEO, path=f"assets/{name}.mp4"),),
        )
        for place, name in enumerate(["sky", "sky #1?", *["absent"] * 28])
    ),
    *(
        unsuccessful(
            text[:150],
            State.FAILED,
            FailureClass.MODERATION,
            text[:400],
            index=30 + place,
            request={"prompt": text},
        )
        for place, text in enumerate(HOSTILE)
    ),
    unsuccessful(
        "doubt", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT, model="seedance-1-5-pro-251215", index=50
    ),
    succeeded(
        "late",
        index=51,
        attempts=(Attempt(1, AT - 9, "throttled", http_status=429), Attempt(2, AT, "accepted", "t", 200)),
    ),
]


def report(folder, jobs=JOBS, **options):
    path = folder / "report.html"
    write_report(iter(jobs), path, run="kittens", gateway="https://api.powertokens.ai", now_at=AT, **options)
    return path


class Parsed(HTMLParser):
    """The tags of a page, as a parser of HTML sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def data_of(text):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_hostile_text_makes_no_tags(tmp_path):
    """Whatever prompts and the API say, the page has the tags of its template and no other."""
    calm = Parsed(report(tmp_path, [succeeded()]).read_text())
    wild = Parsed(report(tmp_path).read_text())

    assert {tag for tag, _ in wild.tags} - {tag for tag, _ in calm.tags} <= {"article", "h3", "span", "code"}
    assert sum(tag == "script" for tag, _ in wild.tags) == 2
    assert not [
        attributes for _, attributes in wild.tags if any(name.startswith("on") for name in attributes)
    ]


def test_page_asks_nobody(tmp_path):
    """No tag of the page names another host, and its policy forbids what a script might try."""
    page = Parsed(report(tmp_path).read_text())

    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert [
        a for _, a in page.tags if a.get("src") or (a.get("href") or "data:").split(",")[0] != "data:"
    ] == []


def test_long_texts_are_cut(tmp_path):
    """A prompt of a megabyte does not make a page of megabytes."""
    assert report(tmp_path).stat().st_size < 200_000


def test_many_jobs_are_sampled_and_it_says_so(tmp_path):
    """Past its bound the page shows a sample with the failures in it, counts all, and says so."""
    jobs = [succeeded(f"job-{place}", index=place) for place in range(500)]
    failed = [
        unsuccessful(f"bad-{place}", State.FAILED, FailureClass.QUOTA, index=500 + place)
        for place in range(5)
    ]

    text = report(tmp_path, jobs + failed, most_jobs=50).read_text()

    shown = data_of(text)["jobs"]
    assert len(shown) == 50
    assert sum(job[2] == "failed" for job in shown) == 5
    assert "of all 505 jobs" in text
    assert "500 of 505 jobs succeeded" in text


def test_empty_run(tmp_path):
    """A run in which there was nothing to do has a report that says so."""
    assert "There was nothing to do." in report(tmp_path, []).read_text()


def test_time_bins_stay_few():
    """However long a run was, its chart has at most a few hundred intervals, and loses no count."""
    bins = TimeBins("done", "throttled")
    for place in range(5000):
        bins.add("done", AT + 37 * place)
    bins.add("throttled", AT + 3)

    found = bins.bins()

    assert found is not None
    assert len(found.counts["done"]) <= 200
    assert sum(found.counts["done"]) == 5000
    assert sum(found.counts["throttled"]) == 1


def test_time_bins_with_a_clock_gone_wild():
    """One job with an impossible time does not take the memory of the process."""
    bins = TimeBins("done")
    bins.add("done", 0.0)
    bins.add("done", 4e12)

    found = bins.bins()

    assert found is not None
    assert len(found.counts["done"]) <= 200


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    folder = tmp_path_factory.mktemp("run")
    (folder / "assets").mkdir()
    with browser(tmp_path_factory.mktemp("profile")) as session:
        session.folder = folder
        session.open(report(folder))
        yield session


FOUND = "return document.getElementById('found').textContent"
CARDS = "return [...document.querySelectorAll('.card .id')].map((node) => node.textContent)"
CHOOSE = """
    for (const id of ['state', 'model', 'cls']) document.getElementById(id).value = arguments[0][id] || '';
    document.getElementById('search').value = arguments[0].search || '';
    filterJobs();
"""


def test_filters_filter(page):
    """State, model, class of failure and words each narrow what is shown, and together."""
    cases = {
        "40 of 40 jobs": {},
        "8 of 40 jobs": {"state": "failed"},
        "1 of 40 jobs": {"model": "seedance-1-5-pro-251215"},
        "0 of 40 jobs": {"model": "seedance-1-5-pro-251215", "cls": "moderation"},
    }
    for said, choice in cases.items():
        page.run(CHOOSE, choice)
        assert page.run(FOUND) == said
    page.run(CHOOSE, {"search": "KITTEN take 17"})
    assert page.run(CARDS) == ["job-17"]


def test_gallery_is_paged(page):
    """A page of the gallery has a bounded number of cards, and the next page has the next."""
    page.run(CHOOSE, {})
    assert len(page.run(CARDS)) == 24

    page.run("[...document.querySelectorAll('.pager button')].find((b) => b.textContent === 'Next').click()")

    assert page.run(CARDS)[0] == "job-24"


def test_hostile_text_does_not_run(page):
    """Every hostile prompt is shown as text, and none of it runs."""
    page.run(CHOOSE, {"state": "failed"})

    assert page.run("return document.title") == "kittens · run report"
    assert (
        page.run("return document.querySelectorAll('#gallery img, #gallery script, #gallery b').length") == 0
    )
    assert HOSTILE[0][:150] in page.run(CARDS)


def test_no_request_leaves_the_file(page):
    """Opening the page and turning it asks no host for anything, and breaks no rule of its policy."""
    page.run(CHOOSE, {})

    messages = [json.loads(message)["message"] for message in page.log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # The browser's own start page asks for its parts as well.
    asked = [params["request"]["url"] for params in sent if params["documentURL"].startswith("file://")]
    assert asked
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert [
        line for line in page.log("browser") if "Content Security Policy" in line or "Uncaught" in line
    ] == []


def test_charts_are_drawn_and_nothing_overflows(page):
    """Each chart has its drawing with a label for who can't see it, and no text runs out of the page."""
    page.run(CHOOSE, {})

    labels = page.run(
        "return [...document.querySelectorAll('figure svg')].map((svg) => svg.getAttribute('aria-label'))"
    )
    assert len(labels) == 3
    assert all(labels)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth") is True


def test_video_plays_and_absent_one_is_said(page):
    """A video beside the page plays, whatever its name; one that is gone is said to be."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to make a video")
    made = page.folder / "assets" / "sky #1?.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x36:rate=5", "-t", "1", "-pix_fmt", "yuv420p"]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *source, str(made)], check=True)

    page.run(CHOOSE, {"search": "job-01"})
    played = page.run(
        "const video = document.querySelector('.card video'); video.muted = true;"
        "return video.play().then(() => [video.videoWidth, video.videoHeight])"
    )
    page.run(CHOOSE, {"search": "job-05"})
    absent = page.run(
        "const video = document.querySelector('.card video'); if (video) video.preload = 'metadata';"
        "return new Promise((done) => { const look = () => { const said = document.querySelector('.stage');"
        " if (said) done(said.textContent); else setTimeout(look, 20); }; look(); })"
    )

    assert played == [64, 36]
    assert absent == "assets/absent.mp4 is not beside this report"
