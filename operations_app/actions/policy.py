"""How many approvals an action needs: by kind, currency and amount, per tenant. Whoever asks never approves.

The rule that fits is the one of the action's kind and currency (or `*`) with the largest `fromAmount` that the amount
reaches; a rule for the currency goes before one for all. An action without a rule needs two approvals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from hub.money import MINOR_DIGITS, BadMoney, Money
from operations_app.actions.model import Kind

ANY_CURRENCY: Final = "*"
MOST: Final = 2


class Rule(BaseModel):
    """From this amount on, so many approvals."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    kind: Kind
    currency: str = ANY_CURRENCY
    from_amount: str = "0"
    approvals: Annotated[int, Field(ge=0, le=MOST)]

    @model_validator(mode="after")
    def _amount_fits(self) -> Self:
        if self.currency == ANY_CURRENCY:
            if self.from_amount not in {"0", "0.00"}:
                raise ValueError("an amount needs a currency")
            return self
        if self.currency not in MINOR_DIGITS:
            raise ValueError("no ISO 4217 currency")
        try:
            Money.parse(self.from_amount, self.currency)
        except BadMoney as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def minor(self) -> int:
        """Minor units from which it applies."""
        return 0 if self.currency == ANY_CURRENCY else Money.parse(self.from_amount, self.currency).minor


class Policy(BaseModel):
    """The rules of a tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: Annotated[tuple[Rule, ...], Field(max_length=200)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        seen: set[tuple[str, str, int]] = set()
        for rule in self.rules:
            mark = (rule.kind.value, rule.currency, rule.minor)
            if mark in seen:
                raise ValueError(f"two rules for {rule.kind} from {rule.from_amount} {rule.currency}")
            seen.add(mark)
        return self

    def approvals(self, kind: Kind, amount: int, currency: str) -> int:
        """How many approvals this needs; `amount` in minor units."""
        fitting = [rule for rule in self.rules if rule.kind is kind and rule.minor <= amount]
        for wanted in (currency, ANY_CURRENCY):
            found = [rule for rule in fitting if rule.currency == wanted]
            if found:
                return max(found, key=lambda rule: rule.minor).approvals
        return MOST


def _rules(approvals: int, kinds: Iterable[Kind], currency: str = ANY_CURRENCY, amount: str = "0") -> list[Rule]:
    return [Rule(kind=kind, currency=currency, from_amount=amount, approvals=approvals) for kind in kinds]


_HARMLESS: Final = (Kind.RETRY, Kind.RESOLVE_INCIDENT)
_ENDING: Final = (Kind.CANCEL, Kind.MANUAL_OVERRIDE, Kind.FORCE_FAIL)
_MOVING: Final = (Kind.FORCE_COMPLETE, Kind.RECALL, Kind.REFUND)

DEFAULT: Final = Policy(
    rules=(
        *_rules(0, _HARMLESS),
        *_rules(1, _ENDING),
        *_rules(1, _MOVING, "MXN"),
        *_rules(2, _MOVING, "MXN", "50000.00"),
        *_rules(2, _MOVING),
    )
)
"""For tenants that said nothing: trying again needs nobody else, everything else does, and large money two."""


def described(policy: Policy) -> Sequence[dict[str, object]]:
    """The rules as the API writes them."""
    return [rule.model_dump(mode="json", by_alias=True) for rule in policy.rules]
