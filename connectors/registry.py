"""Every connector, listed once: the module that holds its `CONNECTOR`, and the services it provides.

The modules are imported when they are asked for, so that a worker carries its own connector and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from hub.connector import Connector

MODULES: Final[Mapping[str, str]] = {
    "channel": "connectors.channel.connector",
    "ams": "connectors.ams.connector",
    "stp": "connectors.stp.connector",
    "disbursement": "connectors.disbursement.connector",
    "operations": "operations_app.connector",
}

SERVICES: Final[Mapping[str, str]] = {
    "channel": "channel",
    "stp-callbacks": "stp",
    "stp-simulator": "stp",
    "fineract-simulator": "ams",
    "disbursement": "disbursement",
    "operations": "operations",
}
"""Which connector provides which HTTP service."""


def by_name(name: str) -> Connector:
    """The connector called `name`. Raises `KeyError` with the names there are."""
    if name not in MODULES:
        raise KeyError(f"there is no connector {name!r}; there are {', '.join(MODULES)}")
    found: Connector = import_module(MODULES[name]).CONNECTOR
    return found


def every() -> tuple[Connector, ...]:
    """All connectors, in the order of the list."""
    return tuple(by_name(name) for name in MODULES)
