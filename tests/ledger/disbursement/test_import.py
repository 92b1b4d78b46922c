"""Stores and credits from CSV files: faults by line and column, all or nothing, the same again changes nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from ledger.disbursement.credits import Credits
from ledger.disbursement.importing import Fault, Imported, Importer, NotImported
from ledger.disbursement.merchants import Merchants
from ledger.disbursement.pricing import Commissions
from tests.ledger.disbursement.test_options import option, shop

STORES = "store_id,merchant_id,name,frequency,minimum_amount,manual_confirmation,clabe,holder_name,tax_id"
CREDITS = "credit_id,store_id,amount,signed_at,option_id,payments"
STORE = "{},m1,{},DAILY,100.00,false,646180157000000017,Muebles SA,MUE010101AAA"
SIGNED = "2026-03-10T12:00:00-06:00"


def lines(*given: str) -> bytes:
    return "\r\n".join(given).encode()


async def faults(importing) -> list[str]:
    with pytest.raises(NotImported) as refused:
        await importing
    return [str(fault) for fault in refused.value.faults]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
async def test_stores_with_spanish_names_come_in_unvalidated_with_their_accounts(lender, mark):  # L51, L55
    file = lines(STORES, STORE.format("s1", "Muebles Ñandú Güero"), STORE.format("s2", '"Sofás, sillas"'), "")
    importer, told = Importer(lender.statements), []
    done = await importer.stores(lender.name, mark + file, actor="op", progress=lambda *at: told.append(at))
    assert (done, told) == (Imported(2, 0), [(2, 2)])
    first, second = await Merchants(lender.statements).stores(lender.name, "m1")
    assert (first.name, second.name, first.minimum_amount, first.validated) == (
        "Muebles Ñandú Güero",
        "Sofás, sillas",
        100_00,
        False,
    )
    account = await Merchants(lender.statements).account(lender.name, "s2")
    assert account is not None
    assert (account.clabe, account.authenticated_at) == ("646180157000000017", None)
    assert await importer.stores(lender.name, mark + file, actor="op") == Imported(0, 2)
    rows = await lender.statements.rows(
        "SELECT count(*) FROM disbursement.edit WHERE tenant_id = %(tenant)s", {"tenant": lender.name}
    )
    assert rows == [(4,)]  # two stores, two accounts, and nothing for the repeat


async def test_every_fault_is_told_with_its_line_its_column_and_the_remedy_and_nothing_comes_in(lender):
    file = lines(
        STORES,
        STORE.format("good", "Good"),
        STORE.format("bad id", "Name").replace("DAILY", "YEARLY"),
        STORE.format("s3", '"=HYPERLINK(""http://x"")"'),
        STORE.format("s4", '"two\nlines"'),
        STORE.format("s5", "Name").replace("646180157000000017", "6.4618E+17"),
        STORE.format("good", "Again"),
        STORE.format("s7", "Name").replace("100.00", "-1").replace("false", "no").replace("MUE010101AAA", ""),
        STORE.format("s8", "Name") + ",extra",
        STORE.format("s9", "Name").replace("646180157000000017", "646180157000000018"),
    )
    found = await faults(Importer(lender.statements).stores(lender.name, file, actor="op"))
    # Line 5's name goes on in line 6, so what follows is a line further down than its row.
    assert [fault.split(": ")[0] for fault in found] == [
        "line 3, column frequency",
        "line 3, column store_id",
        "line 4, column name",
        "line 5, column name",
        "line 7, column clabe",
        "line 8, column store_id",
        "line 9, column manual_confirmation",
        "line 9, column minimum_amount",
        "line 9, column tax_id",
        "line 10",
        "line 11, column clabe",
    ]
    assert "a formula to a spreadsheet; begin it with a letter" in found[2]
    assert "must keep them as text" in found[4]
    assert "this id is on line 2 too" in found[5]
    assert await Merchants(lender.statements).stores(lender.name, "m1") == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "line 1, column store_id: this column is missing"),
        (STORES.replace(",", ";").encode(), "there is no such column"),
        ((STORES + ",name").encode(), "line 1, column name: this column stands twice"),
        (lines(STORES, STORE.format("s1", "a")) + b"\r\n\xff", "line 3: not UTF-8; save the file as CSV UTF-8"),
        (lines(STORES, STORE.format("s1", '"open')), "line 2: not CSV"),
        (lines(STORES, STORE.format("s1", "a").replace("m1", "nobody")), "there is no such merchant; add it first"),
        (lines(STORES, STORE.format("s1", "a\0b")), "line 2, column name"),
    ],
)
async def test_a_file_that_cannot_be_read_or_kept_says_why(lender, content, told):
    found = await faults(Importer(lender.statements).stores(lender.name, content, actor="op"))
    assert any(told in fault for fault in found), found


async def test_a_store_that_is_there_and_different_is_not_overwritten(lender):
    importer = Importer(lender.statements)
    await importer.stores(lender.name, lines(STORES, STORE.format("s1", "Centro")), actor="op")
    other = lines(STORES, STORE.format("s0", "New"), STORE.format("s1", "Sur"))
    (found,) = await faults(importer.stores(lender.name, other, actor="op"))
    assert found == "line 3, column store_id: a store with this id is there and is different; edit that one"
    assert [one.name for one in await Merchants(lender.statements).stores(lender.name, "m1")] == ["Centro"]


async def test_the_same_file_twice_at_once_comes_in_once(lender):
    importer = Importer(lender.statements)
    file = lines(STORES, *(STORE.format(f"s{number:04}", "Tienda") for number in range(1_500)))
    done = await asyncio.gather(
        *(importer.stores(lender.name, file, actor="op") for _ in range(2)), return_exceptions=True
    )
    assert sum(one.added for one in done if isinstance(one, Imported)) == 1_500
    refused = [one for one in done if isinstance(one, NotImported)]
    assert all("import the file again" in str(one) for one in refused)
    assert await importer.stores(lender.name, file, actor="op") == Imported(0, 1_500)


async def test_imported_credits_are_priced_like_signed_ones_and_traced(lender):  # L45, L57
    await shop(lender, option("o1", merchant_commission=525), option("o3", payments=3, merchant_commission=None))
    file = lines(
        CREDITS,
        f"c1,s1,1000.00,{SIGNED},o1,",
        f"c2,s1,1000.00,{SIGNED},,6",
        f"c3,s1,1000.00,{SIGNED},,3",
    )
    importer, credits_ = Importer(lender.statements), Credits(lender.statements)
    assert await importer.credits(lender.name, file, actor="op") == Imported(3, 0)
    assert await importer.credits(lender.name, file, actor="op") == Imported(0, 3)
    found = await credits_.of_store(lender.name, "s1")
    assert [(one.id, one.option_id, one.commission) for one in found] == [
        ("c1", "o1", 52_50),
        ("c2", "o1", 52_50),
        ("c3", "o3", None),
    ]
    (trace,) = await Commissions(lender.statements).traces(lender.name, "c1")
    assert (trace.result["amount"], trace.actor) == (52_50, "op")


async def test_credits_that_no_option_or_store_allows_keep_the_whole_file_out(lender):  # L49, L54
    await shop(lender, option("o1"))
    await lender.store("shut", validated=False)
    file = lines(
        CREDITS,
        f"c1,s1,1000.00,{SIGNED},o1,",
        f"c2,nowhere,1000.00,{SIGNED},o1,",
        f"c3,shut,1000.00,{SIGNED},o1,",
        f"c4,s1,1.00,{SIGNED},o1,",
        f"c5,s1,1000.00,{SIGNED},o2,",
        f"c6,s1,1000.00,{SIGNED},,9",
        "c7,s1,1000.00,2199-01-01T00:00:00Z,o1,",
        "c8,s1,0,2026-03-10,o1,0",
        f"c9,s1,-5.00,{SIGNED},o1,",
    )
    found = await faults(Importer(lender.statements).credits(lender.name, file, actor="op"))
    assert [fault.split(": ")[0] for fault in found] == [
        "line 9, column amount",
        "line 9, column payments",
        "line 9, column signed_at",
        "line 10, column amount",
    ]
    sound = b"\r\n".join(file.split(b"\r\n")[:-2])
    found = await faults(Importer(lender.statements).credits(lender.name, sound, actor="op"))
    assert [fault.split(": ")[0] for fault in found] == [
        "line 3, column store_id",
        "line 4, column store_id",
        "line 5, column option_id",
        "line 6, column option_id",
        "line 7, column amount",
        "line 8, column signed_at",
    ]
    assert await Credits(lender.statements).of_store(lender.name, "s1") == []


async def test_a_credit_under_an_id_that_is_taken_is_told(lender):
    await shop(lender, option("o1"))
    importer = Importer(lender.statements)
    await importer.credits(lender.name, lines(CREDITS, f"c1,s1,1000.00,{SIGNED},o1,"), actor="op")
    (found,) = await faults(importer.credits(lender.name, lines(CREDITS, f"c1,s1,1000.01,{SIGNED},o1,"), actor="op"))
    assert "line 2, column credit_id" in found


async def test_ten_thousand_rows_come_in_within_seconds(lender):
    importer, told = Importer(lender.statements), []
    file = lines(STORES, *(STORE.format(f"s{number:05}", f"Tienda {number}") for number in range(10_000)))
    began = time.monotonic()
    done = await importer.stores(lender.name, file, actor="op", progress=lambda *at: told.append(at))
    took = time.monotonic() - began
    assert (done.added, len(told), told[-1]) == (10_000, 10, (10_000, 10_000))
    assert took < 20, f"{took:.1f} s"  # about 2 s on a quiet machine


def test_only_a_thousand_faults_are_told_one_by_one():
    error = NotImported([Fault(line, "name", "wrong") for line in range(1, 2_001)])
    assert (len(error.faults), error.more) == (1_000, 1_000)
    assert str(error).endswith("... and 1000 more")
