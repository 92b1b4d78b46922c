"""Our words for what an account system does: its jobs, their results and their refusals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal

from hub.errors import Rejected
from hub.jobs import Job, Result
from hub.money import Money
from hub.transfer import IdentifierType, Outcome, Party, PaymentId, Reason, TenantId

# --- Refusals: a certain no, and nothing moved ----------------------------------------------------------------------


class AccountUnknown(Rejected):
    """No account answers to that identifier, and no rail could find one."""

    reason = Reason.ACCOUNT_UNKNOWN


class AccountClosed(Rejected):
    """The account is closed."""

    reason = Reason.ACCOUNT_CLOSED


class AccountFrozen(Rejected):
    """The payer's account takes no debits, or the payee's no credits."""

    reason = Reason.ACCOUNT_FROZEN


class CurrencyMismatch(Rejected):
    """The account is kept in another currency."""

    reason = Reason.CURRENCY_MISMATCH


class AmountNotAllowed(Rejected):
    """No band of the fee table has the amount, an account could not hold it, or both parties are one account."""

    reason = Reason.AMOUNT_NOT_ALLOWED


class InsufficientFunds(Rejected):
    """The payer's balance, less what is held, does not cover amount and fee."""

    reason = Reason.INSUFFICIENT_FUNDS


class AccountSystemConflict(Exception):
    """The account system and the process disagree about this payment: a hold was captured where it should be released,
    or an operation is repeated with other input. Only a person can tell why, so it becomes an incident at once.
    """


# --- Values ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AccountFound:
    """An account as an identifier finds it."""

    account: str
    currency: str
    holder_name: str | None
    takes_debits: bool
    takes_credits: bool


@dataclass(frozen=True, slots=True)
class Quote:
    """The parties' accounts and what the transfer costs the payer on top of its amount."""

    payer_account: str
    payee_account: str | None
    """`None` when the payee has no account at this tenant: a rail has to reach it."""

    fee: Money


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """What an account holds."""

    booked: Money
    held: Money

    @property
    def available(self) -> Money:
        return self.booked - self.held


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One entry on an account's statement."""

    amount: Money
    """Positive when the account got it, negative when it gave it."""

    balance_after: Money
    booked_at: datetime
    entry: str
    """The account system's own number of the entry."""

    payment: PaymentId | None
    """The payment it belongs to, when it belongs to one."""

    reason: str | None


@dataclass(frozen=True, slots=True)
class StatementPage:
    """A bounded piece of a statement, newest first."""

    lines: tuple[StatementLine, ...]
    next: str | None
    """What to ask for the older ones with; `None` on the last page."""


ROUTABLE: Final = frozenset({IdentifierType.CLABE, IdentifierType.CARD, IdentifierType.MSISDN})
"""Identifiers that say by themselves where the payee is, so that a rail may reach one who is no customer of ours."""

# --- Jobs: all safe to run twice, all answered by the first run's answer --------------------------------------------

ATTEMPTS: Final = 960
"""How often each of these jobs is tried: with pauses of up to a minute an outage of twelve hours becomes no incident
(docs/decisions/stand-in.md)."""


class TransferQuoted(Result):
    """What the payment needs to go on."""

    payer_account: str
    payee_account: str | None
    fee: int
    """Minor units, on top of the amount."""

    on_us: bool
    """The payee is a customer of the same tenant."""


class QuoteTransfer(Job[TransferQuoted]):
    """Find the parties' accounts and the fee. Writes nothing."""

    job_type: ClassVar[str] = "ams.quote-transfer"
    attempts: ClassVar[int] = ATTEMPTS
    rejections = (
        AccountUnknown,
        AccountClosed,
        AccountFrozen,
        CurrencyMismatch,
        AmountNotAllowed,
        InsufficientFunds,
    )
    timeout: ClassVar[timedelta] = timedelta(seconds=30)

    payment_id: PaymentId
    tenant_id: TenantId
    amount: int
    """Minor units."""

    currency: str
    payer: Party
    payee: Party


class HoldFunds(Job[Result]):
    """Set the payer's money and the fee aside until the payment's outcome is known. Time alone never frees it (H3)."""

    job_type: ClassVar[str] = "ams.hold-funds"
    attempts: ClassVar[int] = ATTEMPTS
    rejections = (
        InsufficientFunds,
        AccountUnknown,
        AccountClosed,
        AccountFrozen,
        CurrencyMismatch,
        AmountNotAllowed,
    )
    timeout: ClassVar[timedelta] = timedelta(seconds=30)

    payment_id: PaymentId
    tenant_id: TenantId
    payer_account: str
    amount: int
    """Minor units."""

    fee: int
    currency: str


class TransferBooked(Result):
    """The money is on the payee's account."""

    outcome: Outcome = Outcome.SETTLED
    reason: Reason = Reason.NONE
    reason_detail: Literal[None] = None


class BookTransfer(Job[TransferBooked]):
    """Pay the held money to a payee of the same tenant, and the fee to fee income, in one transaction."""

    job_type: ClassVar[str] = "ams.book-transfer"
    attempts: ClassVar[int] = ATTEMPTS
    rejections = (AccountUnknown, AccountClosed, AccountFrozen, CurrencyMismatch, AmountNotAllowed)
    timeout: ClassVar[timedelta] = timedelta(seconds=30)

    payment_id: PaymentId
    tenant_id: TenantId
    payee_account: str


class CaptureHold(Job[Result]):
    """The rail has paid: move the held money to the rail's settlement account, and the fee to fee income."""

    job_type: ClassVar[str] = "ams.capture-hold"
    attempts: ClassVar[int] = ATTEMPTS
    timeout: ClassVar[timedelta] = timedelta(seconds=30)

    payment_id: PaymentId
    tenant_id: TenantId


class ReleaseHold(Job[Result]):
    """The payment will not be made: give the held money back, the fee included."""

    job_type: ClassVar[str] = "ams.release-hold"
    attempts: ClassVar[int] = ATTEMPTS
    timeout: ClassVar[timedelta] = timedelta(seconds=30)

    payment_id: PaymentId
    tenant_id: TenantId


class ReverseTransfer(Job[Result]):
    """A settled transfer came back: give amount and fee to the payer again with one compensating entry (L38).

    The transfer may just be about to be captured; then this is tried again a little later.
    """

    job_type: ClassVar[str] = "ams.reverse-transfer"
    rejections = (
        AccountUnknown,
        AccountClosed,
        AccountFrozen,
        CurrencyMismatch,
        AmountNotAllowed,
        InsufficientFunds,
    )
    timeout: ClassVar[timedelta] = timedelta(seconds=30)
    attempts: ClassVar[int] = ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId
    reason: Reason


class AccountValidated(Result):
    """Where incoming money goes."""

    payee_account: str


class ValidateAccount(Job[AccountValidated]):
    """Find the account that incoming money is for. Writes nothing; whether it takes credits is found when it does."""

    job_type: ClassVar[str] = "ams.validate-account"
    rejections = (AccountUnknown, CurrencyMismatch)
    timeout: ClassVar[timedelta] = timedelta(seconds=30)
    attempts: ClassVar[int] = ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId
    payee: Party
    currency: str


class CreditAccount(Job[Result]):
    """Put money that a rail brought on the payee's account, once."""

    job_type: ClassVar[str] = "ams.credit-account"
    rejections = (AccountUnknown, AccountClosed, AccountFrozen, CurrencyMismatch, AmountNotAllowed)
    timeout: ClassVar[timedelta] = timedelta(seconds=30)
    attempts: ClassVar[int] = ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId
    payee_account: str
    amount: int
    """Minor units."""

    currency: str
