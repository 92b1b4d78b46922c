"""Money that comes in over STP, from the inbox to the payee's process, and what STP is answered.

    store the raw body → read it → money of ours that comes back? → whose account? → commit → the payee's process
    → its decision while STP waits → answer

STP keeps a deposit that is answered `confirmar` and sends back one that is answered `devolver`. While its request is
open the process may decide either; a refusal that comes later goes back by a transfer of our own
(`docs/decisions/stp-deposit-answers.md`). A repeat finds the committed row and gets the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prometheus_client import Counter, Gauge

from connectors.stp.accounts import AccountKind
from connectors.stp.calendar import operation_date
from connectors.stp.callbacks import Callbacks
from connectors.stp.deposit_store import Deposit, DepositAnswer, DepositDecision, DepositStore, OwnOrder
from connectors.stp.dispatch import Clock, alert, now, report
from connectors.stp.model import (
    ClaimDeposit,
    ConfirmDeposit,
    DepositArrived,
    DepositClaimed,
    DepositRefused,
    RefuseDeposit,
)
from connectors.stp.orders import CallbackResult, OrderStore
from connectors.stp.wire import MONEY_BACK, DepositNotice, MalformedCallback, read_deposit
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.jobs import Result, handles
from hub.messages import Engine
from hub.telemetry import logger
from hub.transfer import IdentifierType, Party, Reason, TenantId

DEPOSIT: Final = "deposit"
"""The kind of callback that tells of incoming money."""

LEFT_ALONE: Final = timedelta(seconds=5)
"""How long the sweep leaves a deposit to the process that received it."""

WRONG_KIND, INCOMPLETE, REPEATED_KEY, UNKNOWN_MOBILE, OTHER = 17, 14, 30, 22, 0
CAUSE_OF: Final[Mapping[Reason, int]] = {
    Reason.ACCOUNT_UNKNOWN: 1,
    Reason.ACCOUNT_FROZEN: 2,
    Reason.ACCOUNT_CLOSED: 3,
    Reason.CURRENCY_MISMATCH: 5,
    Reason.AMOUNT_NOT_ALLOWED: 20,
}
"""The scheme's number for each reason why an account does not take money."""

_ID_TYPES: Final[Mapping[AccountKind, IdentifierType]] = {
    AccountKind.CLABE: IdentifierType.CLABE,
    AccountKind.CARD: IdentifierType.CARD,
    AccountKind.MOBILE: IdentifierType.MSISDN,
}

_deposits = Counter("payhub_stp_deposits", "Posts of incoming money by what STP was answered.", ("answer",))
_waiting = Gauge("payhub_stp_deposits_waiting", "Deposits that the sweep found and no process had begun.")

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What STP is answered: to keep the money, to send it back with a cause, or nothing it understands."""

    answer: DepositAnswer | None
    cause: int | None = None


KEEP: Final = Reply(DepositAnswer.KEEP)
MALFORMED: Final = Reply(None)


class Deposits:
    """Takes deposits in and starts their processes. `tenant`: whose an account is when no prefix says so."""

    def __init__(
        self,
        store: DepositStore,
        orders: OrderStore,
        callbacks: Callbacks,
        engine: Engine,
        *,
        tenant: TenantId | None = None,
        clock: Clock = now,
    ) -> None:
        self._store = store
        self._orders = orders
        self._callbacks = callbacks
        self._engine = engine
        self._tenant = tenant
        self._clock = clock

    async def receive(self, body: bytes, answer_within: float) -> Reply:
        """Store a deposit, start its process, and answer as that decides within `answer_within` seconds.

        Raises `Unavailable` when nothing can be promised; STP then repeats its post.
        """
        until = asyncio.get_running_loop().time() + answer_within
        failpoint("stp.deposit.before-store")
        kept = await self._orders.keep_callback(body, self._clock(), DEPOSIT)
        failpoint("stp.deposit.after-store")
        reply = await self._handle(kept.id, body, until, known=kept.result is not None)
        _deposits.labels("none" if reply.answer is None else reply.answer).inc()
        return reply

    async def again(self, callback_id: int, body: bytes) -> None:
        """Handle a stored deposit once more, when nobody waits for the answer. What was decided stays."""
        await self._handle(callback_id, body, asyncio.get_running_loop().time(), known=True)

    async def _handle(self, callback_id: int, body: bytes, until: float, *, known: bool) -> Reply:
        try:
            notice = read_deposit(body)
        except MalformedCallback as error:
            await self._close(callback_id, CallbackResult.MALFORMED)
            if not known:
                alert("malformed-deposit", callback_id=callback_id, cause=str(error))
            return MALFORMED
        order = await self._store.own_order(notice)
        if _comes_back(notice, order):
            await self._came_back(callback_id, notice, order, known=known)
            return KEEP
        waiting = until - asyncio.get_running_loop().time()
        deposit = await self._store.take(
            callback_id,
            notice,
            operation_date=notice.operation_date or operation_date(self._clock()),
            tenant=self._tenant,
            cause=_refused_at_once(notice),
            waiting=waiting,
            moment=self._clock(),
        )
        failpoint("stp.deposit.after-commit")
        if (deposit.amount, deposit.account) != (notice.amount, notice.account or ""):
            await self._close(callback_id, CallbackResult.CONFLICT)
            alert("deposit-key-repeated", payment_id=deposit.payment_id, callback_id=callback_id)
            return Reply(DepositAnswer.SEND_BACK, REPEATED_KEY)
        if deposit.answer is None:
            if not deposit.fresh:
                await self._store.wait(deposit.payment_id, waiting)
            await self._begin(deposit, notice, max(0.05, until - asyncio.get_running_loop().time()))
        refused = deposit.decision is DepositDecision.REFUSED and deposit.tenant_id is None
        await self._close(callback_id, CallbackResult.REFUSED if refused else CallbackResult.TAKEN)
        return await self._decided(deposit, until)

    async def _begin(self, deposit: Deposit, notice: DepositNotice, within: float) -> None:
        """Start the payee's process; what the engine does not take within these seconds the sweep gives it later."""
        try:
            async with asyncio.timeout(within):
                await self._engine.publish(arrived(deposit, notice))
            failpoint("stp.deposit.after-publish")
        except (Unavailable, TimeoutError) as error:
            log.warning("deposit.left-to-sweep", payment_id=deposit.payment_id, cause=type(error).__name__)

    async def _decided(self, deposit: Deposit, until: float) -> Reply:
        """Wait for the process's decision as long as STP's patience allows, then keep the money."""
        loop, pause = asyncio.get_running_loop(), 0.02
        while deposit.answer is None and (left := until - loop.time()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.2)
            deposit = await self._store.find(deposit.payment_id) or deposit
        if deposit.answer is None:
            deposit = await self._store.answer(deposit.payment_id)
        return KEEP if deposit.answer is DepositAnswer.KEEP else Reply(DepositAnswer.SEND_BACK, deposit.cause)

    async def _came_back(self, callback_id: int, notice: DepositNotice, order: OwnOrder | None, *, known: bool) -> None:
        """An order's own money is back: not a deposit of anybody's, but what its status callback says too."""
        if order is None or order.amount != notice.amount:
            result = CallbackResult.UNKNOWN_ORDER if order is None else CallbackResult.CONFLICT
            await self._close(callback_id, result)
            if not known:
                alert("return-not-ours" if order is None else "return-amount-differs", callback_id=callback_id)
            return
        observed = await self._orders.observe_incoming(order.payment_id, callback_id, notice, self._clock())
        failpoint("stp.deposit.after-return")
        report(observed, f"tipoPago {notice.payment_type}", unknown_status=False, source="deposit")
        if observed.moved and not observed.conflict:
            try:
                await self._callbacks.tell(observed.order)
            except Unavailable as error:
                log.warning("return.left-to-sweep", payment_id=order.payment_id, cause=str(error))

    async def _close(self, callback_id: int, result: CallbackResult) -> None:
        await self._orders.close_callback(callback_id, result, self._clock())

    async def sweep(self) -> None:
        """Finish what broke off: posts that were kept and not handled, deposits that no process has begun."""
        before = self._clock() - LEFT_ALONE
        for callback_id, body in await self._store.unhandled(before):
            await self._finish(callback_id, body)
        unclaimed = await self._store.unclaimed(before)
        _waiting.set(len(unclaimed))
        for deposit, body in unclaimed:
            await self._engine.publish(arrived(deposit, read_deposit(body)))

    async def _finish(self, callback_id: int, body: bytes) -> None:
        try:
            reply = await self._handle(callback_id, body, asyncio.get_running_loop().time(), known=False)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 (one post that we cannot handle must not hold up the rest)
            alert("deposit-not-handled", callback_id=callback_id, cause=type(error).__name__)
            await self._close(callback_id, CallbackResult.FAILED)
            return
        if reply.answer is DepositAnswer.SEND_BACK:
            # STP left before it could be told; whether it keeps the money without an answer, nobody documents.
            alert("deposit-refusal-untold", callback_id=callback_id, cause=reply.cause)


class DepositWorker:
    """The three jobs of a deposit's process that concern STP."""

    def __init__(self, store: DepositStore) -> None:
        self._store = store

    @handles(ClaimDeposit)
    async def claim_deposit(self, job: ClaimDeposit) -> DepositClaimed:
        mine = await self._store.claim(job.tenant_id, job.payment_id, job.facts.process_instance_key)
        return DepositClaimed(duplicate=not mine)

    @handles(ConfirmDeposit)
    async def confirm_deposit(self, job: ConfirmDeposit) -> Result:
        deposit = await self._store.credited(job.tenant_id, job.payment_id)
        if deposit.decision is not DepositDecision.CREDITED:
            raise DepositConflict(f"deposit {job.payment_id} was refused before it was credited")
        return Result()

    @handles(RefuseDeposit)
    async def refuse_deposit(self, job: RefuseDeposit) -> DepositRefused:
        cause = CAUSE_OF.get(job.reason, OTHER)
        if job.reason is Reason.ACCOUNT_UNKNOWN and job.payee.id_type is IdentifierType.MSISDN:
            cause = UNKNOWN_MOBILE
        deposit = await self._store.refused(job.tenant_id, job.payment_id, cause, job.reason)
        if deposit.decision is not DepositDecision.REFUSED:
            raise DepositConflict(f"deposit {job.payment_id} was credited before it was refused")
        return DepositRefused(
            cause=cause if deposit.cause is None else deposit.cause, give_back=deposit.answer is DepositAnswer.KEEP
        )


class DepositConflict(RuntimeError):
    """A deposit is decided, and its process brings the other decision: a defect, and an operator's."""


def _comes_back(notice: DepositNotice, order: OwnOrder | None) -> bool:
    """Whether this is money that we sent.

    A payment over STP from one customer of the hub to another comes in under its own key too, and is a deposit; a
    return may come without its type, but never to the account that the order went to.
    """
    if notice.payment_type is not None:
        return notice.payment_type in MONEY_BACK
    return order is not None and notice.account != order.payee_account


def _refused_at_once(notice: DepositNotice) -> int | None:
    """The cause for which no account could take this."""
    if notice.account is None:
        return INCOMPLETE
    return WRONG_KIND if notice.kind is None else None


def arrived(deposit: Deposit, notice: DepositNotice) -> DepositArrived:
    """The message that starts the process of a deposit: between whom, how much, and STP's own words for it."""
    if deposit.tenant_id is None or notice.kind is None:
        raise LookupError(f"deposit {deposit.payment_id} is nobody's")
    return DepositArrived(
        payment_id=deposit.payment_id,
        tenant_id=deposit.tenant_id,
        amount=deposit.amount,
        currency="MXN",
        payer=_payer(notice),
        payee=_payee(notice, notice.kind, deposit.identifier),
        concept=notice.concept,
        reference_number=notice.reference,
        sender_institution=notice.sender_institution,
        deposit_tracking_key=notice.key,
        operation_date=deposit.operation_date,
    )


def parties(body: bytes, identifier: str) -> tuple[Party | None, Party | None]:
    """Payer and payee of a deposit as STP posted it; `identifier`: the account's number as its tenant writes it."""
    notice = read_deposit(body)
    return _payer(notice), None if notice.kind is None else _payee(notice, notice.kind, identifier)


def _payee(notice: DepositNotice, kind: AccountKind, identifier: str) -> Party:
    return Party(id_type=_ID_TYPES[kind], identifier=identifier, name=notice.payee_name)


def _payer(notice: DepositNotice) -> Party | None:
    if notice.payer_account is None:
        return None
    id_type = IdentifierType.ACCOUNT_ID if notice.payer_kind is None else _ID_TYPES[notice.payer_kind]
    tax_id = notice.payer_tax_id if notice.payer_tax_id != "ND" else None
    return Party(id_type=id_type, identifier=notice.payer_account, name=notice.payer_name, tax_id=tax_id)
