"""The book's rows to take away: postings of a span of time, or one account's statement, as CSV or Parquet.

Rows are read in pages by their numbers and handed on as they come: memory is bounded however long the span is, and no
transaction stays open while a slow reader takes its time. What was booked is never changed, so pages read one after the
other agree. Whoever exports up to now gets what was committed by now; a span that ended a minute ago is complete.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hub.statements import Statements, open_statements
from ledger.model import AccountRef, UnknownAccount, asset_of
from ledger.reports import Span, decimal

PAGE: Final = 2000
"""Rows read at once."""

Row = Mapping[str, Any]
# Where the span lies among the numbers, from the summaries by time; rows are then read by number.
_BOUNDS: Final = (
    "SELECT min(t.id), max(t.id) FROM ledger.book k JOIN ledger.txn t ON t.book_id = k.id "
    "AND t.booked_at >= %(from)s AND t.booked_at < %(to)s WHERE k.code = %(book)s"
)
_POSTINGS: Final = (
    "SELECT t.id, p.leg, t.idem_key, t.kind, t.ext_ref, t.reason_code, t.booked_at, t.effective_at, "
    "d.kind || CASE d.owner_id WHEN '' THEN '' ELSE ':' || d.owner_id END, "
    "c.kind || CASE c.owner_id WHEN '' THEN '' ELSE ':' || c.owner_id END, "
    "p.asset, p.amount, p.dr_seq, p.dr_after, p.cr_seq, p.cr_after "
    "FROM ledger.txn t JOIN ledger.posting p ON p.txn_id = t.id "
    "JOIN ledger.account d ON d.id = p.dr_account JOIN ledger.account c ON c.id = p.cr_account "
    "WHERE t.book_id = (SELECT k.id FROM ledger.book k WHERE k.code = %(book)s) "
    "AND t.id >= %(after)s AND (t.id, p.leg) > (%(after)s, %(leg)s) AND t.id <= %(last)s "
    "AND t.booked_at >= %(from)s AND t.booked_at < %(to)s ORDER BY t.id, p.leg LIMIT %(limit)s"
)
_EDGES: Final = (
    "SELECT a.id, "
    "coalesce((SELECT s.whole_to FROM ledger.snapshot s WHERE s.account_id = a.id AND s.as_of <= %(from)s "
    "ORDER BY s.as_of DESC LIMIT 1), 0), "
    "coalesce((SELECT s.last_seq FROM ledger.snapshot s WHERE s.account_id = a.id AND s.as_of >= %(to)s "
    "ORDER BY s.as_of LIMIT 1), b.ver) "
    "FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id AND a.kind = %(kind)s AND a.owner_id = %(owner)s "
    "AND a.asset = %(asset)s AND a.shard = 0 JOIN ledger.balance b ON b.account_id = a.id WHERE k.code = %(book)s"
)
_ENTRIES: Final = (
    "SELECT e.seq, e.side, t.id, t.idem_key, t.kind, t.ext_ref, t.reason_code, t.booked_at, t.effective_at, "
    "c.kind || CASE c.owner_id WHEN '' THEN '' ELSE ':' || c.owner_id END, e.asset, e.amount, e.balance_after "
    "FROM (SELECT * FROM ledger.entry e WHERE e.account_id = %(account)s AND e.seq > %(after)s AND e.seq <= %(last)s "
    "ORDER BY e.seq LIMIT %(limit)s) e "
    "JOIN ledger.txn t ON t.id = e.txn_id JOIN ledger.account c ON c.id = e.contra_id ORDER BY e.seq"
)

POSTING_COLUMNS: Final = (
    *("transaction", "leg", "operation", "kind", "reference", "reason", "booked_at", "effective_at"),
    *("debit_account", "credit_account", "currency", "amount", "debit_sequence", "debit_balance"),
    *("credit_sequence", "credit_balance"),
)
ENTRY_COLUMNS: Final = (
    *("sequence", "side", "transaction", "operation", "kind", "reference", "reason", "booked_at", "effective_at"),
    *("contra_account", "currency", "amount", "balance"),
)
_MONEY: Final = frozenset({"amount", "balance", "debit_balance", "credit_balance"})
_NUMBERS: Final = frozenset({"transaction", "leg", "sequence", "debit_sequence", "credit_sequence"})
_INSTANTS: Final = frozenset({"booked_at", "effective_at"})


class Exporter:
    """Reads rows for export, a page at a time. Raises `Unavailable` when the database is away."""

    def __init__(self, statements: Statements, page: int = PAGE) -> None:
        self._statements = statements
        self._page = page

    async def has_book(self, book: str) -> bool:
        """Whether there is such a book."""
        return bool(await self._statements.rows("SELECT 1 FROM ledger.book WHERE code = %(book)s", {"book": book}))

    async def postings(self, book: str, span: Span) -> AsyncIterator[Sequence[Row]]:
        """Pages of postings booked within a span, oldest first; the first page always comes."""
        values: dict[str, Any] = {"book": book, "from": span.since, "to": span.until, "limit": self._page}
        ((first, last),) = await self._statements.rows(_BOUNDS, values)
        if first is None:
            yield []
            return
        values |= {"after": first - 1, "leg": 0, "last": last}
        while True:
            rows = [_row(POSTING_COLUMNS, found) for found in await self._statements.rows(_POSTINGS, values)]
            yield rows
            if len(rows) < self._page:
                return
            values |= {"after": rows[-1]["transaction"], "leg": rows[-1]["leg"]}

    async def statement(
        self, book: str, account: AccountRef, currency: str, span: Span
    ) -> AsyncIterator[Sequence[Row]]:
        """Pages of an account's entries booked within a span, oldest first; the first page always comes."""
        values = {"book": book, "kind": account.kind, "owner": account.owner, "asset": asset_of(currency)}
        edges = await self._statements.rows(_EDGES, {**values, "from": span.since, "to": span.until})
        if not edges:
            raise UnknownAccount(str(account))
        ((number, after, last),) = edges
        while True:
            page = {"account": number, "after": after, "last": last, "limit": self._page}
            rows = [_row(ENTRY_COLUMNS, found) for found in await self._statements.rows(_ENTRIES, page)]
            yield [row for row in rows if span.since <= row["booked_at"] < span.until]
            if len(rows) < self._page:
                return
            after = rows[-1]["sequence"]


def _row(columns: Sequence[str], found: Sequence[Any]) -> dict[str, Any]:
    row = dict(zip(columns, found, strict=True))
    row["asset"] = row["currency"]
    row["currency"] = row["asset"].partition("/")[0]
    return row


# --- CSV ----------------------------------------------------------------------------------------------------------

_FORMULA: Final = frozenset("=+-@\t\r\n＝＋－＠")


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe goes before a first character that begins one."""
    return f"'{text}" if text[:1] in _FORMULA and text else text


def _cell(row: Row, column: str) -> str:
    value = row[column]
    if value is None:
        return ""
    if column in _MONEY:
        return decimal(value, row["asset"])
    if column in _INSTANTS:
        return str(value.isoformat())
    return str(value) if column in _NUMBERS else harmless(str(value))


async def csv_lines(pages: AsyncIterator[Sequence[Row]], columns: Sequence[str]) -> AsyncIterator[bytes]:
    """The pages as CSV (RFC 4180, UTF-8) with a line of names; one piece per page."""
    first = True
    async for page in pages:
        written = io.StringIO()
        writer = csv.writer(written)
        if first:
            writer.writerow(columns)
            first = False
        writer.writerows([_cell(row, column) for column in columns] for row in page)
        yield written.getvalue().encode()


class CannotExport(Exception):
    """What was asked for does not exist; the text says what."""


async def export_to_file(
    url: str,
    book: str,
    within: tuple[datetime, datetime],
    path: Path,
    *,
    form: str = "csv",
    account: str | None = None,
    currency: str | None = None,
) -> int:
    """Write a book's postings, or one account's entries, to `path`; naive instants are in UTC. Tells how many rows.

    Raises `CannotExport`, `OSError`, and `Unavailable` when the database is away.
    """
    span = Span(*(at if at.tzinfo is not None else at.replace(tzinfo=UTC) for at in within))
    if form not in {"csv", "parquet"}:
        raise CannotExport(f"there is no format {form!r}; there are csv and parquet")
    if span.since >= span.until:
        raise CannotExport("--to must come after --from")
    if (account is None) != (currency is None):
        raise CannotExport("an account and its currency belong together")
    async with open_statements(url, 1, statement_timeout="10min") as statements:
        exporter = Exporter(statements, page=10_000)
        if not await exporter.has_book(book):
            raise CannotExport(f"there is no book {book!r}")
        if account is None or currency is None:
            return await write_file(exporter.postings(book, span), POSTING_COLUMNS, form, path)
        try:
            pages = exporter.statement(book, AccountRef.parse(account), currency, span)
            return await write_file(pages, ENTRY_COLUMNS, form, path)
        except (ValueError, UnknownAccount):
            raise CannotExport(f"the book has no account {account} in {currency}") from None


# --- Files --------------------------------------------------------------------------------------------------------


async def write_file(pages: AsyncIterator[Sequence[Row]], columns: Sequence[str], form: str, path: Path) -> int:
    """Write pages to `path` and tell how many rows; the file appears when it is complete. Raises `OSError`."""
    beside = path.with_name(f".{path.name}.partial")
    count = 0

    async def counted() -> AsyncIterator[Sequence[Row]]:
        nonlocal count
        async for page in pages:
            count += len(page)
            yield page

    try:
        await (_write_csv if form == "csv" else _write_parquet)(counted(), columns, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return count


async def _write_csv(pages: AsyncIterator[Sequence[Row]], columns: Sequence[str], path: Path) -> None:
    with path.open("wb") as file:
        async for piece in csv_lines(pages, columns):
            file.write(piece)


async def _write_parquet(pages: AsyncIterator[Sequence[Row]], columns: Sequence[str], path: Path) -> None:
    """Amounts are whole minor units, with the number of minor digits in `scale`: no float, nothing rounded."""
    import pyarrow as pa  # noqa: PLC0415 -- large, and needed here only
    import pyarrow.parquet as pq  # noqa: PLC0415

    def kind(column: str) -> Any:
        if column in _MONEY or column in _NUMBERS:
            return pa.int64()
        return pa.timestamp("us", tz="UTC") if column in _INSTANTS else pa.string()

    names = {column: f"{column}_minor" if column in _MONEY else column for column in columns}
    schema = pa.schema([*((names[column], kind(column)) for column in columns), ("scale", pa.int8())])
    with pq.ParquetWriter(path, schema) as writer:
        async for page in pages:
            rows = [
                {names[column]: row[column] for column in columns} | {"scale": int(row["asset"].partition("/")[2])}
                for row in page
            ]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
