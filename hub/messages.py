"""A message is a class too: its name as drawn, the key that finds the process, the id that makes a repeat harmless."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Something that happened outside and that a process waits for, or that starts one.

    The fields are the variables the process receives.
    """

    model_config = ConfigDict(frozen=True)

    message_name: ClassVar[str]
    """As drawn, for instance `stp.order-settled`."""

    ttl: ClassVar[timedelta] = timedelta(hours=24)
    """How long the engine keeps a message that nobody waits for yet, and refuses a repeat of its id."""

    @property
    @abstractmethod
    def correlation_key(self) -> str:
        """Finds the waiting process; known before the process started to wait."""

    @property
    @abstractmethod
    def message_id(self) -> str:
        """The same for each repeat of the same happening, different for any other happening."""

    def variables(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class Published(StrEnum):
    """What became of a published message: both are success."""

    NEW = "new"
    ALREADY_THERE = "already-there"


class Engine(Protocol):
    """The little that connectors may ask of the engine."""

    async def publish(self, message: Message) -> Published:
        """Hand the message over. Raises `hub.errors.Unavailable` when the engine did not take it; safe to repeat."""
        ...
