"""Base URLs as people write them, and proxies as environments name them."""

from __future__ import annotations

import zlib

import pytest

from runner.errors import UsageError
from runner.gateway.client import MOST_BYTES, unpack
from runner.gateway.urls import gateway_root, proxy_for

ROOT = "https://api.powertokens.ai"


@pytest.mark.parametrize("text", ["", "/", "/v1", "/v1/", "//", "/v1//"])
def test_root_has_one_form(text: str) -> None:
    """A trailing slash or version makes no difference."""
    assert gateway_root(ROOT + text) == ROOT


@pytest.mark.parametrize(
    "text", ["", "api.powertokens.ai", "ftp://host", "https://", "http://host:99999", "https://[::1"]
)
def test_root_must_be_an_address(text: str) -> None:
    """What is not an http(s) address is refused before anything is sent."""
    with pytest.raises(UsageError):
        gateway_root(text)


@pytest.mark.parametrize(
    "text", ["https://user:hunter2@host", "https://host?key=hunter2", "https://host#hunter2"]
)
def test_root_without_secrets(text: str) -> None:
    """Credentials in an address are refused, and not repeated."""
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
    assert proxy_for(ROOT, environ) == proxy


@pytest.mark.parametrize("root", ["http://127.0.0.1:80", "http://localhost:80", "http://[::1]:80"])
def test_no_proxy_to_this_machine(root: str) -> None:
    """A simulator on this machine is reached directly."""
    assert proxy_for(root, {"http_proxy": "http://a:1"}) is None


def test_proxy_of_another_kind() -> None:
    """A SOCKS proxy is refused, since going past it is not what the user wants."""
    with pytest.raises(UsageError, match="https_proxy"):
        proxy_for(ROOT, {"HTTPS_PROXY": "socks5://user:secret@a:1"})


def test_bomb_does_not_unfold() -> None:
    """What a small body unpacks to is bounded."""
    bomb = zlib.compress(bytes(20 * MOST_BYTES), level=9)

    assert len(unpack(bomb, "deflate")) == MOST_BYTES
