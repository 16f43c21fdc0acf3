"""Tell from where a network address can be reached."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

_HOLDING_IPV4 = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0:0/96"),
)
"""
Networks whose addresses hold an IPv4 address in their last 32 bits, to which a translator on the path, or the
system itself, may connect: RFC 6052, RFC 4291 2.5.5.1 (such as ::127.0.0.1), RFC 2765.
"""


class AddressScope(StrEnum):
    """From where a network address can be reached."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Home and company networks, and those between a provider and its customers (RFC 1918, 6598, 4193)."""
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    """Among them the address that gives cloud machines their own credentials."""
    RESERVED = "reserved"
    """Multicast, unspecified, documentation and unassigned addresses."""


def address_scope(address: IPv4Address | IPv6Address) -> AddressScope:
    """
    Return the scope of an address, or of the IPv4 address that it wraps.

    >>> address_scope(ip_address("::ffff:169.254.169.254")), address_scope(ip_address("100.64.0.1"))
    (<AddressScope.LINK_LOCAL: 'link-local'>, <AddressScope.PRIVATE: 'private'>)
    """
    if isinstance(address, IPv6Address) and (wrapped := _wrapped_ipv4(address)) is not None:
        address = wrapped
    if address.is_multicast or address.is_unspecified:
        return AddressScope.RESERVED
    if address.is_loopback:
        return AddressScope.LOOPBACK
    if address.is_link_local:
        return AddressScope.LINK_LOCAL
    if address.is_global and not getattr(address, "is_site_local", False):
        return AddressScope.PUBLIC
    return AddressScope.RESERVED if address.is_reserved else AddressScope.PRIVATE


def _wrapped_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.is_loopback or address.is_unspecified:
        return None
    if any(address in network for network in _HOLDING_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


_INTERNAL_SUFFIXES = (
    ".localhost",
    ".local",
    ".internal",
    ".intranet",
    ".lan",
    ".corp",
    ".home",
    ".home.arpa",
)


def is_internal_name(host: str) -> bool:
    """
    Return whether a host's name is one that only a private network resolves.

    >>> is_internal_name("metadata.google.internal"), is_internal_name("db"), is_internal_name("cdn.example.com")
    (True, True, False)
    """
    name = host.lower().rstrip(".")
    return "." not in name or name.endswith(_INTERNAL_SUFFIXES)


def is_loopback_host(host: str) -> bool:
    """
    Return whether the host of a URL, a name or a network address without brackets, is this machine itself.

    >>> is_loopback_host("localhost"), is_loopback_host("127.0.0.1"), is_loopback_host("192.168.1.1")
    (True, True, False)
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return address_scope(ip_address(name)) is AddressScope.LOOPBACK
    except ValueError:
        return False


def unencrypted_host(url: str) -> str | None:
    """
    Return the host to which a request would travel over a network unencrypted; None if it would not.

    >>> unencrypted_host("http://api.example.com/v1"), unencrypted_host("http://127.0.0.1:8080")
    ('api.example.com', None)
    """
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname
    except ValueError:
        return None
    return host if host and parts.scheme.lower() == "http" and not is_loopback_host(host) else None
