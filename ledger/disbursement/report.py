"""What a merchant is told about a transfer: every credit, its commission, changes and cancellations (L56).

A settled transfer has one report, whose lines sum to the transfer to the cent; when the money comes back after all
(L38) a correction says the same with the signs turned round, so that a merchant's reports always sum to what it was
paid. The JSON is kept as it is sent and never made again. A line's commission is what was booked with it, not what the
credit carries today (L7, L17).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from pydantic_core import to_json

from hub.money import Money
from hub.statements import Statements
from ledger.disbursement.model import TransferStatus, TransferUnknown, UpdateType


class ReportKind(StrEnum):
    """What a report tells."""

    SETTLEMENT = "SETTLEMENT"
    """The store was paid."""

    CORRECTION = "CORRECTION"
    """The money came back; the credits are paid with a later transfer."""


class Section(StrEnum):
    """Where a line is added up."""

    CONTRIBUTIONS = "contributions"
    CHANGES = "changes"
    """The two lines of a credit whose amount or commission was changed (L17)."""
    CANCELLATIONS = "cancellations"
    ADJUSTMENTS = "adjustments"


class DoesNotAddUp(Exception):
    """The lines of a transfer do not sum to it: a defect, and no report is made."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a credit's amount and commission were and became, in minor units."""

    amount_before: int
    commission_before: int | None
    amount: int
    commission: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """One balance update of a transfer. Amounts in minor units; those of a cancellation are negative."""

    sequence: int
    type: UpdateType
    credit: str | None
    amount: int
    commission: int
    net: int
    at: datetime
    reason: str | None = None
    change: Change | None = None

    @property
    def section(self) -> Section:
        if self.change is not None:
            return Section.CHANGES
        return {
            UpdateType.CONTRIBUTION: Section.CONTRIBUTIONS,
            UpdateType.CREDIT_CANCELLATION: Section.CANCELLATIONS,
        }.get(self.type, Section.ADJUSTMENTS)

    def reversed(self) -> Line:
        return replace(self, amount=-self.amount, commission=-self.commission, net=-self.net)


@dataclass(frozen=True, slots=True)
class Paid:
    """A transfer that was settled once, and whose it is. `amount` in minor units."""

    transfer: str
    merchant: str
    merchant_name: str
    merchant_tax_id: str
    store: str
    store_name: str
    amount: int
    currency: str
    trigger: str
    clabe: str
    created_at: datetime
    settled_at: datetime
    returned_at: datetime | None
    """When the money came back, if it did: by the provider where it said so."""
    return_reason: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it is kept."""

    number: int
    """Grows with time."""
    transfer: str
    kind: ReportKind
    merchant: str
    partner: str | None
    """The subject of the tokens that may read it."""
    body: str
    """The JSON exactly as it is sent."""
    made_at: datetime

    @property
    def content(self) -> dict[str, Any]:
        """The same, read."""
        found: dict[str, Any] = json.loads(self.body)
        return found


_PAID: Final = (
    "SELECT t.id, t.amount, t.currency, t.status, t.trigger, t.clabe, t.created_at, t.settled_at, "
    "coalesce(t.reason_detail, t.reason) AS return_reason, t.store_id, s.name AS store_name, m.id AS merchant_id, "
    "m.name AS merchant_name, m.tax_id, "
    "EXISTS (SELECT FROM disbursement.balance_update d "
    "WHERE d.transfer_id = t.id AND d.type = 'DISBURSEMENT') AS paid, "
    "(SELECT x.effective_at FROM disbursement.balance_update o JOIN ledger.txn x ON x.id = o.txn_id "
    "WHERE o.transfer_id = t.id AND o.type = 'DISBURSEMENT_OVERRIDE') AS returned_at "
    "FROM disbursement.bank_transfer t "
    "JOIN disbursement.store s ON s.tenant_id = t.tenant_id AND s.id = t.store_id "
    "JOIN disbursement.merchant m ON m.tenant_id = s.tenant_id AND m.id = s.merchant_id "
    "WHERE t.tenant_id = %(tenant)s AND t.id = %(transfer)s"
)
# The commission is what the update's own postings moved to or from commission income.
_LINES: Final = (
    "SELECT u.seq, u.type, u.credit_id, u.effect, u.reason, u.created_at, k.commission, c.id AS change_id, "
    "c.amount_before, c.commission_before, c.amount, c.commission AS commission_after "
    "FROM disbursement.bank_transfer_item i JOIN disbursement.balance_update u ON u.id = i.update_id "
    "CROSS JOIN LATERAL (SELECT coalesce(sum(CASE a.kind WHEN 'commission-income' THEN p.amount END), 0) "
    "- coalesce(sum(CASE b.kind WHEN 'commission-income' THEN p.amount END), 0) AS commission "
    "FROM ledger.posting p JOIN ledger.account a ON a.id = p.cr_account JOIN ledger.account b ON b.id = p.dr_account "
    "WHERE p.txn_id = u.txn_id) k "
    "LEFT JOIN disbursement.credit_change c ON c.tenant_id = u.tenant_id AND c.credit_id = u.credit_id "
    "AND c.operation = substring(u.operation FROM '^change:(.*):(?:cancellation|contribution)$') "
    "WHERE i.transfer_id = %(transfer)s ORDER BY u.seq"
)
# A report comes with its delivery when the merchant has an address; whoever makes it a second time changes nothing.
_KEEP: Final = (
    "WITH made AS (INSERT INTO disbursement.report "
    "(tenant_id, transfer_id, kind, merchant_id, amount, lines_total, body) "
    "VALUES (%(tenant)s, %(transfer)s, %(kind)s, %(merchant)s, %(amount)s, %(lines_total)s, %(body)s) "
    "ON CONFLICT (transfer_id, kind) DO NOTHING RETURNING number, tenant_id, merchant_id) "
    "INSERT INTO disbursement.report_delivery (report_number, tenant_id, merchant_id) SELECT made.* FROM made "
    "CROSS JOIN LATERAL (SELECT a.url FROM disbursement.report_address a WHERE a.tenant_id = made.tenant_id "
    "AND a.merchant_id = made.merchant_id ORDER BY a.id DESC LIMIT 1) a WHERE a.url IS NOT NULL"
)
_FIND: Final = (
    "SELECT r.number, r.transfer_id, r.kind, r.merchant_id, m.partner, r.body, r.made_at FROM disbursement.report r "
    "JOIN disbursement.merchant m ON m.tenant_id = r.tenant_id AND m.id = r.merchant_id "
    "WHERE r.tenant_id = %(tenant)s AND r.transfer_id = %(transfer)s ORDER BY r.number"
)


class Reports:
    """The reports of all tenants' transfers. Every method raises `hub.errors.Unavailable`; repeating one is safe."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def make(self, tenant: str, payment_id: str) -> Sequence[Report]:
        """All reports of a transfer, oldest first, made now as far as they are due; none while it was never settled.

        Raises `TransferUnknown`, and `DoesNotAddUp`, after which nothing was kept.
        """
        values = {"tenant": tenant, "transfer": payment_id}
        found = await self._statements.named_rows(_PAID, values)
        if not found:
            raise TransferUnknown(payment_id)
        if found[0].paid:
            paid = _paid(found[0])
            lines = [_line(row) for row in await self._statements.named_rows(_LINES, values)]
            await self._keep(values, paid, lines, ReportKind.SETTLEMENT)
            if paid.returned_at is not None:
                await self._keep(values, paid, [line.reversed() for line in lines], ReportKind.CORRECTION)
        return await self.find(tenant, payment_id)

    async def find(self, tenant: str, payment_id: str) -> Sequence[Report]:
        """The reports of a transfer that were made, oldest first."""
        rows = await self._statements.named_rows(_FIND, {"tenant": tenant, "transfer": payment_id})
        return [
            Report(
                row.number, row.transfer_id, ReportKind(row.kind), row.merchant_id, row.partner, row.body, row.made_at
            )
            for row in rows
        ]

    async def _keep(self, values: Mapping[str, Any], paid: Paid, lines: Sequence[Line], kind: ReportKind) -> None:
        body = to_json(content_of(paid, lines, kind)).decode()
        kept = {"kind": kind, "merchant": paid.merchant, "body": body, "lines_total": sum(line.net for line in lines)}
        amount = paid.amount if kind is ReportKind.SETTLEMENT else -paid.amount
        await self._statements.rows(_KEEP, {**values, **kept, "amount": amount})


def content_of(paid: Paid, lines: Sequence[Line], kind: ReportKind) -> Mapping[str, Any]:
    """A report's content: amounts as decimal strings, instants in UTC. `lines` of a correction are reversed already.

    Raises `DoesNotAddUp` unless each line's net is its amount less its commission, and all nets sum to the transfer.
    """
    amount = paid.amount if kind is ReportKind.SETTLEMENT else -paid.amount
    for line in lines:
        if line.amount - line.commission != line.net:
            raise DoesNotAddUp(f"line {line.sequence} of transfer {paid.transfer}")
    if not lines or sum(line.net for line in lines) != amount:
        raise DoesNotAddUp(f"transfer {paid.transfer}")
    correction = kind is ReportKind.CORRECTION

    def text(minor: int) -> str:
        return Money(minor, paid.currency).decimal()

    return {
        "type": f"disbursement.{kind.value.lower()}",
        "transferId": paid.transfer,
        "merchant": {"id": paid.merchant, "name": paid.merchant_name, "taxId": paid.merchant_tax_id},
        "store": {"id": paid.store, "name": paid.store_name},
        "accountEndsWith": paid.clabe[-4:],
        "trigger": paid.trigger,
        "createdAt": _instant(paid.created_at),
        "settledAt": _instant(paid.settled_at),
        "returnedAt": _instant(paid.returned_at) if correction and paid.returned_at else None,
        "returnReason": paid.return_reason if correction else None,
        "currency": paid.currency,
        "amount": text(amount),
        "lines": [_line_content(line, paid.currency) for line in lines],
        "totals": {
            **{
                section.value: _sums([line for line in lines if line.section is section], paid.currency)
                for section in Section
            },
            "all": _sums(lines, paid.currency),
        },
    }


def _line_content(line: Line, currency: str) -> Mapping[str, Any]:
    def text(minor: int | None) -> str | None:
        return None if minor is None else Money(minor, currency).decimal()

    change = line.change
    return {
        "sequence": line.sequence,
        "section": line.section.value,
        "type": line.type.value,
        "creditId": line.credit,
        "amount": text(line.amount),
        "commission": text(line.commission),
        "net": text(line.net),
        "at": _instant(line.at),
        "reason": line.reason,
        "change": None
        if change is None
        else {
            "amountBefore": text(change.amount_before),
            "commissionBefore": text(change.commission_before),
            "amount": text(change.amount),
            "commission": text(change.commission),
        },
    }


def _sums(lines: Sequence[Line], currency: str) -> Mapping[str, Any]:
    sums = {
        "amount": sum(line.amount for line in lines),
        "commission": sum(line.commission for line in lines),
        "net": sum(line.net for line in lines),
    }
    return {"lines": len(lines), **{name: Money(minor, currency).decimal() for name, minor in sums.items()}}


def _instant(at: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _paid(row: Any) -> Paid:
    returned = row.returned_at if row.status == TransferStatus.REJECTED else None
    return Paid(
        transfer=row.id,
        merchant=row.merchant_id,
        merchant_name=row.merchant_name,
        merchant_tax_id=row.tax_id,
        store=row.store_id,
        store_name=row.store_name,
        amount=row.amount,
        currency=row.currency,
        trigger=row.trigger,
        clabe=row.clabe,
        created_at=row.created_at,
        settled_at=row.settled_at,
        returned_at=returned,
        return_reason=row.return_reason if returned else None,
    )


def _line(row: Any) -> Line:
    commission = int(row.commission)
    return Line(
        sequence=row.seq,
        type=UpdateType(row.type),
        credit=row.credit_id,
        amount=row.effect + commission,
        commission=commission,
        net=row.effect,
        at=row.created_at,
        reason=row.reason,
        change=None
        if row.change_id is None
        else Change(row.amount_before, row.commission_before, row.amount, row.commission_after),
    )
