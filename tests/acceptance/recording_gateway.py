"""A gateway in front of the simulator that keeps what is sent to it."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen


class Recorder(ThreadingHTTPServer):
    """
    A gateway in front of the simulator that keeps what is sent to it.

    Attributes:
        sent: The bodies of submissions.
        paths: Of all requests, each with its method.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _RecordingHandler)
        self.target = target
        self.sent: list[dict[str, Any]] = []
        self.paths: list[str] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _RecordingHandler(BaseHTTPRequestHandler):
    server: Recorder

    def handle_any(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.paths.append(f"{self.command} {urlsplit(self.path).path}")
        if self.command == "POST" and self.path == "/v1/videos":
            self.server.sent.append(json.loads(content))
        if "wrong" in self.headers["Authorization"]:
            self.send_error(401)
            return
        kept = ("Authorization", "User-Agent", "Content-Type")
        headers = {name: self.headers[name] for name in kept if name in self.headers}
        request = Request(self.server.target + self.path, content or None, headers, method=self.command)
        try:
            answer = urlopen(request, timeout=10)
        except HTTPError as error:
            answer = error
        with answer:
            body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_GET = do_POST = handle_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
