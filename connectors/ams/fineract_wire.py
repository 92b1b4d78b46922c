"""Fineract's words, and their translation both ways. Pure.

An account is named by the external id of its savings account. Amounts are written as decimal strings, which Fineract
reads exactly, and read without floats. Dates come as `[2026, 11, 21]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final, Literal

from connectors.ams.model import (
    AccountClosed,
    AccountFrozen,
    AccountUnknown,
    CurrencyMismatch,
    InsufficientFunds,
    StatementLine,
)
from hub.errors import Rejected
from hub.money import MINOR_DIGITS, Money
from hub.transfer import IdentifierType, PaymentId

IDENTIFIER_TYPES: Final[Mapping[IdentifierType, str]] = {
    IdentifierType.MSISDN: "MSISDN",
    IdentifierType.ACCOUNT_ID: "ACCOUNT_ID",
    IdentifierType.IBAN: "IBAN",
    IdentifierType.ALIAS: "ALIAS",
    IdentifierType.CLABE: "BBAN",
}
"""How Fineract calls our identifiers; a CLABE is Mexico's basic bank account number. It has no word for a card."""

ROUTING_CODE: Final = "INTEROPERATION"
"""What Fineract writes on every transaction of its interoperation API, next to the transfer code as receipt number."""

REFUSALS: Final[Mapping[str, type[Rejected]]] = {
    "error.msg.interop.account.not.found": AccountUnknown,
    "error.msg.saving.account.id.invalid": AccountUnknown,
    "error.msg.client.id.invalid": AccountUnknown,
    "error.msg.accounttransfer.different.currencies": CurrencyMismatch,
    "error.msg.interop.transaction.not.allowed": AccountClosed,
    "error.msg.saving.account.blocked.transaction.not.allowed": AccountFrozen,
    "error.msg.savings.account.debit.transaction.not.allowed": AccountFrozen,
    "error.msg.savings.account.credit.transaction.not.allowed": AccountFrozen,
    "error.msg.savingsaccount.transaction.insufficient.account.balance": InsufficientFunds,
    "error.msg.savingsaccount.transaction.insufficient.account.balance.withdraw": InsufficientFunds,
}
"""What each businesslike error code of Fineract's is called by a payment."""

_LONGEST_CODE: Final = 50  # m_payment_detail.receipt_number
_GONE: Final = frozenset({"CLOSED", "REJECTED", "WITHDRAWN_BY_APPLICANT", "PRE_MATURE_CLOSURE", "MATURED"})
_NO_DEBITS: Final = frozenset({"BLOCK", "BLOCK_DEBIT"})
_NO_CREDITS: Final = frozenset({"BLOCK", "BLOCK_CREDIT"})
_NOT_BOOKED: Final = frozenset({"AMOUNT_HOLD", "AMOUNT_RELEASE", "ACCRUAL"})
_DEBITS: Final = frozenset(
    {
        "WITHDRAWAL",
        "WITHDRAWAL_FEE",
        "ANNUAL_FEE",
        "PAY_CHARGE",
        "OVERDRAFT_INTEREST",
        "WITHHOLD_TAX",
        "ESCHEAT",
    }
)
_NOTE: Final = re.compile(r"payment ([!-~]{1,50}) ([a-z-]{1,64})")


Side = Literal["payer", "payee"]


class NotFineract(ValueError):
    """What came is no answer of Fineract's."""


@dataclass(frozen=True, slots=True)
class Account:
    """`GET /interoperation/accounts/{id}`."""

    id: str
    currency: str
    booked: Money
    available: Money
    status: str
    sub_status: str
    client: int | None

    @property
    def takes_debits(self) -> bool:
        return self.status == "ACTIVE" and self.sub_status not in _NO_DEBITS

    @property
    def takes_credits(self) -> bool:
        return self.status == "ACTIVE" and self.sub_status not in _NO_CREDITS

    def check(self, side: Side, currency: str) -> None:
        """Raise the refusal with which this account must not pay, or be paid, in this currency."""
        if self.currency != currency:
            raise CurrencyMismatch(side)
        if self.status in _GONE:
            raise AccountClosed(side)
        if not (self.takes_debits if side == "payer" else self.takes_credits):
            raise AccountFrozen(side)


@dataclass(frozen=True, slots=True)
class Booked:
    """A transaction of a savings account that bears a transfer code."""

    id: int
    kind: str
    """`HOLD`, `WITHDRAWAL`, `DEPOSIT` or another."""

    code: str
    reversed: bool
    released: bool
    """Of a hold: it was given back, or paid."""


@dataclass(frozen=True, slots=True)
class Savings:
    """`GET /savingsaccounts/external-id/{id}?associations=transactions`."""

    id: int
    transactions: tuple[Booked, ...]

    def find(self, kind: str, code: str) -> Booked | None:
        return next((one for one in self.transactions if (one.kind, one.code) == (kind, code)), None)


def transfer_code(payment: PaymentId, suffix: str = "") -> str:
    """The receipt number of a payment's transaction: of its hold and what the payer pays without suffix, `:c` of what a
    payee gets, `:r` of what comes back. Raises `ValueError` when Fineract would cut it."""
    code = f"{payment}{suffix}"
    if len(code) > _LONGEST_CODE:
        raise ValueError(f"a transfer code has {_LONGEST_CODE} characters at most")
    return code


@dataclass(frozen=True, slots=True)
class Transfer:
    """One side of a payment, as it is prepared, created or released."""

    payment: PaymentId
    code: str
    role: Literal["PAYER", "PAYEE"]
    account: str
    amount: Money
    fee: Money
    reason: str

    def body(self) -> bytes:
        """The body of `POST /interoperation/transfers`, whatever the action."""
        body: dict[str, Any] = {
            "transactionCode": self.payment,
            "transferCode": self.code,
            "accountId": self.account,
            "amount": _money_body(self.amount),
            "transactionRole": self.role,
            "note": f"payment {self.payment} {self.reason}",
        }
        if self.fee.minor:
            body["fspFee"] = _money_body(self.fee)
        return json.dumps(body).encode()


def quote_body(account: str, amount: Money) -> bytes:
    """The body of `POST /interoperation/quotes` for a payer. Fineract keeps no quotes, so the codes name nothing."""
    return json.dumps(
        {
            "transactionCode": "quote",
            "quoteCode": "quote",
            "accountId": account,
            "amount": _money_body(amount),
            "amountType": "RECEIVE",
            "transactionRole": "PAYER",
            "transactionType": {"scenario": "TRANSFER", "initiator": "PAYER", "initiatorType": "CONSUMER"},
        }
    ).encode()


def _money_body(money: Money) -> dict[str, str]:
    return {"amount": money.decimal(), "currency": money.currency}


def read_body(body: bytes) -> Any:
    """Raises `NotFineract`."""
    try:
        return json.loads(body, parse_float=Decimal, parse_int=int)
    except ValueError:
        raise NotFineract("not JSON") from None


def error_code(answer: Any) -> str:
    """The code that says why: of the first single error, or of the whole; empty when there is none."""
    if not isinstance(answer, dict):
        return ""
    errors = answer.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else answer
    code = first.get("userMessageGlobalisationCode")
    return code if isinstance(code, str) else ""


def read_party(answer: Any) -> str:
    """The account's external id. Raises `NotFineract`."""
    try:
        return str(answer["accountId"])
    except (KeyError, TypeError):
        raise NotFineract("not a party") from None


def read_holder(answer: Any) -> str | None:
    """Raises `NotFineract`."""
    if not isinstance(answer, dict):
        raise NotFineract("not a client")
    name = answer.get("displayName")
    return name if isinstance(name, str) else None


def read_account(answer: Any) -> Account:
    """Raises `NotFineract`."""
    try:
        currency = answer["currency"]
        return Account(
            id=str(answer["accountId"]),
            currency=currency,
            booked=_money(answer["accountBalance"], currency),
            available=_money(answer["availableBalance"], currency),
            status=str(answer["status"]),
            sub_status=str(answer.get("subStatus") or "NONE"),
            client=answer.get("clientId"),
        )
    except (KeyError, TypeError, AttributeError):
        raise NotFineract("not an account") from None


def read_fee(answer: Any, currency: str) -> Money:
    """The fee of a quote, rounded as Fineract rounds what it charges. Raises `NotFineract`."""
    try:
        fee = answer.get("fspFee")
        return Money.zero(currency) if fee is None else _money(fee["amount"], currency)
    except (KeyError, TypeError, AttributeError):
        raise NotFineract("not a quote") from None


def read_savings(answer: Any) -> Savings:
    """Raises `NotFineract`."""
    try:
        return Savings(int(answer["id"]), tuple(_booked(one) for one in answer.get("transactions") or ()))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NotFineract("not a savings account") from None


def _booked(one: Mapping[str, Any]) -> Booked:
    kinds, detail = one["transactionType"], one.get("paymentDetailData") or {}
    kind = next(
        (
            name
            for flag, name in (("amountHold", "HOLD"), ("withdrawal", "WITHDRAWAL"), ("deposit", "DEPOSIT"))
            if kinds.get(flag)
        ),
        str(kinds.get("value")),
    )
    return Booked(
        id=int(one["id"]),
        kind=kind,
        code=str(detail.get("receiptNumber")) if detail.get("routingCode") == ROUTING_CODE else "",
        reversed=bool(one.get("reversed")),
        released=bool(one.get("releaseTransactionId")),
    )


def read_statement(answer: Any, currency: str) -> list[StatementLine]:
    """The lines of `GET /interoperation/accounts/{id}/transactions`, newest first, without holds and their releases.

    Fineract tells days, not times: each line stands at the beginning of its day. Raises `NotFineract`.
    """
    try:
        return [_line(one, currency) for one in answer["transactions"] if one["transactionType"] not in _NOT_BOOKED]
    except (KeyError, TypeError, ValueError):
        raise NotFineract("not a list of transactions") from None


def _line(one: Mapping[str, Any], currency: str) -> StatementLine:
    amount, note = _money(one["amount"], currency), _NOTE.search(one.get("note") or "")
    year, month, day = one["bookingDateTime"]
    return StatementLine(
        amount=-amount if one["transactionType"] in _DEBITS else amount,
        balance_after=_money(one["accountBalance"], currency),
        booked_at=datetime(year, month, day, tzinfo=UTC),
        entry=str(one["savingTransactionId"]),
        payment=PaymentId(note[1]) if note else None,
        reason=note[2] if note else str(one["transactionType"]).lower().replace("_", "-"),
    )


def _money(amount: Any, currency: str) -> Money:
    try:
        exact = Decimal(amount if isinstance(amount, (int, Decimal)) else str(amount))
        minor = (exact * 10 ** MINOR_DIGITS[currency]).to_integral_value(ROUND_HALF_EVEN)
    except (InvalidOperation, KeyError):
        raise NotFineract("not an amount") from None
    return Money(int(minor), currency)
