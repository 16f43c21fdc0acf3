"""A browser for the tests of the page, and a report in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import CHROMIUM, DRIVER, Browser, browser, show
from tests.report.pages import report


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a browser once for all tests of a process."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    with browser(tmp_path_factory.mktemp("profile")) as session:
        yield session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "assets").mkdir()
    report(folder)
    return folder


@pytest.fixture
def page(chromium: Browser, folder: Path) -> Iterator[Browser]:
    show(chromium, folder)
    yield chromium
    chromium.run("localStorage.clear()")
