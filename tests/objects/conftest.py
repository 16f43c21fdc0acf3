"""One S3 server for all tests of object stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.objects.s3 import FaultyS3, s3_server


@pytest.fixture(scope="package")
def served() -> Iterator[tuple[FaultyS3, Mapping[str, str]]]:
    """A server that lives as long as the tests of this package."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(served: tuple[FaultyS3, Mapping[str, str]]) -> FaultyS3:
    """The server, without faults."""
    served[0].reset()
    return served[0]


@pytest.fixture
def s3_environ(served: tuple[FaultyS3, Mapping[str, str]], s3: FaultyS3) -> Mapping[str, str]:
    """The variables that lead to the server."""
    return served[1]
