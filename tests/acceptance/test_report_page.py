"""The report of a real run with every failure that the API can cause, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import results_by_id, run_simulator, runner, write_fast_manifest
from tests.report.browser import CHROMIUM, DRIVER, browser

HOSTILE = "</script><img src=x onerror=alert(1)> \\u202e小猫"

JOBS = f"""
jobs:
  - id: job-${{n}}
    repeat: 40
    request: {{model: seedance-1-0-pro-250528, prompt: "{HOSTILE} ${{n}}", seconds: 4, size: 480p}}
    metadata: {{caption: "{HOSTILE}"}}
"""

SCENARIO = """
version: 1
seed: 1
generate_s: [0.1, 0.4]
rules:
  - {name: invalid, match: {nth: 2, every: 40}, submit: {fault: bad_request, times: always}}
  - {name: forbidden, match: {nth: 5, every: 40}, submit: {fault: forbidden, times: always}}
  - {name: no channel, match: {nth: 8, every: 40}, submit: {fault: no_channel, times: always}}
  - {name: throttled, match: {nth: 9, every: 40}, submit: throttled}
  - {name: uncertain, match: {nth: 11, every: 40}, submit: {fault: no_id}}
  - {name: moderated, match: {nth: 14, every: 40}, task: {end: moderation, message: '<b>refused</b>'}}
  - {name: failed, match: {nth: 17, every: 40}, task: {end: failed}}
  - {name: cancelled, match: {nth: 20, every: 40}, task: {end: cancelled}}
  - {name: expired, match: {nth: 23, every: 40}, task: {end: expired}}
  - {name: lost, match: {nth: 26, every: 40}, task: {end: lost}}
  - {name: never, match: {nth: 29, every: 40}, task: {end: never}}
  - {name: undelivered, match: {nth: 32, every: 40}, asset: {fault: server_error, times: always},
     content: {fault: bad_gateway, times: always}}
  - {name: invalid asset, match: {nth: 35, every: 40}, asset: {fault: no_moov, times: always},
     content: {fault: no_moov, times: always}}
"""

CLASSES = {
    "invalid_request",
    "forbidden",
    "unavailable",
    "uncertain_submit",
    "moderation",
    "remote_failed",
    "remote_cancelled",
    "remote_expired",
    "lost",
    "poll_timeout",
    "download_failed",
    "asset_invalid",
}

FILTER = """
    change({ state: arguments[0], class: arguments[1] });
    return document.getElementById('matching').textContent.split(',')[0];
"""


@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver")
def test_report_of_a_run_with_failures_opens_in_a_browser(tmp_path: Path) -> None:
    """
    Every failure class is shown, the filters work, a video plays, hostile text stays text, nothing is requested.
    """
    with run_simulator(tmp_path, SCENARIO) as simulator:
        manifest = write_fast_manifest(tmp_path, "gallery", simulator.base_url, JOBS)
        done = runner("run", manifest, "-o", tmp_path / "out")
    results = results_by_id(tmp_path / "out").values()
    assert {line["error"]["class"] for line in results if line["error"]} == CLASSES, done.stderr

    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "out" / "report.html")
        found = {cls: page.run(FILTER, "", cls) for cls in CLASSES}
        succeeded = page.run(FILTER, "succeeded", "")
        size = page.run(
            "const video = document.querySelector('.card video'); video.muted = true;"
            "return video.play().then(() => [video.videoWidth, video.videoHeight])"
        )
        injected = page.run("return document.querySelectorAll('#gallery img, #gallery b').length")
        messages = [json.loads(entry)["message"] for entry in page.log("performance")]

    assert dict.fromkeys(CLASSES, "1 of 40 jobs") == found
    assert ("28 of 40 jobs", [854, 480], 0) == (succeeded, size, injected)
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"].startswith("file://")
    ]
    assert [] == [url for url in urls if not url.startswith(("file://", "data:"))]
