"""The two jobs: send an order, and ask what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from connectors.stp import accounts
from connectors.stp.accounts import Institutions
from connectors.stp.calendar import operation_date
from connectors.stp.dispatch import Clock, Dispatch, Look, Profile, Profiles, now
from connectors.stp.model import (
    Inquired,
    InquireOrder,
    OrderRejected,
    OrderSent,
    Sending,
    SendOrder,
    SentState,
)
from connectors.stp.orders import NewOrder, OrderStore, StoredOrder
from connectors.stp.tracking import REFERENCES, reference_number, tracking_key
from connectors.stp.wire import orden, outcome_of, refusal
from hub.errors import Rejected
from hub.failpoint import failpoint
from hub.jobs import handles
from hub.money import Money
from hub.transfer import Outcome, Reason


@dataclass(frozen=True, slots=True)
class Timers:
    """How long the process waits before it asks."""

    inquire_after: timedelta
    inquire_again_after: timedelta


class StpWorker:
    """Does STP's jobs for every tenant."""

    def __init__(
        self,
        *,
        orders: OrderStore,
        dispatch: Dispatch,
        profiles: Profiles,
        institutions: Institutions,
        timers: Timers,
        clock: Clock = now,
    ) -> None:
        self._orders = orders
        self._dispatch = dispatch
        self._profiles = profiles
        self._institutions = institutions
        self._clock = clock
        self._timers = timers

    @handles(SendOrder)
    async def send_order(self, job: SendOrder) -> OrderSent:
        """Send the order once: commit it, send it, write down the answer. A repeat looks first."""
        order, fresh = await self._find_or_claim(job)
        order = await (self._dispatch.send(order) if fresh else self._dispatch.settle(order))
        if order.sending is Sending.REJECTED:
            raise refusal(order.error_id, order.error_detail or "")
        accepted = order.sending is Sending.ACCEPTED
        return OrderSent(
            order_state=SentState.ACCEPTED if accepted else SentState.UNKNOWN,
            inquire_after=_duration(self._timers.inquire_after),
            inquire_again_after=_duration(self._timers.inquire_again_after),
        )

    @handles(InquireOrder)
    async def inquire_order(self, job: InquireOrder) -> Inquired:
        """Ask what became of the order. What a callback told us already is not asked again."""
        order = await self._orders.find(job.payment_id)
        if order is None or order.tenant_id != job.tenant_id:
            raise LookupError(f"payment {job.payment_id} has no order at STP")
        if not order.state.is_final and order.sending is not Sending.REJECTED:
            order, seen = await self._dispatch.look(order, told=True)
            if seen is Look.NOT_FOUND:
                order = await self._dispatch.not_found(order)
        return _inquired(order, job.inquiries + 1)

    async def _find_or_claim(self, job: SendOrder) -> tuple[StoredOrder, bool]:
        """The payment's order, and whether it was claimed just now."""
        profile = self._profiles.of(job.tenant_id)
        try:
            new = await self._new_order(job, profile)
        except Rejected:
            # Perhaps our own rules changed since this very order was sent: what was sent counts.
            if found := await self._orders.find(job.payment_id):
                return found, False
            raise
        moment = self._clock()
        failpoint("stp.send-order.before-claim")
        claimed = await self._orders.claim(new, operation_date(moment), moment)
        failpoint("stp.send-order.after-claim")
        if claimed is not None:
            return claimed, True
        found = await self._orders.find(job.payment_id)
        if found is None or found.tenant_id != job.tenant_id:
            raise LookupError(f"payment {job.payment_id} belongs to another tenant's order")
        if found.sending is Sending.NOT_SENT and found.doubts == 0 and found.tracking_key == new.tracking_key:
            # STP has nothing of it, so a key or setting that was put right since may still change what is sent.
            found = await self._orders.renew(found, new) or found
        return found, False

    async def _new_order(self, job: SendOrder, profile: Profile) -> NewOrder:
        """The order as it will be sent and signed. Raises `Rejected` for what STP would certainly refuse."""
        if job.currency != "MXN":
            raise OrderRejected(f"STP pays in MXN, not in {job.currency}")
        if job.amount <= 0:
            raise OrderRejected("the amount must be positive")
        reference = reference_number(job.payment_id) if job.reference_number is None else job.reference_number
        if not 1 <= reference <= REFERENCES:
            raise OrderRejected(f"the reference number must be from 1 to {REFERENCES}")
        beneficiary = accounts.beneficiary(job.payee, self._institutions)
        if beneficiary.account == profile.sender.payer_account:
            raise OrderRejected("payer and payee are the same account")
        key = tracking_key(job.payment_id, profile.tracking_prefix)
        order = orden(
            sender=profile.sender,
            key=key,
            amount=Money(job.amount, job.currency),
            payer=job.payer or profile.sender.as_party(),
            payee=job.payee,
            beneficiary=beneficiary,
            concept=job.concept,
            reference=reference,
        )
        joined = order.joined()
        signature = await profile.signer.sign_aside(joined)
        return NewOrder(
            payment_id=job.payment_id,
            tenant_id=job.tenant_id,
            company=profile.sender.company,
            tracking_key=key,
            amount=job.amount,
            payee_account=beneficiary.account,
            body=order.body(signature, dict(profile.unsigned)),
            joined=joined,
            purpose=job.purpose,
        )


def _inquired(order: StoredOrder, inquiries: int) -> Inquired:
    if order.state.is_final:
        outcome, reason, detail = outcome_of(order.state_for_payer, order.cause)
        return Inquired(
            outcome=outcome,
            reason=reason,
            reason_detail=detail,
            happened_at=order.happened_for_payer,
            inquiries=inquiries,
        )
    if order.sending is Sending.REJECTED:
        refused = refusal(order.error_id, order.error_detail or "")
        return Inquired(
            outcome=Outcome.REJECTED, reason=refused.reason, reason_detail=refused.detail, inquiries=inquiries
        )
    known = "STP has the order and no final state" if order.sending is Sending.ACCEPTED else "STP shows no order"
    return Inquired(outcome=None, reason=Reason.NO_ANSWER, reason_detail=known, inquiries=inquiries)


def _duration(length: timedelta) -> str:
    """ISO 8601, in seconds."""
    return f"PT{round(length.total_seconds())}S"
