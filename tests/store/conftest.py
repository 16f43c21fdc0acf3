"""Open stores for the tests of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a new run directory whose path has a space in it."""
    with Store(tmp_path / "a run") as opened:
        yield opened
