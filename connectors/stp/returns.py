"""Deposits that go back to their senders: claimed, sent and recorded like orders, under a tracking key of their own.

A deposit may be given back because its account cannot take it after all. `retornaOrden` moves money, so it has the same
dangers as an order and takes the same way: a row of the order store (of the kind `return`) is committed with the exact
bytes before they are sent, and a repeat looks first. A second rule of the database stands behind the derived key: of
one deposit, named by sender, tracking key and operation date, there is one return at most.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final

from connectors.stp.calendar import operation_date
from connectors.stp.dispatch import Clock, Dispatch, Profile, Profiles, now
from connectors.stp.model import (
    DepositReturned,
    GivenBackAlready,
    OrderKind,
    OrderRejected,
    ReturnDeposit,
    Sending,
    digest,
)
from connectors.stp.orders import NewOrder, OrderStore, StoredOrder
from connectors.stp.tracking import TrackingKey, tracking_key
from connectors.stp.wire import Devolucion, refusal
from hub.errors import Uncertain
from hub.failpoint import failpoint
from hub.jobs import handles
from hub.money import Money
from hub.transfer import PaymentId

LOOK_AGAIN_AFTER: Final = timedelta(seconds=30)
"""An order takes its time to show up; asking sooner wastes inquiries, of which there are few in an hour."""

TRY_AGAIN_AFTER: Final = timedelta(hours=1)
"""A refusal is told again without asking STP until then: a repeat of the same job is no new attempt."""


def return_key(payment_id: PaymentId, prefix: str = "PH") -> TrackingKey:
    """The tracking key of the transfer that gives a deposit back. It is never that of a payment."""
    return tracking_key(PaymentId(f"return of {payment_id}"), prefix)


class ReturnsWorker:
    """Does `stp.return-deposit` for every tenant."""

    def __init__(self, *, orders: OrderStore, dispatch: Dispatch, profiles: Profiles, clock: Clock = now) -> None:
        self._orders = orders
        self._dispatch = dispatch
        self._profiles = profiles
        self._clock = clock

    @handles(ReturnDeposit)
    async def return_deposit(self, job: ReturnDeposit) -> DepositReturned:
        """Give the deposit back once. Raises `OrderRejected` when STP certainly will not."""
        order, fresh = await self._find_or_claim(job)
        order = await (self._dispatch.send(order) if fresh else self._dispatch.settle(order))
        if order.sending is Sending.REJECTED:
            raise OrderRejected(refusal(order.error_id, order.error_detail or "").detail)
        if order.sending is not Sending.ACCEPTED:
            raise Uncertain(f"the return of deposit {order.payment_id} is {order.sending}", LOOK_AGAIN_AFTER)
        return DepositReturned(return_tracking_key=order.tracking_key)

    async def _tried_again(self, order: StoredOrder) -> StoredOrder:
        """The return, open once more if STP refused it so long ago that it may think otherwise by now."""
        if order.sending is not Sending.REJECTED or self._clock() - order.claimed_at < TRY_AGAIN_AFTER:
            return order
        return await self._orders.reopen(order) or order

    async def _find_or_claim(self, job: ReturnDeposit) -> tuple[StoredOrder, bool]:
        """The deposit's return, and whether it was claimed just now."""
        found = await self._orders.find(job.payment_id)
        if found is None:
            new = await self._new(job, self._profiles.of(job.tenant_id))
            moment = self._clock()
            failpoint("stp.return-deposit.before-claim")
            claimed = await self._orders.claim(new, operation_date(moment), moment)
            failpoint("stp.return-deposit.after-claim")
            if claimed is not None:
                return claimed, True
            found = await self._orders.find(job.payment_id)
        if found is None:
            raise GivenBackAlready(f"another payment than {job.payment_id} gives this deposit back")
        if found.tenant_id != job.tenant_id or found.kind is not OrderKind.RETURN:
            raise LookupError(f"payment {job.payment_id} is no deposit of this tenant's that goes back")
        return await self._tried_again(found), False

    async def _new(self, job: ReturnDeposit, profile: Profile) -> NewOrder:
        if job.currency != "MXN" or job.amount <= 0:
            raise OrderRejected("only a positive amount in MXN can go back over STP")
        try:
            given_back = Devolucion(
                company=profile.sender.company,
                operation_date=job.operation_date,
                sender_institution=job.sender_institution,
                tracking_key=job.deposit_tracking_key,
                amount=Decimal(Money(job.amount, job.currency).decimal()),
                return_key=return_key(job.payment_id, profile.tracking_prefix),
            )
        except ValueError as error:
            raise OrderRejected(str(error)) from None
        joined = given_back.joined()
        return NewOrder(
            payment_id=job.payment_id,
            tenant_id=job.tenant_id,
            company=given_back.company,
            tracking_key=given_back.return_key,
            amount=job.amount,
            payee_account="",  # the sender's, which a return does not name
            body=given_back.body(await profile.signer.sign_aside(joined)),
            joined=joined,
            kind=OrderKind.RETURN,
            deposit=digest(job.sender_institution, job.deposit_tracking_key, job.operation_date),
        )
