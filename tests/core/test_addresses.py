"""From where network addresses can be reached."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from runner.core.addresses import AddressScope, address_scope, is_loopback_host


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", AddressScope.PUBLIC),
        ("2606:4700::1", AddressScope.PUBLIC),
        ("127.0.0.1", AddressScope.LOOPBACK),
        ("::1", AddressScope.LOOPBACK),
        ("::ffff:127.0.0.1", AddressScope.LOOPBACK),
        ("64:ff9b::7f00:1", AddressScope.LOOPBACK),
        ("2002:7f00:1::", AddressScope.LOOPBACK),
        ("::127.0.0.1", AddressScope.LOOPBACK),
        ("::10.1.2.3", AddressScope.PRIVATE),
        ("::ffff:0:169.254.169.254", AddressScope.LINK_LOCAL),
        ("::8.8.8.8", AddressScope.PUBLIC),
        ("10.1.2.3", AddressScope.PRIVATE),
        ("172.16.0.1", AddressScope.PRIVATE),
        ("192.168.1.1", AddressScope.PRIVATE),
        ("100.64.0.1", AddressScope.PRIVATE),
        ("fd00::1", AddressScope.PRIVATE),
        ("169.254.169.254", AddressScope.LINK_LOCAL),
        ("::ffff:a9fe:a9fe", AddressScope.LINK_LOCAL),
        ("fe80::1", AddressScope.LINK_LOCAL),
        ("224.0.0.1", AddressScope.RESERVED),
        ("ff02::1", AddressScope.RESERVED),
        ("0.0.0.0", AddressScope.RESERVED),
        ("255.255.255.255", AddressScope.RESERVED),
        ("::", AddressScope.RESERVED),
    ],
)
def test_scope_of_an_address(address: str, expected: AddressScope) -> None:
    """
    An inner address is recognized in whatever form it is written.
    """
    assert expected is address_scope(ip_address(address))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("gateway.localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    """
    This machine is recognized under its names and in every form of its addresses.
    """
    assert expected == is_loopback_host(host)
