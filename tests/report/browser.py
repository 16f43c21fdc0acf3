"""Headless Chromium, controlled through its driver with the standard library alone."""

from __future__ import annotations

import http.client
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
)
_READY_WITHIN_S = 20
KEYS = {
    "right": "\ue014",
    "left": "\ue012",
    "up": "\ue013",
    "down": "\ue015",
    "enter": "\ue007",
    "escape": "\ue00c",
}
"""The codes of keys without a character, as WebDriver has them."""


class Browser:
    """A WebDriver session."""

    def __init__(self, port: int, profile: Path) -> None:
        self._port = port
        self._session = ""
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        capabilities = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }
        self._session = self._command("POST", "", {"capabilities": {"alwaysMatch": capabilities}})[
            "sessionId"
        ]

    def open(self, page: Path) -> None:
        """Load a page, and wait until it is loaded."""
        self.visit(page.as_uri())

    def visit(self, url: str) -> None:
        """Load an address, and wait until it is loaded."""
        self._command("POST", "/url", {"url": url})

    def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or the names in `KEYS`."""
        actions = [
            {"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")
        ]
        self._command(
            "POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        )

    def hover(self, selector: str) -> None:
        """Move the mouse onto an element."""
        element = self.run("return document.querySelector(arguments[0])", selector)
        move = {"type": "pointerMove", "duration": 0, "origin": element, "x": 0, "y": 0}
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [move]}
        self._command("POST", "/actions", {"actions": [mouse]})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Run a command of the browser's developer tools."""
        return self._command("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function, and return its result; a promise is awaited."""
        return self._command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def log(self, kind: str) -> list[str]:
        """Return the messages of a log: ``browser`` or ``performance``."""
        return [entry["message"] for entry in self._command("POST", "/se/log", {"type": kind})]

    def close(self) -> None:
        """Close the browser."""
        self._command("DELETE", "")

    def _command(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, f"/session/{self._session}{path}".rstrip("/"), json.dumps(body or {}))
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise AssertionError(value["message"])
        return value


_LOADS = itertools.count()


def show(page: Browser, folder: Path, settings: str = "") -> None:
    """Open the report anew, with settings in its address."""
    # Another query makes it another page, which is loaded whatever is shown now.
    page.visit(f"{(folder / 'report.html').as_uri()}?{next(_LOADS)}#{settings}")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser for the length of a block."""
    assert DRIVER is not None
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            session = Browser(_port(driver), profile)
            try:
                yield session
            finally:
                session.close()
        finally:
            driver.terminate()


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    deadline = time.monotonic() + _READY_WITHIN_S
    for line in driver.stdout:
        if "started successfully on port" in line:
            return int(line.rsplit(" ", 1)[1].rstrip(".\n"))
        assert time.monotonic() < deadline, "the driver did not start"
    raise AssertionError("the driver ended")
