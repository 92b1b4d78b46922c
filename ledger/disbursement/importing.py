"""Stores and credits from a CSV file: every fault named with its line, column and remedy, and all of it or nothing.

The file is UTF-8 (with or without a byte order mark), separated by commas, with the names of the columns in its first
line. It is read and checked whole before the first row is kept, in one transaction; the same file again changes
nothing. Stores come in as if they were added one by one: unvalidated, their accounts unauthenticated. Credits are
priced from what was kept before the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb
from pydantic_core import to_jsonable_python

from hub.statements import Statements
from ledger.disbursement import fields
from ledger.disbursement.commission import commission
from ledger.disbursement.credits import NewCredit, as_told, fitting, option_for
from ledger.disbursement.edits import Connection
from ledger.disbursement.merchants import BankAccount, Store
from ledger.disbursement.model import DisbursementRefused, Frequency
from ledger.disbursement.options import PaymentOption, matching, options_of_stores
from ledger.disbursement.pricing import ZONE, Figures

MOST_ROWS: Final = 100_000
MOST_BYTES: Final = 64_000_000
_FAULTS_TOLD: Final = 1_000
_AT_ONCE: Final = 1_000

Progress = Callable[[int, int], None]
"""Told how many rows are kept, and of how many."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong with a cell, and how to mend it. Lines count from 1, the first one being the header."""

    line: int
    column: str
    remedy: str

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}" if self.column else f"line {self.line}"
        return f"{place}: {self.remedy}"


class NotImported(Exception):
    """The file was not imported, nothing of it. `faults`: the first thousand; `more`: how many others there are."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = sorted(faults)[:_FAULTS_TOLD]
        self.more = len(faults) - len(self.faults)
        more = f"\n... and {self.more} more" if self.more else ""
        super().__init__("\n".join(str(fault) for fault in self.faults) + more)


@dataclass(frozen=True, slots=True)
class Imported:
    """How many rows were new, and how many were there already, just like that."""

    added: int
    same: int


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Column:
    read: Callable[[str], Any]
    required: bool = True


class _Faults:
    """Faults while they are gathered."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, line: int, column: str, remedy: str) -> None:
        self.found.append(Fault(line, column, remedy))

    def stop(self) -> None:
        """Raises `NotImported` when there are any."""
        if self.found:
            raise NotImported(self.found)


def _frequency(text: str) -> Frequency:
    try:
        return Frequency(text)
    except ValueError:
        raise ValueError(f"one of {', '.join(Frequency)}") from None


def _yes_or_no(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("true or false")
    return text == "true"


def _payments(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= 360 and len(text) <= 3):
        raise ValueError("a number of payments from 1 to 360")
    return int(text)


STORE_COLUMNS: Final = {
    "store_id": _Column(fields.object_id),
    "merchant_id": _Column(fields.object_id),
    "name": _Column(fields.name),
    "frequency": _Column(_frequency),
    "minimum_amount": _Column(fields.amount, required=False),
    "manual_confirmation": _Column(_yes_or_no, required=False),
    "clabe": _Column(fields.clabe),
    "holder_name": _Column(fields.name),
    "tax_id": _Column(fields.tax_id),
}
CREDIT_COLUMNS: Final = {
    "credit_id": _Column(fields.object_id),
    "store_id": _Column(fields.object_id),
    "amount": _Column(fields.positive_amount),
    "signed_at": _Column(fields.instant),
    "option_id": _Column(fields.object_id, required=False),
    "payments": _Column(_payments, required=False),
}

_MERCHANTS: Final = "SELECT id FROM disbursement.merchant WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)"
_STORES: Final = (
    "SELECT s.id, s.merchant_id, s.name, s.frequency, s.minimum_amount, s.manual_confirmation, a.clabe, a.holder_name, "
    "a.tax_id FROM disbursement.store s LEFT JOIN LATERAL (SELECT b.* FROM disbursement.bank_account b "
    "WHERE b.tenant_id = s.tenant_id AND b.store_id = s.id ORDER BY b.id DESC LIMIT 1) a ON true "
    "WHERE s.tenant_id = %(tenant)s AND s.id = ANY(%(ids)s)"
)
_KEEP_STORES: Final = (
    "WITH given AS (SELECT * FROM jsonb_to_recordset(%(rows)s) AS x(id text, merchant_id text, name text, "
    "frequency text, minimum_amount bigint, manual_confirmation boolean, clabe text, holder_name text, tax_id text, "
    "store jsonb, account jsonb)), "
    "kept AS (INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, minimum_amount, "
    "manual_confirmation) SELECT %(tenant)s, id, merchant_id, name, frequency, minimum_amount, manual_confirmation "
    "FROM given ON CONFLICT DO NOTHING RETURNING id), "
    "accounts AS (INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id) "
    "SELECT %(tenant)s, g.id, g.clabe, g.holder_name, g.tax_id FROM given g JOIN kept USING (id)), "
    "edits AS (INSERT INTO disbursement.edit (tenant_id, object, object_id, action, after, actor) "
    "SELECT %(tenant)s, e.object, g.id, 'ADDED', e.after, %(actor)s FROM given g JOIN kept USING (id) "
    "CROSS JOIN LATERAL (VALUES ('STORE', g.store), ('BANK_ACCOUNT', g.account)) AS e(object, after)) "
    "SELECT count(*) FROM kept"
)
_CHAINS: Final = (
    "SELECT s.id, m.validated AND s.validated FROM disbursement.store s "
    "JOIN disbursement.merchant m ON m.tenant_id = s.tenant_id AND m.id = s.merchant_id "
    "WHERE s.tenant_id = %(tenant)s AND s.id = ANY(%(ids)s)"
)
_SIGNED: Final = (
    "SELECT c.id, e.after FROM disbursement.credit c LEFT JOIN disbursement.edit e ON e.tenant_id = c.tenant_id "
    "AND e.object = 'CREDIT' AND e.object_id = c.id AND e.action = 'ADDED' "
    "WHERE c.tenant_id = %(tenant)s AND c.id = ANY(%(ids)s)"
)
_KEEP_CREDITS: Final = (
    "WITH given AS (SELECT * FROM jsonb_to_recordset(%(rows)s) AS x(id text, store_id text, option_id text, "
    "amount bigint, commission bigint, signed_at timestamptz, told jsonb, inputs jsonb, result jsonb)), "
    "kept AS (INSERT INTO disbursement.credit (tenant_id, id, store_id, option_id, amount, commission, signed_at) "
    "SELECT %(tenant)s, id, store_id, option_id, amount, commission, signed_at FROM given "
    "ON CONFLICT DO NOTHING RETURNING id), "
    "edits AS (INSERT INTO disbursement.edit (tenant_id, object, object_id, action, after, actor) "
    "SELECT %(tenant)s, 'CREDIT', g.id, 'ADDED', g.told, %(actor)s FROM given g JOIN kept USING (id)), "
    "traces AS (INSERT INTO disbursement.commission_trace "
    "(tenant_id, kind, credit_id, option_id, inputs, result, actor) "
    "SELECT %(tenant)s, 'SIGNATURE', g.id, g.option_id, g.inputs, g.result, %(actor)s FROM given g "
    "JOIN kept USING (id)) SELECT count(*) FROM kept"
)


class Importer:
    """Brings files in. Raises `NotImported`, `OSError`, and `hub.errors.Unavailable`; then nothing was changed."""

    def __init__(self, statements: Statements, zone: ZoneInfo = ZONE) -> None:
        self._statements = statements
        self._zone = zone

    async def stores(self, tenant: str, content: bytes, *, actor: str, progress: Progress | None = None) -> Imported:
        """Stores with their bank accounts, of merchants that are there (L51)."""
        faults = _Faults()
        given = dict(_distinct(_read(content, STORE_COLUMNS, faults), "store_id", faults))
        faults.stop()
        async with self._statements.connection() as connection, connection.transaction():
            await self._merchants_there(connection, tenant, given, faults)
            known = {row[0]: row[1:] for row in await _rows(connection, _STORES, tenant, given)}
            new = []
            for store, (line, row) in given.items():
                if store not in known:
                    new.append(row)
                elif known[store] != _comparable(row):
                    faults.add(line, "store_id", "a store with this id is there and is different; edit that one")
            faults.stop()
            rows = [_as_store(row) for row in new]
            await _kept(connection, _KEEP_STORES, {"tenant": tenant, "actor": actor}, rows, progress)
        return Imported(len(new), len(given) - len(new))

    async def credits(self, tenant: str, content: bytes, *, actor: str, progress: Progress | None = None) -> Imported:
        """Credits that were signed, each with the commission of its option at its signature (L45)."""
        faults = _Faults()
        given = dict(_distinct(_read(content, CREDIT_COLUMNS, faults), "credit_id", faults))
        faults.stop()
        async with self._statements.connection() as connection, connection.transaction():
            known = {row[0]: row[1] for row in await _rows(connection, _SIGNED, tenant, given)}
            pricing = await _Pricing.read(connection, tenant, given.values(), self._zone)
            rows, same = [], 0
            for credit, (line, row) in given.items():
                new = NewCredit(
                    credit, row["store_id"], row["amount"], row["option_id"], row["payments"], row["signed_at"]
                )
                if credit not in known:
                    rows += pricing.priced(new, line, faults)
                elif known[credit] == as_told(new):
                    same += 1
                else:
                    faults.add(line, "credit_id", "a credit with this id is there and is different; use another id")
            faults.stop()
            await _kept(connection, _KEEP_CREDITS, {"tenant": tenant, "actor": actor}, rows, progress)
        return Imported(len(rows), same)

    async def _merchants_there(
        self, connection: Connection, tenant: str, given: Mapping[str, tuple[int, Mapping[str, Any]]], faults: _Faults
    ) -> None:
        wanted = {row["merchant_id"] for _, row in given.values()}
        there = {row[0] for row in await _rows(connection, _MERCHANTS, tenant, wanted)}
        for line, row in given.values():
            if row["merchant_id"] not in there:
                faults.add(line, "merchant_id", "there is no such merchant; add it first")


class _Pricing:
    """What credits need to be priced, read once for a whole file."""

    def __init__(
        self, chains: Mapping[str, bool], options: Mapping[str, list[PaymentOption]], figures: Figures
    ) -> None:
        self._chains = chains
        self._options = options
        self._figures = figures
        self._now = datetime.now(UTC)

    @classmethod
    async def read(cls, connection: Connection, tenant: str, given: Any, zone: ZoneInfo) -> _Pricing:
        stores = {row["store_id"] for _, row in given}
        chains = {row[0]: row[1] for row in await _rows(connection, _CHAINS, tenant, stores)}
        options: dict[str, list[PaymentOption]] = {}
        for option in await options_of_stores(connection, tenant, stores):
            options.setdefault(option.store_id, []).append(option)
        return cls(chains, options, await Figures.read(connection, tenant, zone))

    def priced(self, new: NewCredit, line: int, faults: _Faults) -> list[dict[str, Any]]:
        """The credit's row, or none when there is a fault."""
        chain = self._chains.get(new.store_id)
        if not chain:
            missing = (
                "there is no such store; import it first" if chain is None else "validate the store and its merchant"
            )
            faults.add(line, "store_id", missing)
            return []
        at = new.signed_at or self._now
        if at > self._now:
            faults.add(line, "signed_at", "the signature must not lie in the future")
            return []
        try:
            option = self._option(new, at)
        except DisbursementRefused as refused:
            faults.add(line, "option_id" if new.option_id else "amount", refused.detail)
            return []
        inputs = self._figures.inputs(option, new.amount, at)
        result = commission(inputs)
        kept = {"id": new.id, "store_id": new.store_id, "option_id": option.id, "amount": new.amount}
        return [
            {
                **kept,
                "commission": result.amount,
                "signed_at": at,
                "told": as_told(new),
                "inputs": inputs.as_json(),
                "result": result.as_json(),
            }
        ]

    def _option(self, new: NewCredit, at: datetime) -> PaymentOption:
        options = self._options.get(new.store_id, [])
        if new.option_id is None:
            return option_for(new, matching(options, new.amount, at))
        named = next((one for one in options if one.id == new.option_id), None)
        if named is None:
            raise DisbursementRefused("the store has no such option")
        return fitting(new, named, at)


def read_file(path: Path) -> bytes:
    """A file's content. Raises `OSError`, `NotImported` for one that is too large."""
    if path.stat().st_size > MOST_BYTES:
        raise NotImported([Fault(1, "", f"a file has at most {MOST_BYTES // 1_000_000} MB; split it")])
    return path.read_bytes()


def _read(content: bytes, columns: Mapping[str, _Column], faults: _Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows whose cells are all in order, each with its line."""
    for row in _rows_of(_text(content), columns, faults):
        found, sound = {}, True
        for name, column in columns.items():
            cell = row.cells.get(name, "")
            try:
                if cell or column.required:
                    found[name] = column.read(cell) if cell else _missing()
                else:
                    found[name] = None
            except ValueError as error:
                sound = False
                faults.add(row.line, name, str(error))
        if sound:
            yield row.line, found


def _missing() -> Any:
    raise ValueError("this cell must not be empty")


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NotImported([Fault(line, "", "not UTF-8; save the file as CSV UTF-8")]) from None


def _rows_of(text: str, columns: Mapping[str, _Column], faults: _Faults) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = _numbered(reader)
    _, header = next(lines, (1, []))
    _check_header(header, columns)
    for count, (line, cells) in enumerate((each for each in lines if any(each[1])), 1):
        if count > MOST_ROWS:
            raise NotImported([Fault(line, "", f"a file has at most {MOST_ROWS} rows; split it")])
        if len(cells) != len(header):
            faults.add(line, "", f"{len(cells)} cells where the header has {len(header)}; quote cells that hold commas")
        else:
            yield _Row(line, dict(zip(header, cells, strict=True)))


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line it begins on."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise NotImported([Fault(line, "", f"not CSV: {error}; look for a quotation mark")]) from None
        yield line, cells


def _check_header(header: Sequence[str], columns: Mapping[str, _Column]) -> None:
    faults = _Faults()
    for name in header:
        if name not in columns:
            faults.add(1, name[:64], f"there is no such column; there are {', '.join(columns)}, with commas between")
        elif header.count(name) > 1:
            faults.add(1, name, "this column stands twice")
    for name, column in columns.items():
        if column.required and name not in header:
            faults.add(1, name, "this column is missing")
    faults.stop()


def _distinct(
    rows: Iterator[tuple[int, dict[str, Any]]], key: str, faults: _Faults
) -> Iterator[tuple[str, tuple[int, dict[str, Any]]]]:
    seen: dict[str, int] = {}
    for line, row in rows:
        first = seen.setdefault(row[key], line)
        if first != line:
            faults.add(line, key, f"this id is on line {first} too; ids are unique")
        else:
            yield row[key], (line, row)


async def _rows(connection: Connection, statement: LiteralString, tenant: str, ids: Any) -> list[Any]:
    return await (await connection.execute(statement, {"tenant": tenant, "ids": list(ids)})).fetchall()


async def _kept(
    connection: Connection,
    statement: LiteralString,
    shared: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    progress: Progress | None,
) -> None:
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        values = {**shared, "rows": Jsonb(to_jsonable_python(some))}
        ((count,),) = await (await connection.execute(statement, values)).fetchall()
        if count != len(some):
            raise NotImported([Fault(1, "", "somebody added one of these ids meanwhile; import the file again")])
        if progress is not None:
            progress(start + len(some), len(rows))


def _comparable(row: Mapping[str, Any]) -> tuple[Any, ...]:
    kept = _as_store(row)
    names = (
        "merchant_id",
        "name",
        "frequency",
        "minimum_amount",
        "manual_confirmation",
        "clabe",
        "holder_name",
        "tax_id",
    )
    return tuple(kept[name] for name in names)


def _as_store(row: Mapping[str, Any]) -> dict[str, Any]:
    store = Store(
        row["store_id"],
        row["merchant_id"],
        row["name"],
        row["frequency"],
        row["minimum_amount"] or 0,
        bool(row["manual_confirmation"]),
    )
    account = BankAccount(row["clabe"], row["holder_name"], row["tax_id"])
    told = {"clabe": account.clabe, "holder_name": account.holder_name, "tax_id": account.tax_id}
    return {**asdict(store), **told, "store": asdict(store), "account": told}
