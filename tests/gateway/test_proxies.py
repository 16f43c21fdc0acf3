"""Proxies as environments name them, and one rule for every request."""

from __future__ import annotations

import pytest

from runner.connector import Proxies
from runner.errors import UsageError

ROOT = "https://api.powertokens.ai"


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
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "powertokens.ai:443"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "powertokens.ai:8443"}, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*.powertokens.ai"}, None),
    ],
)
def test_proxy_of_the_environment(environ: dict[str, str], proxy: str | None) -> None:
    """The variables mean what they mean to other programs."""
    assert proxy == Proxies.from_environ(environ).for_url(ROOT)


@pytest.mark.parametrize(
    "root", ["http://127.0.0.1:80", "http://localhost:80", "http://api.localhost:80", "http://[::1]:80"]
)
def test_no_proxy_to_this_machine(root: str) -> None:
    """A simulator on this machine is connected to directly."""
    assert Proxies.from_environ({"http_proxy": "http://a:1"}).for_url(root) is None


def test_unsupported_proxy() -> None:
    """A SOCKS proxy is an error, since the user does not want to bypass it."""
    with pytest.raises(UsageError, match="https_proxy"):
        Proxies.from_environ({"HTTPS_PROXY": "socks5://user:secret@a:1"})
