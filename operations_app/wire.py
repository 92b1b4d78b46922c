"""What the operations API's JSON has in common: camelCase names, money in decimal strings, instants in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, PlainSerializer, StringConstraints
from pydantic.alias_generators import to_camel

from hub.money import Money


def moment(instant: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment: TypeAlias = Annotated[datetime, PlainSerializer(moment, return_type=str)]
"""An instant in an answer."""

Word: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
"""A code that somebody gives, such as a reason code."""

Text: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")
]
"""What somebody writes for people to read later."""


Why: TypeAlias = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=10, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$"),
]
"""Why somebody acts, or decides against it."""


Note: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")
]
"""What somebody adds to a decision, or nothing."""


class Shown(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True)


class Asked(BaseModel):
    """Base of request bodies; a field that is not known is refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class Amount(Shown):
    """Money."""

    amount: str
    currency: str

    @classmethod
    def of(cls, money: Money) -> Self:
        return cls(amount=money.decimal(), currency=money.currency)
