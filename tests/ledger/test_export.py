"""The book's rows as files: complete, exact, in bounded memory, and harmless to a spreadsheet."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hub.money import Money
from hub.statements import open_statements
from ledger.export import (
    ENTRY_COLUMNS,
    POSTING_COLUMNS,
    CannotExport,
    Exporter,
    csv_lines,
    export_to_file,
    harmless,
)
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.reports import Span
from ledger.settings import APP_ROLE

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")
ALWAYS = Span(datetime(2020, 1, 1, tzinfo=UTC), datetime(2190, 1, 1, tzinfo=UTC))
FORMULA = '=HYPERLINK("http://x","y")'


@pytest.fixture
async def busy(bank):
    await bank.open({"id": "ana", "opening_balance": "100"}, {"id": "bruno"}, {"id": "yen", "currency": "JPY"})
    for number in range(7):
        legs = [Leg(STP_SETTLEMENT, ANA, Money(100 + number, "MXN")), Leg(ANA, BRUNO, Money(1, "MXN"))]
        await bank.ledger.post(bank.name, f"t{number}", legs, reference=FORMULA, reason="-1+1")
    await bank.ledger.post(
        bank.name, "yen", [Leg(STP_SETTLEMENT, AccountRef.customer("yen"), Money(5, "JPY"))], reference='p, "q"\n'
    )
    async with open_statements(bank.url, 2, role=APP_ROLE) as statements:
        yield bank, statements


async def read(pages, columns) -> list[dict[str, str]]:
    text = b"".join([piece async for piece in csv_lines(pages, columns)]).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("page", [1, 3, 4, 1000])
async def test_every_posting_is_in_it_once_whatever_the_page(busy, page):
    bank, statements = busy
    rows = await read(Exporter(statements, page).postings(bank.name, ALWAYS), POSTING_COLUMNS)
    assert [(row["operation"], row["leg"], row["amount"], row["currency"]) for row in rows] == [
        ("seed:ana:opening", "1", "100.00", "MXN"),
        *(
            (f"t{number}", leg, amount, "MXN")
            for number in range(7)
            for leg, amount in (("1", f"1.0{number}"), ("2", "0.01"))
        ),
        ("yen", "1", "5", "JPY"),
    ]
    assert (rows[1]["debit_account"], rows[1]["credit_account"]) == ("stp-settlement", "customer-deposit:ana")
    assert rows[-1]["reference"] == 'p, "q"\n'

    entries = await read(Exporter(statements, page).statement(bank.name, ANA, "MXN", ALWAYS), ENTRY_COLUMNS)
    assert [int(row["sequence"]) for row in entries] == list(range(1, 16))
    assert entries[-1]["balance"] == "107.14"


async def test_a_span_holds_what_was_booked_within_it(busy):
    bank, statements = busy
    exporter = Exporter(statements, 2)
    (middle,) = (
        await statements.rows(
            "SELECT t.booked_at FROM ledger.txn t JOIN ledger.book k ON k.id = t.book_id "
            "WHERE k.code = %(book)s AND t.idem_key = 't3'",
            {"book": bank.name},
        )
    )[0]
    before, after = Span(ALWAYS.since, middle), Span(middle, ALWAYS.until)
    parts = [await read(exporter.postings(bank.name, span), POSTING_COLUMNS) for span in (before, after)]
    assert [len(part) for part in parts] == [7, 9]
    of_ana = [await read(exporter.statement(bank.name, ANA, "MXN", span), ENTRY_COLUMNS) for span in (before, after)]
    assert [len(part) for part in of_ana] == [7, 8]
    nothing = Span(ALWAYS.since, ALWAYS.since + timedelta(days=1))
    assert await read(exporter.postings(bank.name, nothing), POSTING_COLUMNS) == []
    assert await read(exporter.postings("nobody", ALWAYS), POSTING_COLUMNS) == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", "＝1"])
def test_no_text_is_a_formula_to_a_spreadsheet(text):
    assert harmless(text) == f"'{text}"
    assert harmless("a" + text) == "a" + text


async def test_texts_are_guarded_and_numbers_are_not(busy):
    bank, statements = busy
    rows = await read(Exporter(statements).postings(bank.name, ALWAYS), POSTING_COLUMNS)
    assert (rows[1]["reference"], rows[1]["reason"]) == (f"'{FORMULA}", "'-1+1")
    equity = [row for row in rows if row["debit_account"] == "opening-equity"]
    assert equity[0]["debit_balance"] == "-100.00"


async def test_a_file_appears_when_it_is_complete_and_parquet_keeps_whole_minor_units(busy, tmp_path: Path):
    bank, _ = busy
    within = (datetime(2020, 1, 1), datetime(2190, 1, 1))  # noqa: DTZ001 -- as the command line reads them
    table = tmp_path / "book.parquet"
    assert await export_to_file(bank.url, bank.name, within, table, form="parquet") == 16
    read_back = pq.read_table(table).to_pylist()
    assert [(row["amount_minor"], row["currency"], row["scale"]) for row in (read_back[0], read_back[-1])] == [
        (10_000, "MXN", 2),
        (5, "JPY", 0),
    ]
    assert read_back[1]["reference"] == FORMULA
    assert read_back[1]["booked_at"].tzinfo is not None
    assert (
        await export_to_file(
            bank.url, bank.name, within, tmp_path / "ana.csv", account="customer-deposit:ana", currency="MXN"
        )
        == 15
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ana.csv", "book.parquet"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"book": "nobody"}, "no book 'nobody'"),
        ({"form": "xlsx"}, "no format"),
        ({"within": (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))}, "must come after"),
        ({"account": "customer-deposit:ana"}, "belong together"),
        ({"account": "petty-cash", "currency": "MXN"}, "no account petty-cash"),
        ({"account": "customer-deposit:nobody", "currency": "MXN"}, "no account customer-deposit:nobody in MXN"),
        ({"account": "customer-deposit:ana", "currency": "pesos"}, "in pesos"),
    ],
)
async def test_what_cannot_be_exported_is_said_and_leaves_no_file(busy, tmp_path: Path, given, said):
    bank, _ = busy
    asked = {"book": bank.name, "within": (ALWAYS.since, ALWAYS.until), "path": tmp_path / "f.csv"} | given
    with pytest.raises(CannotExport, match=said):
        await export_to_file(bank.url, **asked)
    assert list(tmp_path.iterdir()) == []
