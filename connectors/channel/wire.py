"""Payment Hub EE's words, and what they mean here.

Everything its request may hold is understood or tolerated; any other field is refused, so that a misspelt one does not
silently lose its meaning. Amounts are text, as there: a JSON number cannot hold a cent exactly. The payee receives the
amount, whatever `amountType` says, and the payer's fee comes on top of it.

Three keys of `customData` mean something: `payerTaxId` and `payeeTaxId` (RFC or CURP) and `referenceNumber` (one to
seven digits). `note` is what the payee reads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, to_json

from connectors.channel.identifiers import BadIdentifier, normal
from connectors.channel.model import PaymentAccepted
from hub.money import MINOR_DIGITS, BadMoney, Money
from hub.transfer import (
    ISO20022,
    STATE_OF,
    IdentifierType,
    Outcome,
    Party,
    PaymentId,
    Reason,
    TenantId,
    TransferState,
)

_TAX_ID: Final = re.compile(r"[A-ZÑ&]{3,4}[0-9]{6}[A-Z0-9]{3}|[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[A-Z0-9][0-9]")
_REFERENCE: Final = re.compile(r"[0-9]{1,7}", re.ASCII)


def _printable(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("control-characters", "the text holds characters that cannot be printed")
    return value


Printable = AfterValidator(_printable)
Word = Annotated[str, Field(max_length=64), Printable]
Line = Annotated[str, Field(max_length=140), Printable]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class PartyIdInfo(_Wire):
    party_id_type: IdentifierType
    party_identifier: Annotated[str, Field(min_length=1, max_length=64), Printable]
    party_sub_id_or_type: Word | None = None
    fsp_id: Word | None = None

    @field_validator("party_identifier")
    @classmethod
    def _well_formed(cls, value: str, info: ValidationInfo) -> str:
        kind = info.data.get("party_id_type")
        if kind is None:
            return value  # its own fault is told already
        try:
            return normal(kind, value)
        except BadIdentifier as error:
            raise PydanticCustomError(error.code, "{detail}", {"detail": error.detail}) from None


class ComplexName(_Wire):
    first_name: Word | None = None
    middle_name: Word | None = None
    last_name: Word | None = None


class PersonalInfo(_Wire):
    complex_name: ComplexName | None = None
    date_of_birth: Word | None = None


class WireParty(_Wire):
    party_id_info: PartyIdInfo
    merchant_classification_code: Word | None = None
    name: Line | None = None
    personal_info: PersonalInfo | None = None

    def full_name(self) -> str | None:
        """The name, or what the parts of a name come to."""
        if self.name or self.personal_info is None or self.personal_info.complex_name is None:
            return self.name
        parts = self.personal_info.complex_name
        return " ".join(part for part in (parts.first_name, parts.middle_name, parts.last_name) if part) or None


class Amount(_Wire):
    currency: str
    amount: str

    @field_validator("currency")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in MINOR_DIGITS:
            raise PydanticCustomError("unknown-currency", "not an active ISO 4217 currency, such as MXN")
        return value

    @field_validator("amount", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, (int, float)):
            raise PydanticCustomError("not-text", 'write the amount as text: "12.50", not 12.50')
        return value

    @field_validator("amount")
    @classmethod
    def _positive(cls, value: str, info: ValidationInfo) -> str:
        currency = info.data.get("currency")
        if currency is None:
            return value  # how many decimals it may have is not known
        try:
            money = Money.parse(value, currency)
        except BadMoney as error:
            raise PydanticCustomError("bad-amount", "{detail}", {"detail": str(error)}) from None
        if money.minor == 0:
            raise PydanticCustomError("not-positive", "the amount must be more than zero")
        return value


class RefundInfo(_Wire):
    original_transaction_id: Word | None = None
    refund_reason: Line | None = None


class TransactionType(_Wire):
    """Tolerated; as in Payment Hub EE the server decides what kind of transaction this is."""

    scenario: Word | None = None
    sub_scenario: Word | None = None
    initiator: Word | None = None
    initiator_type: Word | None = None
    refund_info: RefundInfo | None = None
    balance_of_payments: Word | None = None


class GeoCode(_Wire):
    latitude: Word
    longitude: Word


class Extension(_Wire):
    key: Word
    value: Line


class ExtensionList(_Wire):
    extension: Annotated[list[Extension], Field(max_length=16)]


class CustomData(_Wire):
    key: Word
    value: Any

    @field_validator("value")
    @classmethod
    def _simple(cls, value: Any, info: ValidationInfo) -> Any:
        if not (value is None or isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) < 2**63)):
            raise PydanticCustomError("wrong-type", "a value is text, an integer, true, false or null")
        if isinstance(value, str):
            if len(value) > 500:
                raise PydanticCustomError("too-long", "a value has 500 characters at most")
            _printable(value)
        match info.data.get("key"):
            case "payerTaxId" | "payeeTaxId" if not (isinstance(value, str) and _TAX_ID.fullmatch(value)):
                raise PydanticCustomError("bad-format", "a tax id is an RFC or a CURP in capital letters")
            case "referenceNumber" if not _REFERENCE.fullmatch(str(value)):
                raise PydanticCustomError("bad-format", "a reference number has one to seven digits")
        return value


class TransferRequest(_Wire):
    """The body of `POST /channel/transfer`: Payment Hub EE's `TransactionChannelRequest`."""

    client_ref_id: Word | None = None
    payer: WireParty
    payee: WireParty
    amount_type: Literal["SEND", "RECEIVE"] | None = None
    amount: Amount
    transaction_type: TransactionType | None = None
    geo_code: GeoCode | None = None
    note: Line | None = None
    expiration: Word | None = None
    extension_list: ExtensionList | None = None
    custom_data: Annotated[list[CustomData], Field(max_length=64)] | None = None

    @field_validator("payee")
    @classmethod
    def _somebody_else(cls, value: WireParty, info: ValidationInfo) -> WireParty:
        payer: WireParty | None = info.data.get("payer")
        if payer is not None:
            one, other = payer.party_id_info, value.party_id_info
            if (one.party_id_type, one.party_identifier) == (other.party_id_type, other.party_identifier):
                raise PydanticCustomError("same-parties", "payer and payee are the same")
        return value

    def fingerprint(self) -> bytes:
        """SHA-256 of what was asked: blanks, the order of the fields and the spelling of identifiers do not matter."""
        return hashlib.sha256(self.__pydantic_serializer__.to_json(self, exclude_unset=True, by_alias=True)).digest()

    def accepted(self, payment_id: PaymentId, tenant_id: TenantId) -> PaymentAccepted:
        """The same in our words."""
        custom = {one.key: one.value for one in self.custom_data or ()}
        money = Money.parse(self.amount.amount, self.amount.currency)
        reference = custom.get("referenceNumber")
        return PaymentAccepted(
            payment_id=payment_id,
            tenant_id=tenant_id,
            amount=money.minor,
            currency=money.currency,
            payer=_party(self.payer, custom.get("payerTaxId")),
            payee=_party(self.payee, custom.get("payeeTaxId")),
            concept=self.note or "",
            reference_number=None if reference is None else int(reference),
        )


def _party(party: WireParty, tax_id: str | None) -> Party:
    found = party.party_id_info
    return Party(id_type=found.party_id_type, identifier=found.party_identifier, name=party.full_name(), tax_id=tax_id)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What the channel may know of a payment."""

    payment_id: PaymentId
    correlation_id: str
    client_ref_id: str | None
    claimed: bool
    """Whether the engine has begun it."""
    outcome: Outcome | None
    reason: Reason | None
    reason_detail: str | None
    completed_at: datetime | None

    @property
    def state(self) -> TransferState:
        if self.outcome is not None:
            return STATE_OF[self.outcome]
        return TransferState.PENDING if self.claimed else TransferState.RECEIVED


def transfer_body(transfer: Transfer) -> bytes:
    """The answer to `GET /channel/transfer/{transactionId}`."""
    return to_json(
        {
            "clientRefId": transfer.client_ref_id,
            "transactionId": transfer.payment_id,
            "transferId": transfer.payment_id,
            "completedTimestamp": _timestamp(transfer.completed_at),
            **_how_it_stands(transfer),
        }
    )


def state_body(transfer: Transfer) -> bytes:
    """The answer to `GET /channel/txnState/{X-CorrelationID}`."""
    return to_json(
        {
            "transactionId": transfer.payment_id,
            "clientRefId": transfer.client_ref_id,
            "completedTimestamp": _timestamp(transfer.completed_at),
            **_how_it_stands(transfer),
        }
    )


def callback_body(transfer: Transfer, recorded_at: datetime) -> str:
    """What an outcome callback says; the same text at each attempt."""
    return to_json(
        {
            "type": "transfer.outcome",
            "timestamp": _timestamp(recorded_at),
            "transactionId": transfer.payment_id,
            "correlationId": transfer.correlation_id,
            "clientRefId": transfer.client_ref_id,
            "completedTimestamp": _timestamp(transfer.completed_at),
            **_how_it_stands(transfer),
        }
    ).decode()


def _how_it_stands(transfer: Transfer) -> Mapping[str, str | None]:
    return {
        "transferState": transfer.state,
        "outcome": transfer.outcome,
        "reason": transfer.reason,
        "reasonDetail": transfer.reason_detail,
        "iso20022Reason": (ISO20022[transfer.reason] or None) if transfer.reason else None,
    }


def _timestamp(at: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
