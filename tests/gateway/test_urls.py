"""Base URLs as people write them."""

from __future__ import annotations

import zlib

import pytest

from runner.errors import UsageError
from runner.gateway.urls import gateway_root
from runner.network import MAX_BODY_BYTES, decompress

ROOT = "https://api.powertokens.ai"


@pytest.mark.parametrize("text", ["", "/", "/v1", "/v1/", "//", "/v1//", "/v1/videos"])
def test_root_has_one_form(text: str) -> None:
    """A trailing slash or version makes no difference."""
    assert ROOT == gateway_root(ROOT + text)


@pytest.mark.parametrize(
    "text", ["", "api.powertokens.ai", "ftp://host", "https://", "http://host:99999", "https://[::1"]
)
def test_root_must_be_a_url(text: str) -> None:
    """What is not an http or https URL is an error before anything is sent."""
    with pytest.raises(UsageError):
        gateway_root(text)


@pytest.mark.parametrize(
    "text", ["https://user:hunter2@host", "https://host?key=hunter2", "https://host#hunter2"]
)
def test_root_without_secrets(text: str) -> None:
    """Credentials in a URL are an error, and not repeated."""
    with pytest.raises(UsageError) as caught:
        gateway_root(text)

    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_decompression_bomb() -> None:
    """What a small body decompresses to is bounded."""
    bomb = zlib.compress(bytes(20 * MAX_BODY_BYTES), level=9)

    assert MAX_BODY_BYTES == len(decompress(bomb, "deflate"))
