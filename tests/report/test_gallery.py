"""What a person sees of the report and does with it, in a real browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from runner.core.units import format_duration, format_size
from tests.report.browser import Browser, show
from tests.report.pages import report
from tests.results.records import HOSTILE, VIDEO, succeeded


def go(page: Browser, settings: str) -> None:
    """Type other settings into the address of the page."""
    page.run(
        "return new Promise((done) => { addEventListener('hashchange', () => done(), { once: true });"
        " location.hash = arguments[0]; })",
        settings,
    )


def matching(page: Browser) -> str:
    text: str = page.run("return document.getElementById('matching').textContent")
    return text.partition(",")[0]


def cards(page: Browser) -> list[str]:
    ids: list[str] = page.run("return cards().map((card) => card.job[FIELD.id])")
    return ids


def current(page: Browser) -> str | None:
    job_id: str | None = page.run("return currentCard()?.job[FIELD.id] ?? null")
    return job_id


def others(page: Browser) -> list[str]:
    ids: list[str] = page.run(
        "return [...document.querySelectorAll('#others .id')].map((node) => node.textContent)"
    )
    return ids


def test_gallery_comes_first_and_shows_clips(page: Browser) -> None:
    """The first screen has clips, succeeded ones first; jobs without a video are rows of a table."""
    clips, failures = page.run(
        "return ['.card', '#failures'].map((name) => document.querySelector(name).getBoundingClientRect().top)"
    )
    assert clips < 900
    assert clips < failures
    assert [f"job-{n:02}" for n in range(24)] == cards(page)
    assert "unclear" in others(page)
    assert not set(cards(page)) & set(others(page))


@pytest.mark.slow
def test_address_holds_the_filters(page: Browser, folder: Path) -> None:
    """State, model, failure class, verdict and search words filter the jobs, alone and together, from the address."""
    cases = {
        "": "40 of 40 jobs",
        "state=failed": "8 of 40 jobs",
        "model=seedance-1-5-pro-251215": "1 of 40 jobs",
        "model=seedance-1-5-pro-251215&class=moderation": "0 of 40 jobs",
        "verdict=none&state=succeeded": "31 of 40 jobs",
        f"q={quote('KITTEN job-17')}": "1 of 40 jobs",
        "state=no-such-state&sort=%00&page=-7&by=x": "40 of 40 jobs",
    }
    found = {"": matching(page)}
    for settings in list(cases)[1:]:
        go(page, settings)
        found[settings] = matching(page)
    assert cases == found
    show(page, folder, "state=failed")
    assert "8 of 40 jobs" == matching(page)


def test_filters_change_the_address(page: Browser) -> None:
    """What is chosen on the page is in its address, and an address that is typed there is obeyed."""
    page.run(
        "const s = document.getElementById('state'); s.value = 'failed'; s.dispatchEvent(new Event('change'))"
    )
    assert "#state=failed" == page.run("return location.hash")

    go(page, "state=uncertain")

    assert ("1 of 40 jobs", "uncertain") == (
        matching(page),
        page.run("return document.getElementById('state').value"),
    )


def test_counts_and_failures_are_filters(page: Browser) -> None:
    """A count and a failure filter the jobs when they are clicked; a second click on a count removes the filter."""
    click = "document.querySelector(arguments[0]).click()"
    page.run(click, ".chip[data-value=failed]")
    assert ("8 of 40 jobs", "true") == (
        matching(page),
        page.run("return document.querySelector('.chip[data-value=failed]').getAttribute('aria-pressed')"),
    )
    page.run(click, ".chip[data-value=failed]")
    assert "40 of 40 jobs" == matching(page)
    page.run(click, "#failures [data-value=uncertain_submit]")
    assert ["unclear"] == others(page)
    assert "None of these jobs has a video; they are listed below." == page.run(
        "return document.getElementById('cards').textContent"
    )


def test_sorting(page: Browser) -> None:
    """Clips are sorted by numbers, texts and any key of requests and metadata; those without the value come last."""
    cases = {
        "sort=bytes&order=down&state=succeeded": "late job-29 job-28",
        "sort=request.seed": "job-29 job-28 job-27",
        "sort=request.seed&order=down": "job-00 job-01 job-02",
        "sort=metadata.split&q=job-": "job-00 job-05 job-10",
        "sort=id&order=down&q=job-": "job-29 job-28 job-27",
        "sort=finished&order=down": "job-29 job-28 job-27",
    }
    found = {}
    for settings in cases:
        page.run(
            "change({ ...SETTINGS, ...Object.fromEntries(new URLSearchParams(arguments[0])) })", settings
        )
        found[settings] = " ".join(cards(page)[:3])
    assert cases == found


def test_comparison(page: Browser, folder: Path) -> None:
    """A row has the clips of a prompt, a column those with a value of what is compared."""
    show(page, folder, "by=model&q=kitten+take")
    table = page.run(
        "return [...document.querySelectorAll('#cards tr')].slice(0, 3).map((row) => [...row.children].map((cell) =>"
        " [...cell.querySelectorAll('.card')].map((card) => card.job[FIELD.id]).join() || cell.textContent))"
    )
    assert [
        ["prompt", "wan2.7-i2v", "wan2.7-t2v"],
        ["A kitten, take 0", "job-00", "job-01"],
        ["A kitten, take 1", "job-02", "job-03"],
    ] == table


def test_pages_of_the_gallery(page: Browser, folder: Path) -> None:
    """A page has as many clips as wanted, and the page is in the address."""
    page.run("[...document.querySelectorAll('#pager button')].find((b) => b.textContent === 'Next').click()")
    assert ("job-24", "#page=2") == (cards(page)[0], page.run("return location.hash"))
    show(page, folder, "size=48")
    assert 31 == len(cards(page))


@pytest.mark.slow
def test_keyboard_moves_and_judges(page: Browser) -> None:
    """Arrows move over clips and pages, k and r judge a clip and continue, enter enlarges, and a field keeps its keys."""
    page.press("right")
    assert "job-00" == current(page)
    page.press("k", "r", "left", "down", "up")
    assert "job-01" == current(page)
    page.press(*["right"] * 23)
    assert ("job-24", "#page=2") == (current(page), page.run("return location.hash"))
    page.press("enter", "k", "r", "escape")
    # The browser tells that the window is closed a moment later.
    page.run(
        "return new Promise((done) => { const check = () => (document.querySelector('#large > *') ? setTimeout(check, 10)"
        " : done()); check(); })"
    )
    assert "job-26" == current(page)
    page.run("document.getElementById('q').focus()")
    page.press("k", "r")
    expected = {"job-00": "keep", "job-01": "reject", "job-24": "keep", "job-25": "reject"}
    assert expected == page.run("return Object.fromEntries(verdicts)")
    assert "2 kept, 2 rejected, 27 left" == page.run("return document.getElementById('judged').textContent")


def test_verdicts_of_a_page_without_a_server(page: Browser, folder: Path) -> None:
    """They outlive the page in the browser, and can be downloaded as lines, until the run has them."""
    page.press("right", "k", "r")
    # What one page has stored reaches the next one soon, not at once.
    deadline = time.monotonic() + 20
    show(page, folder, "verdict=reject")
    while matching(page) != "1 of 40 jobs" and time.monotonic() < deadline:
        show(page, folder, "verdict=reject")
    assert "1 of 40 jobs" == matching(page)

    lines = page.run(
        "return new Promise((done) => {"
        " URL.createObjectURL = (blob) => { blob.text().then(done); return 'data:,'; };"
        " [...document.querySelectorAll('#verdicts button')].find((b) => b.textContent.startsWith('Download')).click(); })"
    )

    verdicts = [json.loads(line) for line in lines.splitlines()]
    assert [("job-00", "keep"), ("job-01", "reject")] == [(v["job_id"], v["verdict"]) for v in verdicts]
    assert {"job_id", "verdict", "at"} == set(verdicts[0])

    report(folder, verdicts={"job-00": "keep", "job-01": "reject"})
    show(page, folder)
    is_offered = page.run("return document.getElementById('verdicts').textContent.includes('Download')")
    report(folder)
    assert is_offered is False


def test_takes_are_beside_each_other(chromium: Browser, tmp_path: Path) -> None:
    """Of a job with several videos the one of its present request is shown, and enlarged the others are beside it."""
    old = replace(VIDEO, path="assets/old.mp4", request={"prompt": "Another kitten"})
    report(tmp_path, [succeeded("sky", assets=(old, VIDEO))])
    show(chromium, tmp_path)

    chromium.press("right", "enter")

    assert ["assets/sky.mp4", "assets/old.mp4"] == chromium.run(
        "return [...document.querySelectorAll('#large video')].map((video) => video.getAttribute('src'))"
    )
    assert "A kitten looks up" == chromium.run("return document.querySelector('.card .prompt').textContent")
    assert "2 takes" in chromium.run("return document.querySelector('.facts').textContent")


def test_checks_are_shown(chromium: Browser, tmp_path: Path) -> None:
    """What checks found is among the details, can be sorted by, and gives a verdict, which a person may change."""
    black = {"black": {"ok": False, "black_s": 2.5}, "score": 0.25}
    verdict = {"value": "reject", "by": "checks", "why": "black"}
    warning = "the video looks like that of <b>'sky'</b>"
    jobs = [
        succeeded("bad", index=0, checks=black, verdict=verdict, warnings=("black",)),
        succeeded("good", index=1, checks={"black": {"ok": True}, "score": 0.125}, warnings=(warning,)),
        succeeded("kept", index=2, checks=black, verdict=verdict),
    ]
    report(tmp_path, jobs, {"kept": "keep"})

    show(chromium, tmp_path, "sort=check.score")
    assert ["good", "bad", "kept"] == cards(chromium)
    notes = "return [...document.querySelectorAll('.card .error, .card .warning')].map((node) => node.textContent)"
    assert [f"warning: {warning}", "rejected by checks: black", "rejected by checks: black"] == chromium.run(
        notes
    )
    show(chromium, tmp_path, "verdict=reject")
    chromium.press("right", "enter")
    assert "failed, black_s 2.5" in chromium.run("return document.querySelector('#large dl').textContent")
    assert ["bad"] == cards(chromium)


def test_known_verdicts_are_shown(chromium: Browser, tmp_path: Path) -> None:
    """Verdicts that the run has already are marked, and count."""
    report(tmp_path, verdicts={"job-03": "reject"})
    show(chromium, tmp_path, "verdict=reject")

    assert ["job-03"] == cards(chromium)
    assert "true" == chromium.run(
        "return document.querySelector('.judge .reject').getAttribute('aria-pressed')"
    )


def test_numbers_are_formatted_as_in_the_terminal(page: Browser) -> None:
    """The script's forms of a duration and a size are those of `core.units`."""
    durations = [0, 0.25, 0.9996, 1, 1.5, 9.94, 9.96, 42, 59.6, 93.1, 100, 3599.6, 5400, 7325, 86399, 93600]
    sizes = [0, 999, 1000, 1_048_576, 99_950, 123_456_789, 4_000_000_000]

    assert [format_duration(seconds) for seconds in durations] == page.run(
        "return arguments[0].map(formatDuration)", durations
    )
    assert [format_size(size) for size in sizes] == page.run("return arguments[0].map(formatSize)", sizes)


def test_hostile_text_does_not_run(page: Browser) -> None:
    """Every hostile prompt is shown as text, and none of it runs."""
    page.run("change({ state: 'failed' })")

    assert "kittens · run report" == page.run("return document.title")
    assert 0 == page.run(
        "return document.querySelectorAll('#gallery img, #gallery script, #gallery b').length"
    )
    assert HOSTILE[0][:150] in others(page)


def test_no_request_leaves_the_file(page: Browser) -> None:
    """Opening and using the page makes no request to a host, and violates no rule of its policy."""
    page.press("right", "k", "enter", "escape")

    messages = [json.loads(message)["message"] for message in page.log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # The browser's own start page makes requests as well.
    urls = [params["request"]["url"] for params in sent if params["documentURL"].startswith("file://")]
    assert urls
    assert [] == [url for url in urls if not url.startswith(("file://", "data:"))]
    assert [] == [
        line for line in page.log("browser") if "Content Security Policy" in line or "Uncaught" in line
    ]
