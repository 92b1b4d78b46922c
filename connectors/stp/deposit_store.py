"""Deposits that STP told us of: PostgreSQL, schema `stp`. One row per deposit, however often STP repeats it.

The row decides three things once each, whoever comes first: which process instance has the deposit (`claim`), whether
the account took the money (`credited`, `refused`), and what STP is answered (`answer`). Every method is one statement
and raises `Unavailable` when the database is away.
"""
# ruff: noqa: S608 (values are bound; only our own constants are put together)

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, LiteralString

from connectors.stp.accounts import AccountKind
from connectors.stp.wire import DepositNotice
from hub.statements import Statements
from hub.transfer import PaymentId, Reason, TenantId

_DEPOSITS: Final = uuid.UUID("6d9f3c1e-3f0a-5b7e-9d0c-2a54f1c9b7aa")

_COLUMNS: Final = (
    "payment_id, tenant_id, operation_date, amount, account, identifier, process_instance_key, decision, cause, answer"
)
# Whose the account is: the longest prefix of its number that a tenant has. Nobody's goes back at once.
_TAKE: Final = f"""
    WITH route AS (
        SELECT tenant_id, identifier FROM stp.receiver
         WHERE kind = %(kind)s AND starts_with(%(account)s, prefix) ORDER BY length(prefix) DESC LIMIT 1
    ), owner AS (
        SELECT coalesce((SELECT tenant_id FROM route), CAST(%(tenant)s AS text)) AS tenant_id,
               coalesce((SELECT identifier FROM route), %(account)s) AS identifier
    ), verdict AS (
        SELECT o.*, CASE WHEN CAST(%(cause)s AS integer) IS NOT NULL THEN CAST(%(cause)s AS integer)
                         WHEN o.tenant_id IS NULL THEN %(nobodys)s END AS cause FROM owner o
    ), taken AS (
        INSERT INTO stp.deposit (payment_id, callback_id, tenant_id, sender_institution, tracking_key, operation_date,
                                 stp_id, amount, account, identifier, received_at, waiting_until, decision, decided_at,
                                 cause, answer)
        SELECT %(payment_id)s, %(callback_id)s, v.tenant_id, %(sender)s, %(key)s, %(day)s, CAST(%(stp_id)s AS bigint),
               %(amount)s, %(account)s, v.identifier, %(moment)s,
               clock_timestamp() + make_interval(secs => %(waiting)s),
               CASE WHEN v.cause IS NOT NULL THEN 'REFUSED' END, CASE WHEN v.cause IS NOT NULL THEN %(moment)s END,
               v.cause, CASE WHEN v.cause IS NOT NULL THEN 'devolver' END
          FROM verdict v
        ON CONFLICT (payment_id) DO NOTHING
        RETURNING *
    )
    SELECT {_COLUMNS}, true AS fresh FROM taken
    UNION ALL
    SELECT {_COLUMNS}, false FROM stp.deposit WHERE payment_id = %(payment_id)s
    """
_WAIT: Final = """
    UPDATE stp.deposit
       SET waiting_until = greatest(waiting_until, clock_timestamp() + make_interval(secs => %(waiting)s))
     WHERE payment_id = %(payment_id)s AND answer IS NULL
    """
_FIND: Final = f"SELECT {_COLUMNS}, false AS fresh FROM stp.deposit WHERE payment_id = %(payment_id)s"
_ANSWER: Final = f"""
    UPDATE stp.deposit SET answer = coalesce(answer, 'confirmar') WHERE payment_id = %(payment_id)s
    RETURNING {_COLUMNS}, false AS fresh
    """
_CLAIM: Final = """
    UPDATE stp.deposit
       SET process_instance_key = coalesce(process_instance_key, %(instance)s),
           claimed_at = coalesce(claimed_at, clock_timestamp())
     WHERE payment_id = %(payment_id)s AND tenant_id = %(tenant_id)s
    RETURNING process_instance_key
    """
_CREDITED: Final = f"""
    UPDATE stp.deposit
       SET decision = coalesce(decision, 'CREDITED'), decided_at = coalesce(decided_at, clock_timestamp()),
           answer = coalesce(answer, 'confirmar')
     WHERE payment_id = %(payment_id)s AND tenant_id = %(tenant_id)s
    RETURNING {_COLUMNS}, false AS fresh
    """
_REFUSED: Final = f"""
    UPDATE stp.deposit
       SET decision = coalesce(decision, 'REFUSED'), decided_at = coalesce(decided_at, clock_timestamp()),
           cause = coalesce(cause, %(cause)s), reason = coalesce(reason, %(reason)s),
           answer = coalesce(answer, CASE WHEN waiting_until > clock_timestamp() THEN 'devolver' ELSE 'confirmar' END)
     WHERE payment_id = %(payment_id)s AND tenant_id = %(tenant_id)s
    RETURNING {_COLUMNS}, false AS fresh
    """
_UNCLAIMED: Final = f"""
    SELECT {_COLUMNS}, false AS fresh, (SELECT c.body FROM stp.callback c WHERE c.id = d.callback_id) AS body
      FROM stp.deposit d
     WHERE d.process_instance_key IS NULL AND d.decision IS NULL AND d.received_at < %(before)s
     ORDER BY d.received_at LIMIT %(limit)s
    """
_ORDER: Final = """
    SELECT payment_id, tenant_id, amount, payee_account FROM stp.stp_order
     WHERE kind = 'order' AND tracking_key = ANY (CAST(%(keys)s AS text[]))
     ORDER BY tracking_key = %(first)s DESC LIMIT 1
    """
_BODY: Final = """
    SELECT c.body FROM stp.deposit d JOIN stp.callback c ON c.id = d.callback_id
     WHERE d.payment_id = %(payment_id)s AND d.tenant_id = %(tenant_id)s
    """
_UNHANDLED: Final = """
    SELECT id, body FROM stp.callback WHERE kind = 'deposit' AND result IS NULL AND last_received_at < %(before)s
     ORDER BY received_at LIMIT %(limit)s
    """
_RECEIVER: Final = """
    INSERT INTO stp.receiver (kind, prefix, tenant_id, identifier)
    VALUES (%(kind)s, %(prefix)s, %(tenant_id)s, %(identifier)s)
    ON CONFLICT (kind, prefix) DO UPDATE SET identifier = excluded.identifier
        WHERE receiver.tenant_id = excluded.tenant_id
    RETURNING tenant_id
    """


class DepositDecision(StrEnum):
    """Whether the account took the money."""

    CREDITED = "CREDITED"
    REFUSED = "REFUSED"


class DepositAnswer(StrEnum):
    """What STP is answered; the words are STP's."""

    KEEP = "confirmar"
    SEND_BACK = "devolver"


@dataclass(frozen=True, slots=True)
class Deposit:
    """A deposit as its row has it."""

    payment_id: PaymentId
    tenant_id: TenantId | None
    """Nothing when no tenant has the account."""
    operation_date: date
    amount: int
    """Centavos."""
    account: str
    identifier: str
    """The account's number as its tenant writes it."""
    process_instance_key: int | None
    decision: DepositDecision | None
    cause: int | None
    answer: DepositAnswer | None
    fresh: bool
    """Whether this statement wrote the row."""

    def __repr__(self) -> str:
        return f"Deposit({self.payment_id}, {self.decision}, {self.answer})"


@dataclass(frozen=True, slots=True)
class OwnOrder:
    """An order of ours whose tracking key came in."""

    payment_id: PaymentId
    tenant_id: TenantId
    amount: int
    payee_account: str


@dataclass(frozen=True, slots=True)
class Receiver:
    """Numbers that begin with `prefix` belong to accounts of this tenant."""

    kind: AccountKind
    prefix: str
    tenant_id: TenantId
    identifier: str | None = None
    """How the tenant's book writes the number; nothing where it is the number itself."""


def deposit_id(notice: DepositNotice) -> PaymentId:
    """The deposit's id for ever, from what makes a deposit one: its sender, that one's key for it, and the date.

    Where STP names no operation date, its own id of the deposit takes the date's place.
    """
    day = notice.operation_date.isoformat() if notice.operation_date else f"id {notice.stp_id}"
    return PaymentId(str(uuid.uuid5(_DEPOSITS, f"{notice.sender_institution}\x1f{notice.key}\x1f{day}")))


class DepositStore:
    """The deposits of all tenants, and whose account is whose."""

    def __init__(self, database: Statements) -> None:
        self._database = database

    async def take(
        self,
        callback_id: int,
        notice: DepositNotice,
        *,
        operation_date: date,
        tenant: TenantId | None,
        cause: int | None,
        waiting: float,
        moment: datetime,
    ) -> Deposit:
        """Commit a deposit, or find it as it was committed before.

        `tenant`: whose it is when no prefix says so. `cause`: it goes back at once, with this cause. `waiting`: seconds
        for which STP waits for the answer.
        """
        given = {
            "payment_id": deposit_id(notice),
            "callback_id": callback_id,
            "sender": notice.sender_institution,
            "key": notice.key,
            "day": operation_date,
            "stp_id": notice.stp_id,
            "amount": notice.amount,
            "account": notice.account or "",
            "kind": notice.kind,
            "tenant": tenant,
            "cause": cause,
            "nobodys": NOBODYS,
            "waiting": waiting,
            "moment": moment,
        }
        for _ in range(2):  # the second time sees what a neighbour committed while the first waited for it
            if found := await self._deposits(_TAKE, given):
                return found[0]
        raise LookupError(f"deposit {given['payment_id']} was neither taken nor found")

    async def wait(self, payment_id: PaymentId, waiting: float) -> None:
        """STP waits for its answer again, for so many seconds."""
        await self._database.rows(_WAIT, {"payment_id": payment_id, "waiting": waiting})

    async def find(self, payment_id: PaymentId) -> Deposit | None:
        """A deposit by its id."""
        found = await self._deposits(_FIND, {"payment_id": payment_id})
        return found[0] if found else None

    async def answer(self, payment_id: PaymentId) -> Deposit:
        """Decide what STP is answered, now that waiting is over: to keep it, unless it was refused meanwhile."""
        return await self._one(_ANSWER, {"payment_id": payment_id})

    async def claim(self, tenant_id: TenantId, payment_id: PaymentId, instance: int) -> bool:
        """Make this process instance the one that has the deposit; false when another is."""
        given = {"payment_id": payment_id, "tenant_id": tenant_id, "instance": instance}
        found = await self._database.rows(_CLAIM, given)
        if not found:
            raise LookupError(f"deposit {payment_id} is none of this tenant's")
        return bool(found[0][0] == instance)

    async def credited(self, tenant_id: TenantId, payment_id: PaymentId) -> Deposit:
        """The account has the money. What was decided before stays."""
        return await self._one(_CREDITED, {"payment_id": payment_id, "tenant_id": tenant_id})

    async def refused(self, tenant_id: TenantId, payment_id: PaymentId, cause: int, reason: Reason) -> Deposit:
        """The account does not take it. STP is answered so if it still waits. What was decided before stays."""
        given = {"payment_id": payment_id, "tenant_id": tenant_id, "cause": cause, "reason": reason}
        return await self._one(_REFUSED, given)

    async def own_order(self, notice: DepositNotice) -> OwnOrder | None:
        """The order of ours whose key is on this deposit."""
        keys = [key for key in (notice.key, notice.returned_key) if key is not None]
        found = await self._database.rows(_ORDER, {"keys": keys, "first": notice.key})
        return OwnOrder(*found[0]) if found else None

    async def unclaimed(self, before: datetime, limit: int = 100) -> Sequence[tuple[Deposit, bytes]]:
        """Deposits that no process has begun, with what STP posted."""
        rows = await self._database.named_rows(_UNCLAIMED, {"before": before, "limit": limit})
        return [(_deposit(row), bytes(row.body)) for row in rows]

    async def posted(self, tenant_id: TenantId, payment_id: PaymentId) -> bytes | None:
        """What STP posted of a deposit of this tenant."""
        found = await self._database.rows(_BODY, {"payment_id": payment_id, "tenant_id": tenant_id})
        return bytes(found[0][0]) if found else None

    async def unhandled(self, before: datetime, limit: int = 100) -> Sequence[tuple[int, bytes]]:
        """Posts that were kept and whose handling broke off."""
        found = await self._database.rows(_UNHANDLED, {"before": before, "limit": limit})
        return [(callback_id, bytes(body)) for callback_id, body in found]

    async def put_receivers(self, receivers: Iterable[Receiver]) -> list[Receiver]:
        """Say whose accounts are whose; returns those that another tenant has already, which stay as they were."""
        taken = []
        for one in receivers:
            found = await self._database.rows(
                _RECEIVER,
                {"kind": one.kind, "prefix": one.prefix, "tenant_id": one.tenant_id, "identifier": one.identifier},
            )
            if not found:
                taken.append(one)
        return taken

    async def _one(self, statement: LiteralString, given: dict[str, Any]) -> Deposit:
        found = await self._deposits(statement, given)
        if not found:
            raise LookupError(f"deposit {given['payment_id']} is none of this tenant's")
        return found[0]

    async def _deposits(self, statement: LiteralString, given: dict[str, Any]) -> list[Deposit]:
        return [_deposit(row) for row in await self._database.named_rows(statement, given)]


NOBODYS: Final = 1
"""The cause for an account that nobody here has."""


def _deposit(row: Any) -> Deposit:
    return Deposit(
        payment_id=row.payment_id,
        tenant_id=row.tenant_id,
        operation_date=row.operation_date,
        amount=row.amount,
        account=row.account,
        identifier=row.identifier,
        process_instance_key=row.process_instance_key,
        decision=DepositDecision(row.decision) if row.decision else None,
        cause=row.cause,
        answer=DepositAnswer(row.answer) if row.answer else None,
        fresh=row.fresh,
    )
