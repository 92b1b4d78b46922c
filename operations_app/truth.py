"""Ledger = scheme book = engine = views: what each of the four says of the payments of a period, and where they differ.

    engine    the outcome that the payment's process recorded (channel, deposit, disbursement)
    scheme    our record of the order at STP, which `payhub stp reconcile` compares with STP's own lists
    ledger    what was booked and what is still held
    view      the document in Elasticsearch

A payment without a final outcome is under way: it differs only where money moved that nobody may have moved yet. What
ended less than a moment ago may not have reached the view; it is under way too. Nothing is mended here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

from hub.statements import Statements
from ledger.payments import NOTHING, Booked, booked
from ledger.settlements import Settlements
from operations_app.views import EVERYBODY, TRANSFERS, Views

PAGE: Final = 500
VIEW_LAGS: Final = timedelta(seconds=30)
"""How long after its end a payment may be missing from the view, or be shown as it was."""

_LOOK_AGAIN_AFTER: Final = 2.0
"""Seconds."""

_SETTLED: Final = "SETTLED"
_UNKNOWN: Final = "UNKNOWN"

_PAYMENTS: Final = """
    SELECT p.id::text, p.tenant_id, 'payment', p.amount, p.currency, p.outcome, coalesce(p.completed_at, p.accepted_at),
           o.state, o.sending, o.amount
      FROM channel.payment p LEFT JOIN stp.stp_order o ON o.payment_id = p.id::text AND o.kind = 'order'
     WHERE p.accepted_at >= %(since)s AND p.accepted_at < %(until)s AND p.id::text > %(after)s
     ORDER BY p.id::text LIMIT %(limit)s
    """
_DEPOSITS: Final = """
    SELECT d.payment_id, coalesce(d.tenant_id, ''), 'deposit', d.amount, 'MXN',
           CASE d.decision WHEN 'CREDITED' THEN 'SETTLED' WHEN 'REFUSED' THEN 'REJECTED' END,
           coalesce(d.decided_at, d.received_at), NULL, NULL, NULL
      FROM stp.deposit d
     WHERE d.received_at >= %(since)s AND d.received_at < %(until)s AND d.payment_id > %(after)s
     ORDER BY d.payment_id LIMIT %(limit)s
    """
_DISBURSEMENTS: Final = """
    SELECT t.id, t.tenant_id, 'disbursement', t.amount, t.currency,
           CASE t.status WHEN 'APPLIED' THEN 'SETTLED' WHEN 'CANCELLED' THEN 'CANCELLED' WHEN 'REJECTED' THEN 'RETURNED'
           END, coalesce(t.settled_at, t.created_at), NULL, NULL, NULL
      FROM disbursement.bank_transfer t
     WHERE t.created_at >= %(since)s AND t.created_at < %(until)s AND t.id > %(after)s
     ORDER BY t.id LIMIT %(limit)s
    """
_ORDERS: Final = """
    SELECT payment_id, state, sending, amount FROM stp.stp_order
     WHERE payment_id = ANY(%(ids)s) AND kind = 'order'
    """
_ORDERS_ALONE: Final = """
    SELECT o.payment_id, o.tenant_id FROM stp.stp_order o
     WHERE o.kind = 'order' AND o.purpose = 'payment' AND o.created_at >= %(since)s AND o.created_at < %(until)s
       AND NOT EXISTS (SELECT FROM channel.payment p WHERE p.id::text = o.payment_id)
     ORDER BY 1
    """
_KNOWN: Final = """
    SELECT payment_id FROM stp.stp_order WHERE payment_id = ANY(%(ids)s)
    UNION SELECT payment_id FROM stp.deposit WHERE payment_id = ANY(%(ids)s)
    UNION SELECT id::text FROM channel.payment WHERE id::text = ANY(%(ids)s)
    """
_NOT_GONE: Final = frozenset({"NOT_SENT", "REFUSED", "REJECTED"})
"""An order of which STP certainly has nothing."""


@dataclass(frozen=True, slots=True)
class Order:
    """What we know of the order at the scheme."""

    state: str
    sending: str
    amount: int


@dataclass(frozen=True, slots=True)
class Facts:
    """One payment as each of the four has it."""

    payment_id: str
    tenant_id: str
    kind: str
    """`payment`, `deposit` or `disbursement`."""
    amount: int
    currency: str
    outcome: str | None
    since: datetime
    """When it got its outcome, else when it was accepted."""
    order: Order | None = None
    booked: Booked | None = None
    """None when the ledger is not ours, and so not asked."""
    view: Mapping[str, Any] | None = None
    viewed: bool = True
    """Whether the views were asked."""

    @property
    def is_final(self) -> bool:
        return self.outcome is not None and self.outcome != _UNKNOWN


@dataclass(frozen=True, slots=True)
class Difference:
    """Two that do not agree about one payment."""

    payment_id: str
    tenant_id: str
    between: str
    """Whose words differ, as in `engine/ledger`."""
    what: str

    def __str__(self) -> str:
        return f"{self.payment_id}  {self.tenant_id}  {self.between}: {self.what}"


@dataclass
class Report:
    """What a comparison came to."""

    since: datetime
    until: datetime
    compared: Sequence[str]
    """Who was asked."""
    payments: dict[str, int] = field(default_factory=dict)
    """How many there are, by kind."""
    under_way: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        return {
            "agree": self.agree,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "compared": list(self.compared),
            "payments": self.payments,
            "underWay": self.under_way,
            "differences": [asdict(one) for one in self.differences],
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {kind}s" for kind, number in self.payments.items()) or "nothing"
        lines = [f"{' = '.join(self.compared)}: {counts}, {len(self.under_way)} under way"]
        lines += [f"under way  {one}" for one in self.under_way[:20]]
        lines += [f"DIFFERS    {one}" for one in self.differences]
        return "\n".join([*lines, "They agree." if self.agree else f"{len(self.differences)} differences."])


def compare(facts: Facts, moment: datetime) -> Iterator[Difference]:
    """Where two of the four contradict each other about one payment."""
    for between, what in (*_scheme(facts), *_ledger(facts), *_view(facts, moment)):
        yield Difference(facts.payment_id, facts.tenant_id, between, what)


def _scheme(facts: Facts) -> Iterator[tuple[str, str]]:
    order = facts.order
    if order is None:
        if facts.kind == "disbursement" and facts.outcome == _SETTLED:
            yield "engine/scheme", "settled without an order"
        return
    if order.amount != facts.amount:
        yield "engine/scheme", f"amount {facts.amount}, order {order.amount}"
    if not facts.is_final:
        return
    settled = order.state == _SETTLED and order.sending != "REJECTED"
    if (facts.outcome == _SETTLED) != settled:
        yield "engine/scheme", f"outcome {facts.outcome}, order {order.state} ({order.sending})"
    elif order.state == "PENDING" and order.sending not in _NOT_GONE:
        yield "engine/scheme", f"outcome {facts.outcome}, order still open ({order.sending})"


def _ledger(facts: Facts) -> Iterator[tuple[str, str]]:
    book = facts.booked
    if book is None:
        return
    # A disbursement that came back is booked the other way round, not reversed: only the settlement account tells.
    moved = book.settled if facts.kind == "disbursement" else book.moved
    if not facts.is_final:
        # A process books and then records, or is told and then books: until it has ended both are in order.
        if moved not in {0, facts.amount}:
            yield "engine/ledger", f"under way, booked {moved} of {facts.amount}"
        return
    expected = facts.amount if facts.outcome == _SETTLED else 0
    if moved != expected:
        yield "engine/ledger", f"outcome {facts.outcome}, booked {moved}, should be {expected}"
    if book.held:
        yield "engine/ledger", f"outcome {facts.outcome}, still held {book.held}"
    over_scheme = {"deposit": -expected}.get(facts.kind, expected if facts.order is not None else 0)
    if book.settled != over_scheme:
        yield "scheme/ledger", f"over the settlement account {book.settled}, should be {over_scheme}"


def _view(facts: Facts, moment: datetime) -> Iterator[tuple[str, str]]:
    if not facts.viewed or not facts.is_final or moment - facts.since < VIEW_LAGS:
        return
    view = facts.view
    if view is None:
        if not (facts.kind == "deposit" and facts.outcome != _SETTLED):  # those refused in the answer had no process
            yield "engine/view", "not in the view"
        return
    if view.get("amount") != facts.amount:
        yield "engine/view", f"amount {facts.amount}, view {view.get('amount')}"
    if facts.kind == "payment" and view.get("outcome") != facts.outcome:
        yield "engine/view", f"outcome {facts.outcome}, view {view.get('outcome')}"
    if view.get("tenantId") != facts.tenant_id:
        yield "engine/view", f"tenant {facts.tenant_id}, view {view.get('tenantId')}"


class Truth:
    """Asks all four. Raises `Unavailable` when one of them is away.

    `ledger`: the book, None when it is not ours; `views`: None where there are none.
    """

    def __init__(self, database: Statements, ledger: Statements | None, views: Views | None) -> None:
        self._database = database
        self._ledger = ledger
        self._views = views

    async def check(self, since: datetime, until: datetime) -> Report:
        """Compare the payments that were accepted from `since` until before `until`.

        The four cannot be asked at one moment while payments go on: only what differs twice in the same way differs.
        """
        report = await self._once(since, until)
        if report.differences:
            await asyncio.sleep(_LOOK_AGAIN_AFTER)
            before, report = report, await self._once(since, until)
            report.differences = [one for one in report.differences if one in before.differences]
        return report

    async def _once(self, since: datetime, until: datetime) -> Report:
        asked = ["engine", "scheme", *(["ledger"] if self._ledger else []), *(["views"] if self._views else [])]
        report, counted = Report(since, until, asked), Counter[str]()
        async for page in self._pages(since, until):
            facts = await self._completed(page)
            moment = datetime.now(UTC)
            for one in facts:
                counted[one.kind] += 1
                found = list(compare(one, moment))
                report.differences += found
                fresh = self._views is not None and moment - one.since < VIEW_LAGS
                if not found and (not one.is_final or fresh):
                    report.under_way.append(one.payment_id)
        report.payments = dict(counted)
        report.differences += await self._alone(since, until)
        return report

    async def _pages(self, since: datetime, until: datetime) -> AsyncIterator[list[Facts]]:
        sources: list[tuple[Statements, LiteralString]] = [(self._database, _PAYMENTS), (self._database, _DEPOSITS)]
        if self._ledger is not None:
            sources.append((self._ledger, _DISBURSEMENTS))
        for statements, statement in sources:
            after = ""
            while True:
                given = {"since": since, "until": until, "after": after, "limit": PAGE}
                rows = await statements.rows(statement, given)
                if rows:
                    yield [_facts(row) for row in rows]
                    after = rows[-1][0]
                if len(rows) < PAGE:
                    break

    async def _completed(self, page: Sequence[Facts]) -> list[Facts]:
        """The same with what the scheme, the ledger and the view have of them."""
        ids = [one.payment_id for one in page]
        orders = await self._database.rows(_ORDERS, {"ids": ids}) if page[0].kind == "disbursement" else ()
        by_id = {row[0]: Order(*row[1:]) for row in orders}
        books = await self._books(page)
        shown = await self._shown(ids)
        return [
            replace(
                one,
                order=by_id.get(one.payment_id, one.order),
                booked=None if self._ledger is None else books.get(one.payment_id, NOTHING),
                view=shown.get(one.payment_id),
                viewed=self._views is not None,
            )
            for one in page
        ]

    async def _books(self, page: Sequence[Facts]) -> Mapping[str, Booked]:
        if self._ledger is None:
            return {}
        found: dict[str, Booked] = {}
        for tenant in {one.tenant_id for one in page}:
            references = [one.payment_id for one in page if one.tenant_id == tenant]
            found |= await booked(self._ledger, tenant, references)
        return found

    async def _shown(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        if self._views is None:
            return {}
        fields = ["paymentId", "tenantId", "amount", "outcome", "state"]
        page = await self._views.search(
            TRANSFERS,
            EVERYBODY,
            filters=[{"terms": {"paymentId": list(ids)}}],
            sort=[{"paymentId": "asc"}],
            size=PAGE,
            fields=fields,
        )
        return {hit.body["paymentId"]: hit.body for hit in page.hits}

    async def _alone(self, since: datetime, until: datetime) -> list[Difference]:
        """Orders and bookings that belong to no payment."""
        orders = await self._database.rows(_ORDERS_ALONE, {"since": since, "until": until})
        found = [Difference(id_, tenant, "scheme/engine", "an order without a payment") for id_, tenant in orders]
        if self._ledger is None:
            return found
        settlements = Settlements(self._ledger)
        for book in await settlements.books():
            moved = await settlements.moved(book, since, until)
            rows = await self._database.rows(_KNOWN, {"ids": list(moved)}) if moved else ()
            known = {id_ for (id_,) in rows}
            found += [
                Difference(reference, book, "ledger/engine", f"{amount} booked over the settlement account for nobody")
                for reference, amount in moved.items()
                if reference not in known and amount
            ]
        return found


def _facts(row: Sequence[Any]) -> Facts:
    payment_id, tenant_id, kind, amount, currency, outcome, since, state, sending, ordered = row
    order = Order(state, sending, ordered) if state is not None else None
    return Facts(payment_id, tenant_id, kind, amount, currency, outcome, since, order)
