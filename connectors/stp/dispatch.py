"""Claim, send, record; and look before anything is repeated. This is where an order is kept from being paid twice.

find the order's row, or commit it       nothing was ever sent without a row
certainly not at STP                     send the stored bytes
perhaps at STP                           ask STP: no date, the date of sending, the next one
    found                                adopt it, if amount and account are ours
    not found, and it cannot be          send the same bytes again, if the attempt before is certainly over and the
    paid twice                           operation date is the same: STP refuses the key a second time within a date
    otherwise                            it stays unknown; time, a callback or an operator will tell
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Final

from prometheus_client import Counter

from connectors.stp.calendar import next_banking_day, operation_date, rollover_after
from connectors.stp.client import Stp
from connectors.stp.model import OrderKind, Sending, SendOutcome, StpConfigurationError, TrackingKeyCollision
from connectors.stp.orders import Observed, OrderStore, StoredOrder
from connectors.stp.signature import Signer
from connectors.stp.wire import Answer, FoundOrder, NoAnswer, NotFound, Sender
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.telemetry import logger
from hub.transfer import TenantId

Clock = Callable[[], datetime]

_ALERT_HELP: Final = "Things that a person must look at."
alerts = Counter("payhub_stp_alerts", _ALERT_HELP, ("kind",))

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """How one tenant's orders are made: its company, account and key at STP."""

    sender: Sender
    signer: Signer
    tracking_prefix: str = "PH"
    unsigned: tuple[tuple[str, str], ...] = ()
    """Fields that are sent and not signed, by STP's names."""


class Profiles:
    """The profile of each tenant; `everyone` serves the tenants that have none of their own."""

    def __init__(self, by_tenant: dict[TenantId, Profile] | None = None, everyone: Profile | None = None) -> None:
        self._by_tenant = by_tenant or {}
        self._everyone = everyone

    @property
    def by_tenant(self) -> Mapping[TenantId, Profile]:
        """Those of the tenants that have one of their own."""
        return self._by_tenant

    @property
    def everyone(self) -> Profile | None:
        """The one of all other tenants."""
        return self._everyone

    def of(self, tenant: TenantId) -> Profile:
        """Raises `StpConfigurationError` for a tenant that has no company at STP."""
        profile = self._by_tenant.get(tenant, self._everyone)
        if profile is None:
            raise StpConfigurationError(f"tenant {tenant} has no company at STP; set one up, then retry")
        return profile


class Look(Enum):
    """What came of asking STP for an order."""

    FOUND = auto()
    NOT_FOUND = auto()
    """On every date on which it can be."""
    NO_ANSWER = auto()


@dataclass(frozen=True, slots=True)
class Rules:
    """When an order may be sent again."""

    resend: bool
    in_flight_at_most: timedelta
    """After this an attempt is over, whoever made it."""
    rollover_guard: timedelta
    look_at_most: timedelta = timedelta(seconds=15)
    """How long looking may take in all: job time-out, less sending."""
    send_within: timedelta = timedelta(seconds=5)
    """How old a claim may be when its order is sent. Somebody else may have taken over from a worker that stood still
    for longer, and the operation date may have changed."""


def now() -> datetime:
    return datetime.now(UTC)


class Dispatch:
    """Sends orders and asks for them, keeping the order store true at each step."""

    def __init__(self, orders: OrderStore, stp: Stp, profiles: Profiles, rules: Rules, clock: Clock = now) -> None:
        self._orders = orders
        self._stp = stp
        self._profiles = profiles
        self._rules = rules
        self._clock = clock

    async def send(self, order: StoredOrder) -> StoredOrder:
        """Send a claimed order, write down how it went, and ask once where the answer alone must not be believed.

        Raises `Unavailable` when STP certainly has no order and time may help, `StpConfigurationError` when a person
        must. In every other case the order says where it stands.
        """
        order = await self._send(order)
        if order.sending not in {Sending.REFUSED, Sending.REGISTERED}:
            return order
        order, seen = await self.look(order)
        if seen is Look.NOT_FOUND and order.sending is Sending.REFUSED:
            return await self._orders.confirm_rejection(order)
        return order

    async def settle(self, order: StoredOrder) -> StoredOrder:
        """Find out where an earlier attempt left the order; send the same bytes again where that is safe.

        Raises as `send` does.
        """
        if order.sending is Sending.NOT_SENT:
            claimed = await self._claim_again(order)
            return await self.send(claimed) if claimed else await self._again(order)
        if order.sending in {Sending.ACCEPTED, Sending.REJECTED}:
            return order
        order, seen = await self.look(order)
        return await self.not_found(order) if seen is Look.NOT_FOUND else order

    async def not_found(self, order: StoredOrder) -> StoredOrder:
        """STP shows no such order: believe a refusal that waited for this, or send again where that is safe."""
        if order.sending is Sending.REFUSED:
            return await self._orders.confirm_rejection(order)
        if not self.may_send_again(order):
            return order
        claimed = await self._claim_again(order)
        # Looking a third time has no place in this job's time; the next inquiry does it.
        return await self._send(claimed) if claimed else await self._again(order)

    async def _send(self, order: StoredOrder) -> StoredOrder:
        answer = await self._attempt(order)
        failpoint("stp.send-order.before-record")
        order = await self._orders.record(order, answer, self._clock())
        failpoint("stp.send-order.after-record")
        tell = log.debug if answer.outcome is SendOutcome.ACCEPTED else log.warning
        tell("order.sent", payment_id=order.payment_id, attempt=order.sends, outcome=answer.outcome,
             error_id=answer.error_id)  # fmt: skip
        _raise_if_not_sent(answer, order)
        return order

    async def _attempt(self, order: StoredOrder) -> Answer:
        moment = self._clock()
        late = moment - order.claimed_at > self._rules.send_within
        if late or (order.sends > 1 and operation_date(moment) != operation_date(order.claimed_at)):
            return Answer(SendOutcome.NOT_SENT, detail="too late for this claim; it is claimed anew")
        match order.kind:
            case OrderKind.ORDER:
                return await self._stp.register(order.body)
            case OrderKind.RETURN:
                return await self._stp.give_back(order.body)

    async def _claim_again(self, order: StoredOrder) -> StoredOrder | None:
        """One more attempt; nothing when somebody else claimed it, or a callback showed that STP has the order."""
        moment = self._clock()
        claimed = await self._orders.claim_again(order, operation_date(moment), moment)
        failpoint("stp.send-order.after-claim-again")
        return claimed

    async def _again(self, order: StoredOrder) -> StoredOrder:
        return await self._orders.find(order.payment_id) or order

    def may_send_again(self, order: StoredOrder) -> bool:
        """Whether the same bytes may be sent although an earlier attempt may have arrived and STP shows no order."""
        moment = self._clock()
        return (
            self._rules.resend
            and order.sending.in_doubt
            and order.operation_date == operation_date(moment)
            and moment - order.claimed_at >= self._rules.in_flight_at_most
            and rollover_after(moment) - moment > self._rules.rollover_guard
        )

    async def look(self, order: StoredOrder, *, told: bool = False) -> tuple[StoredOrder, Look]:
        """Ask STP for the order on each date on which it can be, and adopt what it shows.

        `told`: the process learns the state from the caller and needs no message. Raises `TrackingKeyCollision`.
        """
        signer = self._profiles.of(order.tenant_id).signer
        try:
            async with asyncio.timeout(self._rules.look_at_most.total_seconds()):
                for day in self._dates(order):
                    answer = await self._stp.inquire(order.company, order.tracking_key, day, signer)
                    if isinstance(answer, NoAnswer):
                        log.warning("inquiry.unanswered", payment_id=order.payment_id, cause=answer.detail)
                        return order, Look.NO_ANSWER
                    if not isinstance(answer, NotFound):
                        return await self._adopt(order, answer, told=told), Look.FOUND
        except TimeoutError:
            log.warning("inquiry.unanswered", payment_id=order.payment_id, cause="too slow")
            return order, Look.NO_ANSWER
        log.info("inquiry.not-found", payment_id=order.payment_id)
        return order, Look.NOT_FOUND

    def _dates(self, order: StoredOrder) -> list[date | None]:
        """The current date (asked without naming it), that of sending and the next; a future one cannot be asked."""
        current = operation_date(self._clock())
        following = next_banking_day(order.operation_date)
        return [None, *(day for day in (order.operation_date, following) if day < current)]

    async def _adopt(self, order: StoredOrder, found: FoundOrder, *, told: bool) -> StoredOrder:
        if not _ours(order, found):
            alert("tracking-key-collision", payment_id=order.payment_id, stp_id=found.stp_id)
            raise TrackingKeyCollision(
                f"STP's order {found.stp_id} has the tracking key of payment {order.payment_id}, "
                "and another amount or account"
            )
        order, observed = await self._orders.observe_inquiry(order, found, self._clock(), told=told)
        report(observed, found.word, unknown_status=found.state is None, source="inquiry")
        return order


def report(observed: Observed, word: str, *, unknown_status: bool, source: str) -> None:
    """Tell people what they must look at in an observation (L32, R7)."""
    order = observed.order
    word = word[:20] if word.isalpha() else "?"  # what is no plain word may hold anything; the inbox has it whole
    if unknown_status:
        alert("unknown-status", payment_id=order.payment_id, word=word, source=source)
    if observed.conflict:
        alert("contradiction", payment_id=order.payment_id, state=order.state, word=word, source=source)
    if observed.other_id:
        alert("second-order-id", payment_id=order.payment_id, stp_id=order.stp_id, source=source)


def alert(kind: str, **facts: object) -> None:
    """Something that a person must look at: counted for the alarm, logged for the search. No personal data."""
    alerts.labels(kind).inc()
    log.error("stp.alert", kind=kind, **facts)


def _ours(order: StoredOrder, found: FoundOrder) -> bool:
    if found.key != order.tracking_key:
        return False
    if found.amount is not None and found.amount != Decimal(order.amount).scaleb(-2):
        return False
    account = found.beneficiary_account
    unknown = account is None or not account.isdigit() or not order.payee_account
    return unknown or account == order.payee_account


def _raise_if_not_sent(answer: Answer, order: StoredOrder) -> None:
    if answer.outcome is SendOutcome.CONFIG_ERROR:
        alert("configuration", payment_id=order.payment_id, error_id=answer.error_id)
        raise StpConfigurationError(answer.detail)
    if order.sending is Sending.NOT_SENT:
        raise Unavailable(answer.detail)
