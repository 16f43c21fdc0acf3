"""Jobs and open stores for the tests of the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.core.model import JobSpec
from runner.core.problem import Position
from runner.store.store import Store


def spec(job_id: str, index: int = 0, **changes: object) -> JobSpec:
    """Make a job; its digest follows from its request."""
    request = {"model": "wan2.7-i2v", "prompt": f"prompt of {job_id}", "seconds": "5"} | changes
    digest = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).hexdigest()
    return JobSpec(
        job_id=job_id,
        index=index,
        model=str(request["model"]),
        schema="wan2.7-i2v",
        request=request,
        digest=digest,
        source=Position("kittens.yaml", 3 + index, 5),
    )


@pytest.fixture
def make_spec() -> Callable[..., JobSpec]:
    """Give tests the maker of jobs."""
    return spec


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a new run directory whose path has a space in it."""
    with Store(tmp_path / "a run") as opened:
        yield opened
