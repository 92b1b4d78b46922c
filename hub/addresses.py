"""Where webhooks may go: an address must begin like an entry of its receiver's allow-list.

    https://bank.example/hooks/      that origin, that path and below
    https://bank.example             every path there
    http://127.0.0.1:*/              any port

Comparing text would let `https://bank.example.evil.com` pass for `https://bank.example`; parts are compared instead.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

LONGEST: Final = 2000
"""Characters of a URL."""

_SHAPE: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>[0-9]{1,5}|\*))?(?P<path>/[!-\"$-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_PORTS: Final = {"http": "80", "https": "443"}


class BadAddress(ValueError):
    """The text is no address that we would call."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL in parts. In an allow-list the port may be `*`."""

    scheme: str
    host: str
    port: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises `BadAddress` for anything but http(s), a host, a port and a plain path: no user, no fragment."""
        found = _SHAPE.fullmatch(text) if len(text) <= LONGEST else None
        if found is None:
            raise BadAddress("an address is written like https://bank.example/hooks, without user or fragment")
        scheme, path = found["scheme"].lower(), found["path"] or "/"
        if {".", ".."} & set(re.split(r"[/\\]", unquote(path.partition("?")[0]))):
            raise BadAddress("an address holds no . or .. between slashes")
        return cls(scheme, found["host"].lower(), found["port"] or _PORTS[scheme], path)

    def covers(self, other: Address) -> bool:
        """Whether `other` begins like this entry of an allow-list."""
        if (self.scheme, self.host) != (other.scheme, other.host) or self.port not in ("*", other.port):
            return False
        path = other.path.partition("?")[0]
        return path == self.path or path.startswith(self.path if self.path.endswith("/") else self.path + "/")

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address or `localhost`, so that no name service decides where the call goes."""
        if self.host == "localhost":
            return True
        try:
            ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return False
        return True


def allowed(url: str, allow_list: Iterable[Address]) -> bool:
    """Whether this URL is on the list. An address that cannot be read is not."""
    try:
        address = Address.parse(url)
    except BadAddress:
        return False
    return address.port != "*" and any(entry.covers(address) for entry in allow_list)


def is_internal(ip: str) -> bool:
    """Whether an IP address is one of a machine's or a site's own, at which a public name should never point."""
    found = ipaddress.ip_address(ip)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return not found.is_global or found.is_multicast
