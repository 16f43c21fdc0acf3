"""The report is one file that shows the whole run, makes no request, and runs no foreign text."""

from __future__ import annotations

import html
import json
import re
import shlex
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from runner.core.lifecycle import State
from runner.core.model import Attempt, FailureClass
from runner.report.page import ReportBuilder
from tests.report.pages import report
from tests.results.records import AT, succeeded, unsuccessful


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
    assert added <= {"article", "h3", "span", "code", "button"}
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
        a for _, a in page.tags if a.get("src") or not (a.get("href") or "#").startswith(("#", "data:,"))
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


def test_listed_jobs_take_no_memory(tmp_path: Path) -> None:
    """The jobs that a page lists are in a file until it is written, so that ten thousand add no megabytes to a run."""
    jobs = [succeeded(f"job-{n}", index=-n, request={"prompt": "p" * 900}) for n in range(1000)]
    with TemporaryFile() as rows:
        builder = ReportBuilder(rows=rows)
        tracemalloc.start()
        try:
            for job in jobs:
                builder.add_row(job)
            grown_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

        listed = list(builder.listed())

    assert grown_bytes < 100 * len(jobs)
    assert [f'["job-{n}"'.encode() for n in reversed(range(1000))] == [row.split(b",")[0] for row in listed]


def test_empty_run(tmp_path: Path) -> None:
    """The report of a run without jobs says so."""
    assert "There was nothing to do." in report(tmp_path, []).read_text()


def test_commands_name_the_directory(tmp_path: Path) -> None:
    """The commands beside a failure can be pasted into a shell, wherever that is."""
    folder = tmp_path / "my runs; rm"
    folder.mkdir()
    text = report(folder, [unsuccessful("sky", State.FAILED, FailureClass.LOST)]).read_text()

    (command,) = re.findall(r'<p class="command"><code>(.*?)</code>', text)
    assert ["runner", "rerun", str(folder), "--class", "lost"] == shlex.split(html.unescape(command))


def test_time_in_which_nothing_happened_is_no_work(tmp_path: Path) -> None:
    """The night between two processes is left out of the time at work."""
    night = 8 * 3600
    jobs = [
        succeeded(
            f"job-{n}", submitted_at=at, finished_at=at + 99, attempts=(Attempt(1, at, "accepted", "t", 200),)
        )
        for n, at in enumerate([AT, AT + 60, AT + night])
    ]

    text = report(tmp_path, jobs).read_text()

    tiles = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert "8h 2m" == tiles["from the first submission to the last end"]
    # Four minutes, as exactly as the bins of five minutes tell.
    assert "6m 39s" == tiles["at work"]
