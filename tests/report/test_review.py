"""`runner review`: the page on loopback, for nobody else, and verdicts that are saved as they are given."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from yarl import URL

from runner.api.review import serve_review
from runner.core.lifecycle import State
from runner.errors import ReportError, RunDirError
from runner.results.verdicts import read_verdicts
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.report.browser import Browser


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Create a run with two clips and a failed job."""
    states = {"a": State.SUCCEEDED, "b": State.SUCCEEDED, "c": State.FAILED}
    return make_run(tmp_path / "out", write_manifest(tmp_path / "m.yaml", *states), states)


@asynccontextmanager
async def review(run_dir: Path) -> AsyncIterator[tuple[ClientSession, URL]]:
    """Serve a run for the length of a block."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server: asyncio.Future[None] = asyncio.ensure_future(
        serve_review(run_dir, port=0, token="secret", ready=address.set_result)
    )
    waiting: list[asyncio.Future[Any]] = [server, address]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        await server
    try:
        async with ClientSession() as session:
            yield session, URL(await address)
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def judge(
    session: ClientSession, url: URL, job_id: str = "a", verdict: str = "keep", **headers: str
) -> ClientResponse:
    body = json.dumps({"job_id": job_id, "verdict": verdict})
    sent = {"Origin": str(url.origin()), "Content-Type": "application/json", **headers}
    return await session.post(url / "verdicts", data=body, headers=sent)


async def test_page_and_clips(run_dir: Path) -> None:
    """The page is the report with the verdicts so far, and plays the clips, in parts too."""
    async with review(run_dir) as (session, url):
        assert ("127.0.0.1", "/secret/") == (url.host, url.path)
        await judge(session, url, "b", "reject")
        page = await session.get(url)
        clip = await session.get(url / "assets/a.mp4", headers={"Range": "bytes=2-4"})

        assert '"review":true' in await page.text()
        assert '"reject",""]' in await page.text()
        assert (206, "video/mp4", b"345") == (clip.status, clip.content_type, await clip.read())
        assert "Access-Control-Allow-Origin" not in page.headers
        assert ("no-store", "no-referrer") == (page.headers["Cache-Control"], page.headers["Referrer-Policy"])
    assert not (run_dir / "report.html").exists()


async def test_clip_that_was_uploaded_to_a_folder(run_dir: Path) -> None:
    """The page has its path, and the server reads it from where it is; one that is gone from there is not found."""
    store = run_dir.parent / "a store"
    store.mkdir()
    uploaded = (run_dir / "assets/a.mp4").rename(store / "a.1f.mp4")
    with Store(run_dir) as opened, opened.transaction() as connection:
        urls = json.dumps({"video": uploaded.as_uri()})
        connection.execute(
            "INSERT INTO asset_urls SELECT seq, attempt, ? FROM jobs WHERE job_id = 'a'", (urls,)
        )
    async with review(run_dir) as (session, url):
        assert '"assets/a.mp4"' in await (await session.get(url)).text()
        clip = await session.get(url / "assets/a.mp4", headers={"Range": "bytes=2-4"})
        assert (206, b"345") == (clip.status, await clip.read())
        uploaded.unlink()
        assert 404 == (await session.get(url / "assets/a.mp4")).status


async def test_verdicts_are_saved(run_dir: Path) -> None:
    """Each is in the file when it is answered, while another process works on the run too."""
    with Store(run_dir):
        async with review(run_dir) as (session, url):
            for job_id, verdict in (("a", "keep"), ("b", "keep"), ("a", "reject")):
                assert 204 == (await judge(session, url, job_id, verdict)).status
                assert verdict == read_verdicts(run_dir / "verdicts.jsonl")[job_id]

    assert 3 == len((run_dir / "verdicts.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("status", "job_id", "verdict", "headers"),
    [
        (404, "unknown", "keep", {}),
        (400, "a", "perhaps", {}),
        (403, "a", "keep", {"Origin": "https://example.com"}),
        (403, "a", "keep", {"Origin": "null"}),
        (403, "a", "keep", {"Origin": "http://127.0.0.1:1"}),
        (415, "a", "keep", {"Content-Type": "text/plain"}),
        (404, "a", "keep", {"Host": "attacker.example"}),
        (413, "a" * 20_000, "keep", {}),
    ],
)
async def test_verdicts_that_are_refused(
    run_dir: Path, status: int, job_id: str, verdict: str, headers: dict[str, str]
) -> None:
    """Another origin, another host, an unknown job and what is not a verdict change nothing."""
    async with review(run_dir) as (session, url):
        assert status == (await judge(session, url, job_id, verdict, **headers)).status

    assert "" == (run_dir / "verdicts.jsonl").read_text()


async def test_a_verdict_needs_an_origin(run_dir: Path) -> None:
    """A program that names no origin is not the page."""
    async with review(run_dir) as (session, url):
        response = await session.post(url / "verdicts", json={"job_id": "a", "verdict": "keep"})
        assert 403 == response.status


async def test_nothing_else_is_served(run_dir: Path) -> None:
    """Without the token there is nothing, and with it only the page and the media below assets/."""
    (run_dir.parent / "private.mp4").write_bytes(b"private")
    (run_dir / "assets/link.mp4").symlink_to(run_dir.parent / "private.mp4")
    (run_dir / "assets/page.html").write_text("<script>alert(1)</script>")
    async with review(run_dir) as (session, url):
        origin = url.origin()
        for path in (
            "/",
            "/assets/a.mp4",
            "/secre/",
            "/secret2/assets/a.mp4",
            "/secret/run.db",
            "/secret/assets/..%2frun.db",
            "/secret/assets/%2e%2e/%2e%2e/private.mp4",
            "/secret/assets/link.mp4",
            "/secret/assets/page.html",
            "/secret/assets/no%00thing.mp4",
            "/secret/verdicts.jsonl",
        ):
            response = await session.get(URL(f"{origin}{path}", encoded=True))
            assert response.status in (404, 405), path
        assert 404 == (await session.get(url, headers={"Host": "attacker.example"})).status


async def test_a_run_that_can_not_be_reviewed(tmp_path: Path, run_dir: Path) -> None:
    """A run without jobs, and one whose verdicts can't be written, are errors before anything is served."""
    with Store(tmp_path / "empty"):
        pass
    with pytest.raises(ReportError, match="holds no jobs yet"):
        async with review(tmp_path / "empty"):
            pass

    (run_dir / "verdicts.jsonl").mkdir()
    with pytest.raises(RunDirError, match="verdicts.jsonl can't be written"):
        async with review(run_dir):
            pass


@contextmanager
def review_process(run_dir: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the command, and yield the address that it prints."""
    words = [sys.executable, "-m", "runner", "review", str(run_dir)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, pytest.param(40, marks=pytest.mark.extended)])
def test_clips_are_judged_by_keyboard(chromium: Browser, tmp_path: Path, count: int) -> None:
    """A person judges clips, 40 on two pages, with a key each; Ctrl-C ends the command, and a new one knows the verdicts."""
    ids = [f"clip-{n:02}" for n in range(count)]
    run_dir = make_run(
        tmp_path / "out", write_manifest(tmp_path / "m.yaml", *ids), dict.fromkeys(ids, State.SUCCEEDED)
    )
    if count == 40 and shutil.which("ffmpeg") is not None:
        source = ["-f", "lavfi", "-i", "testsrc=size=64x36:rate=5", "-t", "1", "-pix_fmt", "yuv420p"]
        subprocess.run(["ffmpeg", "-loglevel", "error", *source, str(tmp_path / "clip.mp4")], check=True)
        for job_id in ids:
            shutil.copy(tmp_path / "clip.mp4", run_dir / "assets" / f"{job_id}.mp4")
    keys = ["kr"[n % 3 == 0] for n in range(count)]
    rejected = keys.count("r")
    judged = f"{count - rejected} kept, {rejected} rejected, 0 left"
    counts = "return document.getElementById('judged').textContent"

    with review_process(run_dir) as (url, process):
        chromium.visit(url)
        chromium.press("right", *keys)
        chromium.run("return saving")
        assert judged == chromium.run(counts)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(30)
    words = {"k": "keep", "r": "reject"}
    assert {job_id: words[key] for job_id, key in zip(ids, keys, strict=True)} == read_verdicts(
        run_dir / "verdicts.jsonl"
    )

    chromium.press("left", "k")
    trouble = chromium.run(
        "return saving.then(() => document.getElementById('trouble').textContent + document.getElementById('judged').textContent)"
    )
    assert trouble.startswith(f"The verdict on {ids[-2]} was not saved: runner review does not answer")
    assert trouble.endswith(judged)

    with review_process(run_dir) as (url, _):
        chromium.visit(f"{url}#verdict=reject")
        assert judged == chromium.run(counts)
        assert rejected == chromium.run("return cards().length")
