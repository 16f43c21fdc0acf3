"""Base URLs as people write them, and proxies as environments name them."""

from __future__ import annotations

import zlib

import pytest

from runner.errors import UsageError
from runner.gateway.client import MAX_BODY_BYTES, decompress
from runner.gateway.urls import gateway_root, proxy_for

ROOT = "https://api.powertokens.ai"


@pytest.mark.parametrize("text", ["", "/", "/v1", "/v1/", "//", "/v1//"])
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


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://a:1"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": "x, powertokens.ai"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "tokens.ai,,"}, "http://a:1"),
    ],
)
def test_proxy_of_the_environment(environ: dict[str, str], proxy: str | None) -> None:
    """The variables mean what they mean to other programs."""
    assert proxy == proxy_for(ROOT, environ)


@pytest.mark.parametrize(
    "root", ["http://127.0.0.1:80", "http://localhost:80", "http://api.localhost:80", "http://[::1]:80"]
)
def test_no_proxy_to_this_machine(root: str) -> None:
    """A simulator on this machine is connected to directly."""
    assert proxy_for(root, {"http_proxy": "http://a:1"}) is None


def test_unsupported_proxy() -> None:
    """A SOCKS proxy is an error, since the user does not want to bypass it."""
    with pytest.raises(UsageError, match="https_proxy"):
        proxy_for(ROOT, {"HTTPS_PROXY": "socks5://user:secret@a:1"})


def test_decompression_bomb() -> None:
    """What a small body decompresses to is bounded."""
    bomb = zlib.compress(bytes(20 * MAX_BODY_BYTES), level=9)

    assert MAX_BODY_BYTES == len(decompress(bomb, "deflate"))
