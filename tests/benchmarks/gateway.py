"""
A gateway that answers as fast as it can, in a process of its own: the partner of every end-to-end figure.

It knows four requests, keeps one number a task, and counts what was accepted.
``GET /stats`` gives the counts and the times of the first POST and of the last
answer; it is asked by nobody while a figure is measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from typing import cast

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"


def _answer(body: bytes, content_type: bytes = b"application/json") -> bytes:
    return _HEAD % (content_type, len(body)) + body


class World:
    """The tasks, as the number of queries each has seen, and the counts."""

    def __init__(self, asset: bytes) -> None:
        self.asset = _answer(asset, b"video/mp4")
        self.origin = ""
        self.queries: dict[bytes, int] = {}
        self.bodies: set[bytes] = set()
        self.posts = 0
        self.polls = 0
        self.assets = 0
        self.first_post_at = 0.0
        self.last_at = 0.0
        self.queries_before_success = 1

    def stats(self) -> bytes:
        """Say what happened so far, and begin anew."""
        value = {
            "posts": self.posts,
            "distinct": len(self.bodies),
            "polls": self.polls,
            "assets": self.assets,
            "first_post_at": self.first_post_at,
            "last_at": self.last_at,
        }
        self.queries.clear()
        self.bodies.clear()
        self.posts = self.polls = self.assets = 0
        return json.dumps(value).encode()


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        # uvloop's transports are not asyncio's, only alike.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that is there."""
        data = self._held + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            size = 0
            if data[:4] == b"POST":
                at = data.lower().find(b"content-length:", 0, end)
                size = int(data[at + 15 : data.find(b"\r\n", at)])
            if len(data) < end + 4 + size:
                break
            self._handle(data[:end], data[end + 4 : end + 4 + size])
            data = data[end + 4 + size :]
        self._held = data

    def _handle(self, head: bytes, body: bytes) -> None:
        world = self._world
        now = time.monotonic()
        world.last_at = now
        if body or head[:4] == b"POST":
            if not world.posts:
                world.first_post_at = now
            world.posts += 1
            world.bodies.add(hashlib.blake2b(body, digest_size=8).digest())
            task = b"task_%d" % world.posts
            world.queries[task] = 0
            self._transport.write(_answer(b'{"id":"%b","object":"video","status":"queued"}' % task))
            return
        path = head[4 : head.find(b" ", 4)]
        if path.startswith(b"/v1/videos/"):
            task = path[11:]
            seen = world.queries.get(task, 0)
            world.queries[task] = seen + 1
            world.polls += 1
            if seen < world.queries_before_success:
                self._transport.write(_answer(b'{"id":"%b","status":"queued","progress":0}' % task))
            else:
                self._transport.write(
                    _answer(
                        b'{"id":"%b","status":"succeeded","progress":100,"video_url":"%b/a/%b"}'
                        % (task, world.origin.encode(), task)
                    )
                )
        elif path.startswith(b"/a/"):
            world.assets += 1
            self._transport.write(world.asset)
        elif path == b"/stats":
            self._transport.write(_answer(world.stats()))
        else:
            self._transport.write(_answer(b'{"data":[]}'))


async def serve(asset: bytes, queries_before_success: int) -> None:
    """Serve until killed; the base URL is the first line on stdout."""
    world = World(asset)
    world.queries_before_success = queries_before_success
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(world), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    world.origin = f"http://127.0.0.1:{port}"
    print(world.origin, flush=True)
    await server.serve_forever()


def main() -> None:
    """Run with the path of the asset to serve, and how often a task is still queued."""
    with open(sys.argv[1], "rb") as file:
        asset = file.read()
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    run(serve(asset, int(sys.argv[2])))


if __name__ == "__main__":
    main()
