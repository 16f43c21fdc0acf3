"""Which HTTP proxy a request goes through: one rule for every request of the program."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from msgspec import Struct

from runner.core.addresses import is_loopback_host
from runner.errors import UsageError


class Proxies(Struct, frozen=True):
    """
    The proxies of an environment.

    This replaces aiohttp's ``trust_env``, which also adds logins from ``.netrc`` and uses a thread twice for
    each request.

    Attributes:
        by_scheme: The URL of the proxy for http and for https.
        excluded: The entries of ``no_proxy``, in lower case.
    """

    by_scheme: Mapping[str, str] = {}
    excluded: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Proxies:
        """
        Read ``https_proxy``, ``http_proxy`` and ``no_proxy``, in lower case or else in upper case.

        Raises:
            UsageError: A proxy is of an unsupported kind, such as SOCKS.
        """
        by_scheme: dict[str, str] = {}
        for scheme in ("http", "https"):
            proxy = _either_case(environ, f"{scheme}_proxy")
            if not proxy:
                continue
            if "://" not in proxy:
                proxy = f"http://{proxy}"
            if not proxy.lower().startswith(("http://", "https://")):
                raise UsageError(
                    f"{scheme}_proxy names a proxy of an unsupported kind",
                    hint="set it to an http:// proxy, or unset it",
                )
            by_scheme[scheme] = proxy
        entries = (entry.strip().lower() for entry in _either_case(environ, "no_proxy").split(","))
        return cls(by_scheme, tuple(entry for entry in entries if entry))

    def for_url(self, url: str) -> str | None:
        """
        Return the proxy for a URL; None for a direct connection. This machine itself is never behind a proxy.

        >>> proxies = Proxies.from_environ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".local,10.0.0.0/8"})
        >>> proxies.for_url("https://api.powertokens.ai/v1/videos")
        'http://proxy:3128'
        >>> proxies.for_url("https://gateway.local"), proxies.for_url("https://10.1.2.3")
        (None, None)
        """
        if not self.by_scheme:
            return None
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        proxy = self.by_scheme.get(parts.scheme)
        if proxy is None or is_loopback_host(host):
            return None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return None if any(_excludes(entry, host, port) for entry in self.excluded) else proxy


NO_PROXIES = Proxies()


def shown_proxy(proxy: str) -> str:
    """
    Return a proxy for messages, without its password.

    >>> shown_proxy("http://user:secret@proxy:3128/")
    'http://proxy:3128'
    """
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _either_case(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _excludes(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of ``no_proxy`` names a host, as curl reads it: a star, a name with its subdomains, a network."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return ip_address(host) in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, _, entry_port = entry.rpartition(":")
    if name and entry_port.isdecimal() and (":" not in name or name.endswith("]")):
        if int(entry_port) != port:
            return False
        entry = name
    entry = entry.strip("[]").lstrip(".").removeprefix("*.").rstrip(".")
    return host == entry or host.endswith(f".{entry}")
