"""What partners, treasury and operations send and read over HTTP: what all of it has in common.

Names are in camelCase. Amounts of MXN are decimal strings, rates are percentages with two decimals, ids are strings,
instants have a time zone. A field that is not known is refused, so that a misspelt one does not lose its meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from hub.money import Money
from ledger.disbursement import fields

NOON: Final = "2026-03-05T12:00:00Z"
TRANSFER: Final = "7a1f1f0e-6c1c-5b0e-9a5b-0b8a3a2f4c11"


def example(**values: Any) -> ConfigDict:
    """What a body or an answer looks like, for whoever reads the description of the service."""
    return ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, json_schema_extra={"example": values}
    )


def _text(read: Callable[[str], Any], *, plural: str) -> BeforeValidator:
    def reading(value: Any) -> Any:
        if not isinstance(value, str):
            raise PydanticCustomError("not-text", 'write {plural} as text: "12.50", not 12.50', {"plural": plural})
        return read(value)

    return BeforeValidator(reading)


def _schema(text: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [text]})


Id = Annotated[str, AfterValidator(fields.object_id)]
Name = Annotated[str, AfterValidator(fields.name)]
TaxId = Annotated[str, AfterValidator(fields.tax_id)]
Clabe = Annotated[str, AfterValidator(fields.clabe)]
Subject = Annotated[str, Field(min_length=1, max_length=200, pattern="^[!-~]+$")]
Amount = Annotated[int, _text(fields.amount, plural="amounts"), _schema("1250.00")]
PositiveAmount = Annotated[int, _text(fields.positive_amount, plural="amounts"), _schema("1250.00")]
SignedAmount = Annotated[int, _text(fields.signed_amount, plural="amounts"), _schema("-80.00")]
Rate = Annotated[int, _text(fields.rate, plural="rates"), _schema("5.25")]
Reason = Annotated[str, AfterValidator(fields.reason)]


def decimal(minor: int) -> str:
    """Minor units of MXN as the decimal string of the wire."""
    return Money(minor, fields.CURRENCY).decimal()


def percentage(basis_points: int) -> str:
    """Basis points as the percentage of the wire: 525 is `5.25`."""
    return f"{'-' if basis_points < 0 else ''}{abs(basis_points) // 100}.{abs(basis_points) % 100:02}"


class Changes(BaseModel):
    """Fields to change; those that are absent stay."""

    def given(self) -> dict[str, Any]:
        """The changes by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ReasonBody(BaseModel):
    """Why."""

    model_config = example(reason="the customer sent the goods back")

    reason: Reason


class Page(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    next_cursor: str | None = None
    """Give it as `cursor` for the next page; absent on the last."""
