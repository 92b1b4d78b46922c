"""Tells merchants their reports: signed, repeated with back-off for three days, every attempt kept (L56).

A report that is to be told is a row beside it; `hub.webhook` says how it is told. It goes to the address that the
merchant has now, so that a mended address takes effect on what is still due.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from prometheus_client import Counter

from connectors.disbursement.settings import DisbursementSettings
from hub.addresses import Address, BadAddress, allowed
from hub.statements import Statements
from hub.telemetry import logger
from hub.webhook import Delivery, DeliveryState, Pace, Teller, Told, checked_secret, open_teller
from ledger.disbursement.refusals import MerchantUnknown
from ledger.disbursement.report import ReportKind

_attempts = Counter("payhub_disbursement_notices", "Attempts to tell a merchant a report.", ("result",))

log = logger(__name__)

_NEWEST: Final = (
    "SELECT a.url, a.secret, a.allow_list, a.actor, a.created_at FROM disbursement.report_address a "
    "WHERE a.tenant_id = r.tenant_id AND a.merchant_id = r.merchant_id ORDER BY a.id DESC LIMIT 1"
)
_LEASE: Final = (
    "WITH next AS MATERIALIZED (SELECT report_number FROM disbursement.report_delivery "  # noqa: S608
    "WHERE state = 'DUE' AND next_attempt_at <= now() AND NOT tenant_id || '/' || merchant_id = ANY(%(busy)s) "
    "ORDER BY next_attempt_at LIMIT %(count)s FOR UPDATE SKIP LOCKED), "
    "due AS (UPDATE disbursement.report_delivery d SET attempts = attempts + 1, "
    "next_attempt_at = now() + make_interval(secs => %(seconds)s) "
    "FROM next WHERE d.report_number = next.report_number "
    "RETURNING d.report_number, d.tenant_id, d.merchant_id, d.attempts, d.created_at) "
    "SELECT r.report_number AS number, r.tenant_id, r.merchant_id, r.attempts, r.created_at, kept.transfer_id, "
    "kept.kind, kept.body, a.url, a.secret, a.allow_list "
    "FROM due r JOIN disbursement.report kept ON kept.number = r.report_number "
    f"LEFT JOIN LATERAL ({_NEWEST}) a ON true"
)
_TOLD: Final = (
    "WITH attempt AS (INSERT INTO disbursement.report_attempt (report_number, attempt, answer, state) "
    "VALUES (%(number)s, %(attempt)s, %(answer)s, %(state)s) ON CONFLICT DO NOTHING) "
    "UPDATE disbursement.report_delivery SET state = %(state)s, "
    "next_attempt_at = now() + make_interval(secs => %(pause)s), "
    "ended_at = CASE WHEN %(state)s <> 'DUE' THEN now() END WHERE report_number = %(number)s AND state = 'DUE'"
)
_ADDRESS: Final = (
    f"SELECT a.* FROM disbursement.merchant m CROSS JOIN LATERAL (SELECT m.tenant_id, m.id AS merchant_id) r "  # noqa: S608
    f"LEFT JOIN LATERAL ({_NEWEST}) a ON true WHERE m.tenant_id = %(tenant)s AND m.id = %(merchant)s"
)
_SET_ADDRESS: Final = (
    "INSERT INTO disbursement.report_address (tenant_id, merchant_id, url, secret, allow_list, actor) "
    "SELECT m.tenant_id, m.id, %(url)s, %(secret)s, %(allow_list)s, %(actor)s FROM disbursement.merchant m "
    "WHERE m.tenant_id = %(tenant)s AND m.id = %(merchant)s RETURNING created_at"
)
_HOW: Final = (
    "SELECT r.kind, d.state, d.attempts, d.ended_at, t.attempt, t.answer, t.at FROM disbursement.report r "
    "JOIN disbursement.report_delivery d ON d.report_number = r.number "
    "LEFT JOIN disbursement.report_attempt t ON t.report_number = r.number "
    "WHERE r.tenant_id = %(tenant)s AND r.transfer_id = %(transfer)s ORDER BY r.number, t.attempt"
)

Notices: TypeAlias = "Teller[DueReport]"
"""The loop that tells reports. Several processes may run one each."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DueReport(Delivery):
    """A report to tell, leased to us for one attempt."""

    number: int
    transfer: str
    kind: ReportKind
    body: str

    def __repr__(self) -> str:
        return f"DueReport({self.transfer}, {self.kind})"


@dataclass(frozen=True, slots=True)
class ReportAddress:
    """Where a merchant is told its reports; without `url` it is not told."""

    url: str | None
    secret: str | None = field(repr=False)
    """`whsec_` and base64 of 24 to 64 bytes."""
    allow_list: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.url is None) != (self.secret is None):
            raise BadAddress("an address and its secret belong together")
        if self.secret is not None:
            checked_secret(self.secret)
        entries = [Address.parse(entry) for entry in self.allow_list]
        if self.url is not None and not allowed(self.url, entries):
            raise BadAddress("the address is not on the allow-list")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of telling a report once: the HTTP status, or the kind of failure."""

    number: int
    answer: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HowTold:
    """How the telling of one report stands. An attempt that is missing was cut off, and may have arrived."""

    kind: ReportKind
    state: DeliveryState
    attempts: int
    ended_at: datetime | None
    answers: tuple[Attempt, ...]


class NoticeStore:
    """Merchants' addresses and the reports that are to be told. All methods raise `hub.errors.Unavailable`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def set_address(self, tenant: str, merchant: str, address: ReportAddress, *, actor: str) -> None:
        """From now on the merchant is told there; the address before is kept as history. Raises `MerchantUnknown`."""
        values = {"tenant": tenant, "merchant": merchant, "actor": actor, "allow_list": list(address.allow_list)}
        rows = await self._statements.rows(_SET_ADDRESS, {**values, "url": address.url, "secret": address.secret})
        if not rows:
            raise MerchantUnknown(merchant)

    async def address(self, tenant: str, merchant: str) -> ReportAddress:
        """Where the merchant is told now. Raises `MerchantUnknown`."""
        rows = await self._statements.named_rows(_ADDRESS, {"tenant": tenant, "merchant": merchant})
        if not rows:
            raise MerchantUnknown(merchant)
        return ReportAddress(rows[0].url, rows[0].secret, tuple(rows[0].allow_list or ()))

    async def how_told(self, tenant: str, transfer: str) -> Sequence[HowTold]:
        """How the telling of a transfer's reports went; those of a merchant without an address are not there."""
        found: dict[str, tuple[Any, list[Attempt]]] = {}
        for row in await self._statements.named_rows(_HOW, {"tenant": tenant, "transfer": transfer}):
            _, answers = found.setdefault(row.kind, (row, []))
            if row.attempt is not None:
                answers.append(Attempt(row.attempt, row.answer, row.at))
        return [
            HowTold(ReportKind(kind), DeliveryState(row.state), row.attempts, row.ended_at, tuple(answers))
            for kind, (row, answers) in found.items()
        ]

    async def lease(self, count: int, seconds: float, busy: Sequence[str]) -> Sequence[DueReport]:
        """Up to `count` reports whose time has come, none of the `busy` merchants'; ours for so many seconds."""
        rows = await self._statements.named_rows(_LEASE, {"count": count, "seconds": seconds, "busy": list(busy)})
        return [_due(row) for row in rows]

    def body(self, due: DueReport) -> str:
        """The report as it was kept."""
        return due.body

    async def told(self, due: DueReport, result: Told) -> None:
        """Keep what came of an attempt."""
        _attempts.labels(result.answer if result.answer.isdigit() else "failed").inc()
        log.info(
            "notice.attempt",
            payment_id=due.transfer,
            kind=due.kind.value,
            attempt=due.attempt,
            answer=result.answer,
            state=result.state.value,
        )
        values = {"number": due.number, "attempt": due.attempt, "answer": result.answer}
        await self._statements.rows(_TOLD, {**values, "state": result.state.value, "pause": result.pause})


def _due(row: Any) -> DueReport:
    return DueReport(
        message_id=f"{row.transfer_id}-{row.kind.lower()}",
        receiver=f"{row.tenant_id}/{row.merchant_id}",
        url=row.url or "",
        secret=row.secret,
        allow_list=tuple(Address.parse(entry) for entry in row.allow_list or ()),
        attempt=row.attempts,
        created_at=row.created_at,
        number=row.number,
        transfer=row.transfer_id,
        kind=ReportKind(row.kind),
        body=row.body,
    )


@asynccontextmanager
async def open_notices(statements: Statements, settings: DisbursementSettings) -> AsyncIterator[Notices]:
    """The loop with its HTTP client: `notices.run` beside the jobs, `notices.look` when a report was made."""
    pace = Pace(
        at_once=settings.notices_at_once,
        look_every=settings.notice_look_every,
        timeout=settings.notice_timeout,
        days=settings.notice_days,
        first_pause=settings.notice_first_pause,
        internal=settings.notice_internal,
    )
    async with open_teller(NoticeStore(statements), pace) as teller:
        yield teller
