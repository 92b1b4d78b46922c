"""The account system's jobs, each one call to it."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from connectors.ams.client import AccountSystem
from connectors.ams.model import (
    AccountSystemConflict,
    AccountValidated,
    BookTransfer,
    CaptureHold,
    CreditAccount,
    CurrencyMismatch,
    HoldFunds,
    QuoteTransfer,
    ReleaseHold,
    ReverseTransfer,
    TransferBooked,
    TransferQuoted,
    ValidateAccount,
)
from hub.errors import Rejected, Unavailable
from hub.jobs import Result, handles
from hub.money import Money
from hub.telemetry import logger

_refused_reversals = Counter(
    "payhub_ams_reversals_refused",
    "Returned money that the payer's account did not take; an operator must look.",
    ("reason",),
)

log = logger(__name__)

CAPTURE_TRIES: Final = 20
"""How often a reversal is tried while the transfer is not captured: about a quarter of an hour."""


class AmsWorker:
    """Does what the drawings ask of the account system."""

    def __init__(self, accounts: AccountSystem) -> None:
        self._accounts = accounts

    @handles(QuoteTransfer)
    async def quote_transfer(self, job: QuoteTransfer) -> TransferQuoted:
        quote = await self._accounts.quote(job.tenant_id, job.payer, job.payee, Money(job.amount, job.currency))
        return TransferQuoted(
            payer_account=quote.payer_account,
            payee_account=quote.payee_account,
            fee=quote.fee.minor,
            on_us=quote.payee_account is not None,
        )

    @handles(HoldFunds)
    async def hold_funds(self, job: HoldFunds) -> Result:
        amount, fee = Money(job.amount, job.currency), Money(job.fee, job.currency)
        await self._accounts.hold(job.tenant_id, job.payment_id, job.payer_account, amount, fee)
        return Result()

    @handles(BookTransfer)
    async def book_transfer(self, job: BookTransfer) -> TransferBooked:
        await self._accounts.book(job.tenant_id, job.payment_id, job.payee_account)
        return TransferBooked()

    @handles(CaptureHold)
    async def capture_hold(self, job: CaptureHold) -> Result:
        await self._accounts.capture(job.tenant_id, job.payment_id)
        return Result()

    @handles(ReleaseHold)
    async def release_hold(self, job: ReleaseHold) -> Result:
        await self._accounts.release(job.tenant_id, job.payment_id)
        return Result()

    @handles(ReverseTransfer)
    async def reverse_transfer(self, job: ReverseTransfer) -> Result:
        try:
            await self._accounts.reverse(job.tenant_id, job.payment_id, reason=job.reason)
        except AccountSystemConflict as conflict:
            # The return may overtake the capture. What is still so after a quarter of an hour is an incident.
            if job.attempts - job.facts.retries >= CAPTURE_TRIES:
                raise
            raise Unavailable(f"nothing captured to give back: {conflict}") from conflict
        except Rejected as refused:
            _refused_reversals.labels(refused.reason).inc()
            log.error("reversal.refused", payment_id=job.payment_id, reason=refused.reason)  # noqa: TRY400 (no defect)
            raise
        return Result()

    @handles(ValidateAccount)
    async def validate_account(self, job: ValidateAccount) -> AccountValidated:
        found = await self._accounts.lookup(job.tenant_id, job.payee.id_type, job.payee.identifier)
        if found.currency != job.currency:
            raise CurrencyMismatch(f"the account is kept in {found.currency}")
        return AccountValidated(payee_account=found.account)

    @handles(CreditAccount)
    async def credit_account(self, job: CreditAccount) -> Result:
        amount = Money(job.amount, job.currency)
        await self._accounts.credit(job.tenant_id, job.payment_id, job.payee_account, amount)
        return Result()
