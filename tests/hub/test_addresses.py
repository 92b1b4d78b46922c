"""Where webhooks may go (H5)."""

from __future__ import annotations

import pytest

from hub.addresses import Address, BadAddress, allowed, is_internal


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("http://127.0.0.1:*/", "http://127.0.0.1:8080/anything?x=1"),
        ("http://127.0.0.1:*", "http://127.0.0.1/"),
        ("https://bank.example", "https://bank.example:443/hooks"),
        ("https://bank.example/hooks", "https://BANK.example/hooks"),
        ("https://bank.example/hooks", "https://bank.example/hooks/a"),
        ("https://bank.example/hooks", "https://bank.example/hooks?key=1"),
        ("https://bank.example/hooks/", "https://bank.example/hooks/a"),
        ("http://[::1]:*/", "http://[::1]:9000/x"),
    ],
)
def test_an_address_below_an_entry_is_allowed(entry: str, url: str) -> None:
    assert allowed(url, [Address.parse(entry)])


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("https://bank.example", "https://bank.example.evil.com/"),
        ("https://bank.example", "http://bank.example/"),
        ("https://bank.example", "https://bank.example:8443/"),
        ("https://bank.example", "https://bank.example@evil.com/"),
        ("https://bank.example", "https://evil.com/#https://bank.example"),
        ("https://bank.example", "https://bank.example\\@evil.com/"),
        ("https://bank.example/hooks", "https://bank.example/hooks-of-others"),
        ("https://bank.example/hooks", "https://bank.example/hooks/../admin"),
        ("https://bank.example/hooks", "https://bank.example/hooks/%2e%2e/admin"),
        ("https://bank.example/hooks", "https://bank.example/"),
        ("http://127.0.0.1:*/", "http://127.0.0.1:*/"),
        ("http://127.0.0.1:*/", "file:///etc/passwd"),
        ("http://127.0.0.1:*/", "http://127.0.0.2/"),
        ("http://127.0.0.1:*/", "http://127.0.0.1:80/\r\nX-Other: 1"),
        ("http://127.0.0.1:*/", "http://127.0.0.1/" + "a" * 2001),
    ],
)
def test_an_address_that_only_looks_alike_is_not(entry: str, url: str) -> None:
    assert not allowed(url, [Address.parse(entry)])


def test_an_empty_list_allows_nothing() -> None:
    assert not allowed("https://bank.example/", [])


@pytest.mark.parametrize("text", ["", "bank.example", "ftp://bank.example", "https://", "https://user@bank.example"])
def test_what_is_no_address_is_said_so(text: str) -> None:
    with pytest.raises(BadAddress):
        Address.parse(text)


@pytest.mark.parametrize(
    "ip", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"]
)
def test_internal_addresses_are_known(ip: str) -> None:
    assert is_internal(ip)


@pytest.mark.parametrize("ip", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_not_internal(ip: str) -> None:
    assert not is_internal(ip)
