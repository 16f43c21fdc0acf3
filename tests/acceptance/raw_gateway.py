"""A gateway and an asset host that answer with given bytes, for the answers of gateways that nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from runner.simulator.video import video, video_spec

Answer = bytes | Callable[[str], bytes]
"""The bytes of an answer, or a function that makes them from the path of the request."""


def answer(body: bytes | str | Mapping[str, object], status: str = "200 OK", **headers: str) -> bytes:
    """Return an answer with a body of JSON, or of these bytes."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("utf-8", "surrogateescape") + raw


def _film() -> bytes:
    made = video(video_spec({"model": "seedance-1-0-pro-250528", "seconds": 4, "size": "480p"}, "1f" * 32))
    return made[0 : made.size]


FILM = _film()


def film(extra: bytes = b"", **headers: str) -> bytes:
    """Return an answer with a video, and some bytes behind it."""
    return answer(FILM + extra, **{"Content-Type": "video/mp4", **headers})


@dataclass(frozen=True, slots=True)
class Case:
    """
    What is answered about one job. The last answer of each list repeats.

    Attributes:
        posts: ``{ID}`` and ``{CDN}`` in these and the next become the task's id and the URL of the asset host.
        state: How the job ends.
        cls: The classes that its failure may have; none for a success.
        says: A part of the error's message.
    """

    posts: Sequence[bytes] = (answer('{"id": "{ID}", "status": "queued"}'),)
    polls: Sequence[bytes] = (
        answer('{"id": "{ID}", "status": "completed", "metadata": {"url": "{CDN}/v.mp4"}}'),
    )
    assets: Sequence[Answer] = (film(),)
    id: str | None = None
    state: str = "succeeded"
    cls: tuple[str, ...] = ()
    says: str = ""


class RawGateway:
    """
    Answers for many jobs at once; a job is known by its prompt, which is the name of its case.

    Attributes:
        posts: How many POSTs came, by case.
    """

    def __init__(self, cases: Mapping[str, Case]) -> None:
        self._cases = cases
        self._asked: Counter[tuple[str, str]] = Counter()
        self._names = {case.id or f"task_{name}": name for name, case in cases.items()}
        self.posts: Counter[str] = Counter()
        self.base_url = self._cdn = ""

    async def __aenter__(self) -> Self:
        self._servers = [await asyncio.start_server(self._handle, "127.0.0.1", 0) for _ in range(2)]
        self.base_url, self._cdn = (
            f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in self._servers
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in self._servers:
            server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            method, path, _ = head.split(" ", 2)
            writer.write(self._answer(method, path, body))
            await writer.drain()
        writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        if method == "POST":
            name = json.loads(body)["prompt"]
            self.posts[name] += 1
            return self._next("post", name, self._cases[name].posts, path)
        if path.startswith("/v1/videos/"):
            task_id, slash, rest = path.removeprefix("/v1/videos/").partition("/content")
            name = self._names.get(unquote(task_id), "")
            if not name or slash or rest:
                return answer({"error": {"message": "no such file"}}, "404 Not Found")
            return self._next("poll", name, self._cases[name].polls, path)
        _, number, rest = path.split("/", 2)
        name = list(self._cases)[int(number)]
        return self._next("asset", name, self._cases[name].assets, f"/{rest}")

    def _next(self, kind: str, name: str, answers: Sequence[Answer], path: str) -> bytes:
        found = answers[min(self._asked[kind, name], len(answers) - 1)]
        self._asked[kind, name] += 1
        number = list(self._cases).index(name)
        raw = found if isinstance(found, bytes) else found(path)
        head, _, body = raw.partition(b"\r\n\r\n")
        values = {
            b"{ID}": (self._cases[name].id or f"task_{name}").encode(),
            b"{CDN}": f"{self._cdn}/{number}".encode(),
        }
        for mark, value in values.items():
            body, head = (text.replace(mark, value) for text in (body, head))
        if kind != "asset" and b"Connection: close" not in head:
            head = re.sub(rb"(?i)(?<=content-length: )\d+", str(len(body)).encode(), head)
        return head + b"\r\n\r\n" + body
