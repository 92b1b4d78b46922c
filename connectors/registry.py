"""Every connector, listed once. To add one, import it here."""

from __future__ import annotations

from typing import Final

from connectors.ams.connector import CONNECTOR as AMS
from connectors.channel.connector import CONNECTOR as CHANNEL
from connectors.stp.connector import CONNECTOR as STP
from hub.connector import Connector

ALL: Final[tuple[Connector, ...]] = (CHANNEL, AMS, STP)


def by_name(name: str) -> Connector:
    """The connector called `name`. Raises `KeyError` with the names there are."""
    for connector in ALL:
        if connector.name == name:
            return connector
    raise KeyError(f"there is no connector {name!r}; there are {', '.join(c.name for c in ALL)}")
