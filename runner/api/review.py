"""
The web server of `runner review`: the report of a run, which is only read and may be active, with verdicts that are saved.

Other programs on the machine, and other pages in the same browser, must neither see the videos nor judge them.
So the server listens on loopback only, every address has a secret token, a request that names another host (as after
DNS rebinding) is refused, and a verdict is accepted only from the server's own page.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from aiohttp import web

from runner.api.asset_store import file_of
from runner.api.report import PosterMaker, build_page, open_report
from runner.core.filenames import ASSETS_NAME
from runner.disk import write_error
from runner.errors import RunnerError
from runner.jsontext import loads
from runner.report.page import page_chunks
from runner.results.verdicts import VERDICTS, VerdictsWriter
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


_HOST = "127.0.0.1"
_MAX_BODY_BYTES = 10_000
_SHUTDOWN_TIMEOUT_S = 0.5
# The port may be another one, as when it is forwarded to the reviewer's machine.
_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?")
_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
"""What is served of the assets; nothing else in a foreign run directory reaches the browser."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ReviewServer:
    """
    Serves a run for review, from `start` to `stop`.

    Args:
        run_dir: The run directory, whose assets are served.
        token: The secret part of the addresses.
        make_page: Returns the page; called for each load, so that a reload shows the newest state.
        save: Saves the verdict on a job durably, and returns whether there is such a job. Both are called in threads,
            but never twice at once.
        find_upload: Returns where the file of an asset is that is not in the run directory, by its path there.
    """

    def __init__(
        self,
        run_dir: Path,
        token: str,
        make_page: Callable[[], bytes],
        save: Callable[[str, str], bool],
        find_upload: Callable[[str], Path | None] = lambda path: None,
    ) -> None:
        self._run_dir = run_dir
        self._find_upload = find_upload
        self._token = token
        self._make_page = make_page
        self._save = save
        self._saving, self._making = asyncio.Lock(), asyncio.Lock()
        app = web.Application(middlewares=[self._guard], client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/{token}/", self._page)
        app.router.add_post("/{token}/verdicts", self._verdict)
        app.router.add_get(f"/{{token}}/{ASSETS_NAME}/{{path:.+}}", self._asset)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)

    async def start(self, port: int) -> str:
        """
        Start to listen on loopback, and return the address of the page.

        Raises:
            OSError: The port is taken.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, _HOST, port).start()
        return f"http://{_HOST}:{self._runner.addresses[0][1]}/{self._token}/"

    async def stop(self) -> None:
        """Stop to listen."""
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse what does not come from the page, without a word about what is there."""
        response: web.StreamResponse
        token = request.match_info.get("token", "")
        if not _OWN_HOST.fullmatch(request.host) or not hmac.compare_digest(
            token.encode(), self._token.encode()
        ):
            response = web.Response(status=404, text="not found")
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=error.text)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        async with self._making:
            page = await asyncio.to_thread(self._make_page)
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        folder = (self._run_dir / ASSETS_NAME).resolve()
        name = request.match_info["path"]
        try:
            path = (folder / name).resolve(strict=True)
        except (OSError, ValueError):
            found = await asyncio.to_thread(self._find_upload, f"{ASSETS_NAME}/{name}")
            if found is None:
                raise web.HTTPNotFound from None
            path = folder = found
        media_type = _MEDIA_TYPES.get(path.suffix.lower())
        # A link in a foreign directory may lead to any file of the user's.
        if media_type is None or not path.is_relative_to(folder) or not path.is_file():
            raise web.HTTPNotFound
        # A clip that plays in a loop is not read again each time.
        headers = {"Content-Type": media_type, "Cache-Control": "private, max-age=600"}
        return web.FileResponse(path, headers=headers)

    async def _verdict(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Origin") != f"http://{request.host}":
            raise web.HTTPForbidden(text="verdicts are accepted from the page of this server only")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="a verdict is JSON")
        job_id, verdict = _parse_verdict(await request.read())
        try:
            async with self._saving:
                is_known = await asyncio.to_thread(self._save, job_id, verdict)
        except RunnerError as error:
            raise web.HTTPInsufficientStorage(text=error.message) from None
        except OSError as error:
            raise web.HTTPInsufficientStorage(text=error.strerror or str(error)) from None
        if not is_known:
            raise web.HTTPNotFound(text="the run has no such job")
        return web.Response(status=204)


def _parse_verdict(body: bytes) -> tuple[str, str]:
    try:
        value = loads(body)
        job_id, verdict = value["job_id"], value["verdict"]
    except (ValueError, TypeError, KeyError, RecursionError):
        job_id = verdict = None
    if not isinstance(job_id, str) or verdict not in VERDICTS:
        raise web.HTTPBadRequest(text='a verdict is {"job_id": "ID", "verdict": "keep"}, or "reject"')
    return job_id, str(verdict)
