"""
A gateway that answers as fast as it can, in a process of its own: the partner of every end-to-end figure.

It knows five requests, keeps one number a task, and counts what was accepted.
``GET /stats`` gives the counts and the times of the POSTs, and starts over; it is
asked by nobody while a figure is measured. With a rate it answers 429 to every
POST beyond it, as a token bucket of one second's worth.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from typing import cast

_HEAD = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
_WARM_UP_S = 30.0
_MAX_SMALL_BYTES = 128 * 1024
_NUMBER_BYTES = 8


def _answer(body: bytes, content_type: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    return _HEAD % (status, content_type, len(body)) + body


_TOO_MANY = _answer(
    b'{"error":{"message":"too many requests","code":"rate_limit"}}', status=b"429 Too Many Requests"
)


class World:
    """The tasks, as the number of queries each has seen, and the counts."""

    def __init__(self, asset: bytes, queries_before_success: int, per_s: float) -> None:
        self.asset = _answer(asset, b"video/mp4")
        self.queries_before_success = queries_before_success
        self.per_s = per_s
        self.origin = b""
        self.task_count = 0
        self.queries: dict[bytes, int] = {}
        self.bodies: set[bytes] = set()
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.bodies.clear()
        self.posts = self.polls = self.assets = self.throttled = self.throttled_late = self.posts_late = 0
        self.first_post_at = self.last_post_at = 0.0
        self._tokens, self._filled_at = self.per_s, time.monotonic()

    def stats(self) -> bytes:
        """Say what happened since the last time."""
        value = {
            "posts": self.posts,
            "distinct": len(self.bodies),
            "polls": self.polls,
            "assets": self.assets,
            "throttled": self.throttled,
            "posts_late": self.posts_late,
            "throttled_late": self.throttled_late,
            "first_post_at": self.first_post_at,
            "last_post_at": self.last_post_at,
        }
        self.forget()
        return json.dumps(value).encode()

    def submit(self, body: bytes) -> bytes:
        """Take a job, or refuse it for now."""
        now = time.monotonic()
        self.first_post_at = self.first_post_at or now
        is_late = now - self.first_post_at > _WARM_UP_S
        if self.per_s and not self._has_token(now):
            self.throttled += 1
            self.throttled_late += is_late
            return _TOO_MANY
        self.last_post_at = now
        self.posts += 1
        self.posts_late += is_late
        self.task_count += 1
        self.bodies.add(hashlib.blake2b(body, digest_size=8).digest())
        task = b"task_%d" % self.task_count
        self.queries[task] = 0
        return _answer(b'{"id":"%b","object":"video","status":"queued"}' % task)

    def _has_token(self, now: float) -> bool:
        self._tokens = min(self.per_s, self._tokens + (now - self._filled_at) * self.per_s)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def get(self, path: bytes) -> bytes:
        """Answer a query, or give the asset."""
        if path.startswith(b"/v1/videos/") and not path.endswith(b"/content"):
            return self._show(path[11:])
        if path.startswith((b"/a/", b"/v1/videos/")):
            self.assets += 1
            return self._own_asset()
        return _answer(self.stats() if path == b"/stats" else b'{"data":[]}')

    def _own_asset(self) -> bytes:
        """Return a small asset with other last bytes each time: no two videos of a real gateway are the same file."""
        if len(self.asset) > _MAX_SMALL_BYTES:
            return self.asset
        return self.asset[:-_NUMBER_BYTES] + self.assets.to_bytes(_NUMBER_BYTES)

    def _show(self, task: bytes) -> bytes:
        seen = self.queries.get(task, 0)
        self.queries[task] = seen + 1
        self.polls += 1
        if seen < self.queries_before_success:
            return _answer(b'{"id":"%b","object":"video","status":"queued","progress":0}' % task)
        return _answer(
            b'{"id":"%b","object":"video","status":"succeeded","progress":100,"video_url":"%b/a/%b"}'
            % (task, self.origin, task)
        )


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
        while (end := data.find(b"\r\n\r\n")) >= 0:
            size = 0
            if data[:4] == b"POST":
                at = data.lower().find(b"content-length:", 0, end)
                size = int(data[at + 15 : data.find(b"\r\n", at)])
            if len(data) < end + 4 + size:
                break
            if data[:4] == b"POST":
                self._transport.write(self._world.submit(data[end + 4 : end + 4 + size]))
            else:
                self._transport.write(self._world.get(data[4 : data.find(b" ", 4)]))
            data = data[end + 4 + size :]
        self._held = data


async def serve(world: World) -> None:
    """Serve until killed; the base URL is the first line on stdout."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(world), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    world.origin = b"http://127.0.0.1:%d" % port
    print(world.origin.decode(), flush=True)
    await server.serve_forever()


def main() -> None:
    """Run with the path of the asset to serve, how often a task is still queued, and a rate (0 for none)."""
    asset, queries_before_success, per_s = sys.argv[1:]
    with open(asset, "rb") as file:
        world = World(file.read(), int(queries_before_success), float(per_s))
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    run(serve(world))


if __name__ == "__main__":
    main()
