"""
An S3 server on loopback: moto's, behind a layer that loses answers, delays them or forgets conditions on request.

The layer knows Google's names of headers too, so that the server stands for Google Cloud Storage, whose XML API is alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from threading import Lock, Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest


class FaultyS3:
    """
    A WSGI application.

    Attributes:
        ignores_conditions: Whether it creates objects that exist, as s3rver 3.7.1 does.
        fault: Called with the method and the path of each request; "lost" closes the connection after the work is
            done, "500" answers so after it, "refused" before it, "403" refuses the credentials; None answers.
        delay_s: Before each answer.
        requests: The method and the path of each request so far.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self.ignores_conditions = False
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.delay_s = 0.0
        self.requests: list[tuple[str, str]] = []
        # moto looks whether an object exists, and then creates it: two threads may both find none.
        self._creating = Lock()

    def reset(self) -> None:
        """Answer as S3 does."""
        self.ignores_conditions, self.fault, self.delay_s = False, lambda method, path: None, 0.0
        self.requests.clear()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        is_google = "HTTP_X_AMZ_DATE" not in environ and "X-Amz-" not in environ["QUERY_STRING"]
        if is_google:
            _to_amazon(environ)
        if self.ignores_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        fault = self.fault(method, path)
        if fault == "403":
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ExpiredToken</Code><Message>secret</Message></Error>"]
        if fault != "refused":
            answered: list[Any] = []
            with self._creating if "HTTP_IF_NONE_MATCH" in environ else nullcontext():
                body = list(self._app(environ, lambda *answer: answered.append(answer)))
        if self.delay_s:
            time.sleep(self.delay_s)
        if fault == "lost":
            environ["werkzeug.socket"].shutdown(2)
            raise ConnectionError("this answer is lost")
        if fault is not None:
            start_response("500 Internal Server Error", [])
            return [b""]
        status, headers = answered[0][:2]
        start_response(status, _to_google(headers) if is_google else headers)
        return body


def _to_amazon(environ: dict[str, Any]) -> None:
    """Rename what Google's client sends; moto asks for a signature, and does not look at it."""
    environ["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/s3/aws4_request"
    if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"
    for name in [name for name in environ if name.startswith("HTTP_X_GOOG_META_")]:
        environ[name.replace("GOOG", "AMZ")] = environ.pop(name)


def _to_google(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    renamed = [(name.lower().replace("x-amz-meta-", "x-goog-meta-"), value) for name, value in headers]
    return [*renamed, ("x-goog-generation", "1")]


@contextmanager
def s3_server() -> Iterator[tuple[FaultyS3, Mapping[str, str]]]:
    """Serve a bucket ``videos``; yield the server and the environment variables that lead to it."""
    pytest.importorskip("obstore")
    moto = pytest.importorskip("moto.moto_server.werkzeug_app")
    serving = pytest.importorskip("werkzeug.serving")
    # Its objects are those of the process, not of a server.
    pytest.importorskip("moto.s3.models").s3_backends.reset()
    app = FaultyS3(moto.create_backend_app("s3"))
    server = serving.make_server("127.0.0.1", 0, app, threaded=True)
    server.log = lambda *_: None
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        with urlopen(Request(f"{endpoint}/videos", method="PUT"), timeout=30):
            pass
        app.requests.clear()
        yield (
            app,
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "AKIATEST",
                "AWS_SECRET_ACCESS_KEY": "not-a-secret",
                "AWS_REGION": "us-east-1",
                "GOOGLE_BASE_URL": endpoint,
                "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(
                    {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
                ),
            },
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
