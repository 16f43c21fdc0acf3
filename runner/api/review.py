"""Judge the videos of a run in a browser on this machine. The run is only read, so it may be active."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from runner.api.asset_store import file_of
from runner.api.report import build_page, open_report
from runner.disk import write_error
from runner.report.page import page_chunks
from runner.report.posters import PosterMaker
from runner.report.review_server import ReviewServer
from runner.results.verdicts import VerdictsWriter
from runner.store import query
from runner.store.database import reading
from runner.store.files import upload_of


async def serve_review(run_dir: Path, *, port: int, token: str, ready: Callable[[str], None]) -> None:
    """
    Serve the report of a run, and save the verdicts that are given there, until this is canceled.

    Args:
        port: 0 for any free port.
        token: A secret that the address of the page has, and nobody else knows.
        ready: Gets the address once it can be opened.

    Raises:
        StoreMissing, StoreDamaged, StoreTooNew: It is not a run directory, or one that can't be read.
        ReportError: There are no jobs.
        RunDirError, DiskFull: The verdicts can't be written.
        OSError: The port is taken.
    """
    with open_report(run_dir):
        pass
    posters = PosterMaker(run_dir)
    with closing(_open_verdicts(run_dir)) as verdicts:
        server = ReviewServer(
            run_dir,
            token,
            lambda: _page(run_dir, posters),
            lambda job_id, verdict: _save(run_dir, verdicts, job_id, verdict),
            lambda path: _find_upload(run_dir, path),
        )
        try:
            ready(await server.start(port))
            await asyncio.Event().wait()
        finally:
            await server.stop()


def _open_verdicts(run_dir: Path) -> VerdictsWriter:
    try:
        return VerdictsWriter(run_dir)
    except OSError as error:
        raise write_error(error, VerdictsWriter.path_in(run_dir)) from None


def _page(run_dir: Path, posters: PosterMaker) -> bytes:
    return b"".join(page_chunks(*build_page(run_dir, posters, now_at=time.time(), is_review=True)))


def _find_upload(run_dir: Path, path: str) -> Path | None:
    with reading(run_dir) as reader:
        url = upload_of(reader, path)
    return None if url is None else file_of(url)


def _save(run_dir: Path, verdicts: VerdictsWriter, job_id: str, verdict: str) -> bool:
    with reading(run_dir) as reader:
        if query.job(reader, job_id, waiting_since=0.0) is None:
            return False
    verdicts.append(job_id, verdict, at=time.time())
    return True
