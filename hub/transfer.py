"""What a transfer is called, between whom it runs and how it can end.

The process writes exactly one `Outcome` with one `Reason`; nothing is inferred from where a process stopped. The
channel shows the outcome as a `TransferState`, whose words are Payment Hub EE's.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NewType

from pydantic import BaseModel, ConfigDict

PaymentId = NewType("PaymentId", str)
"""A payment's id for ever: a UUID in text. The channel API calls it `transactionId`."""

TenantId = NewType("TenantId", str)
"""The bank or fintech a payment belongs to. It comes from the caller's token, never from a header alone."""


class IdentifierType(StrEnum):
    """How a party is named. The first four are Payment Hub EE's words; CLABE and CARD are Mexico's."""

    MSISDN = "MSISDN"
    ACCOUNT_ID = "ACCOUNT_ID"
    IBAN = "IBAN"
    ALIAS = "ALIAS"
    CLABE = "CLABE"
    CARD = "CARD"


class Party(BaseModel):
    """One side of a transfer as the channel named it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id_type: IdentifierType
    identifier: str
    name: str | None = None
    tax_id: str | None = None
    """RFC or CURP in Mexico; absent where unknown."""


class Rail(StrEnum):
    """The way the money takes. The value is the id of the called process."""

    ON_US = "rail-on-us"
    STP = "rail-stp"


class Outcome(StrEnum):
    """How a transfer ended."""

    SETTLED = "SETTLED"
    REJECTED = "REJECTED"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    """Sent, and nobody can say yet what became of it. The hold stays and an operator decides (H3)."""

    @property
    def is_final(self) -> bool:
        return self is not Outcome.UNKNOWN


class Reason(StrEnum):
    """Why a transfer ended as it did: a stable code for machines, `ISO20022` has its code in the standard's list."""

    NONE = "none"
    ACCOUNT_UNKNOWN = "account-unknown"
    ACCOUNT_CLOSED = "account-closed"
    ACCOUNT_FROZEN = "account-frozen"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    CURRENCY_MISMATCH = "currency-mismatch"
    AMOUNT_NOT_ALLOWED = "amount-not-allowed"
    NO_RAIL = "no-rail"
    DUPLICATE = "duplicate"
    SCHEME_REJECTED = "scheme-rejected"
    SCHEME_CANCELLED = "scheme-cancelled"
    SCHEME_RETURNED = "scheme-returned"
    COMPLIANCE = "compliance"
    NO_ANSWER = "no-answer"
    OPERATOR = "operator"


ISO20022: Final[dict[Reason, str]] = {
    Reason.NONE: "",
    Reason.ACCOUNT_UNKNOWN: "AC01",
    Reason.ACCOUNT_CLOSED: "AC04",
    Reason.ACCOUNT_FROZEN: "AC06",
    Reason.INSUFFICIENT_FUNDS: "AM04",
    Reason.CURRENCY_MISMATCH: "AM03",
    Reason.AMOUNT_NOT_ALLOWED: "AM02",
    Reason.NO_RAIL: "AG01",
    Reason.DUPLICATE: "AM05",
    Reason.SCHEME_REJECTED: "NARR",
    Reason.SCHEME_CANCELLED: "DS02",
    Reason.SCHEME_RETURNED: "NARR",
    Reason.COMPLIANCE: "RR04",
    Reason.NO_ANSWER: "NOAS",
    Reason.OPERATOR: "NARR",
}
"""The ISO 20022 external status reason code of each reason; `NARR` where the standard asks for a narrative."""


class TransferState(StrEnum):
    """What a channel is told (`transferState` in Payment Hub EE's API)."""

    RECEIVED = "RECEIVED"
    PENDING = "PENDING"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"
    RETURNED = "RETURNED"
    UNKNOWN = "UNKNOWN"


STATE_OF: Final[dict[Outcome, TransferState]] = {
    Outcome.SETTLED: TransferState.COMMITTED,
    Outcome.REJECTED: TransferState.ABORTED,
    Outcome.CANCELLED: TransferState.ABORTED,
    Outcome.RETURNED: TransferState.RETURNED,
    Outcome.UNKNOWN: TransferState.UNKNOWN,
}
"""The state a channel sees for each outcome. Without an outcome it is RECEIVED, or PENDING once the engine has it."""
