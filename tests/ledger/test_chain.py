"""The chain of hashes: everything that was booked is sealed once, whatever the order of commits (L79, L80)."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range
from sqlalchemy.engine import make_url

from hub.money import Money
from hub.statements import open_statements
from ledger.chain import GENESIS, Sealer, block_hash, ranged
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.settings import APP_ROLE
from ledger.verify import verify


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


ANA = AccountRef.customer("ana")
BOOK = (
    "WITH booked AS (INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, actor) "
    "VALUES (1, %s, sha256('x'), 'void', 'test') RETURNING id) "
    "INSERT INTO ledger.outbox (topic, key, txn_id) SELECT 'ledger.void', 'p', id FROM booked RETURNING txn_id"
)
LINE = (1, ["1", None, "a"], [["2", "b"]], None)


@pytest.fixture
async def booked(own_bank):
    await own_bank.open({"id": "ana", "opening_balance": "100"})
    for number in range(5):
        await own_bank.ledger.post(own_bank.name, f"t{number}", [Leg(STP_SETTLEMENT, ANA, Money(1, "MXN"))])
    async with open_statements(own_bank.url, 4, role=APP_ROLE) as statements:
        yield own_bank, statements


async def seal_all(sealer: Sealer) -> int:
    total = 0
    while sealed := await sealer.seal():
        total += sealed
    return total


@pytest.mark.parametrize(
    "line",
    [
        (1, ["1", "", "a"], [["2", "b"]], None),
        (1, ["1", None, "a2"], [["b"]], None),
        (1, ["1", None, "a"], [["2b", ""]], None),
        (1, ["1", None, "a"], [["2", "b"]], []),
        (1, ["1", None, "a"], [["2", "b"]], ["3"]),
        (1, ["1", None, "a"], [], ["2", "b"]),
        (1, ["1", None, "a]1;2[1:"], [["2", "b"]], None),
    ],
)
def test_no_two_contents_give_the_same_bytes(line):
    assert block_hash(1, GENESIS, "t", ["txn.id"], [line]) != block_hash(1, GENESIS, "t", ["txn.id"], [LINE])


def test_a_block_depends_on_everything_it_says():
    said = (1, GENESIS, "t", ["txn.id"], [LINE])
    others = [
        (2, *said[1:]),
        (1, bytes([1]) + bytes(31), *said[2:]),
        (1, GENESIS, "u", *said[3:]),
        (1, GENESIS, "t", ["txn.ids"], [LINE]),
        (1, GENESIS, "t", ["txn.id"], [LINE, LINE]),
    ]
    assert len({block_hash(*one) for one in (said, *others)}) == 6


def test_numbers_become_the_ranges_they_form():
    assert ranged([1, 2, 3, 7, 9, 10]) == Multirange([Range(1, 4), Range(7, 8), Range(9, 11)])
    assert not ranged([])


async def test_everything_is_sealed_once_and_a_second_look_finds_nothing(booked):
    bank, statements = booked
    sealer = Sealer(statements, block=4)
    assert [await sealer.seal(), await sealer.seal(), await sealer.seal()] == [4, 2, 0]
    assert await Sealer(statements).seal() == 0
    report = await verify(bank.url)
    assert report.sound, report
    assert (report.head or "").startswith("2:")


async def test_a_transaction_committed_late_is_sealed_by_a_later_block(booked):
    bank, statements = booked
    sealer = Sealer(statements)
    with psycopg.connect(plain(bank.url)) as late:
        ((number,),) = late.execute(BOOK, ["drawn first"]).fetchall()
        with psycopg.connect(plain(bank.url)) as other:
            other.execute(BOOK, ["drawn second"])
        assert await seal_all(sealer) == 7
        (newest,) = (await statements.rows("SELECT max(to_txn) FROM ledger.chain_block"))[0]
        assert newest > number
        late.commit()
    assert await seal_all(sealer) == 1
    blocks = await statements.rows("SELECT from_txn, to_txn FROM ledger.chain_block ORDER BY seq")
    assert blocks[-1] == (number, number)
    assert (await verify(bank.url)).sound
    assert await Sealer(statements).seal() == 0


async def test_two_sealers_at_once_make_one_chain(booked):
    bank, statements = booked
    sealers = [Sealer(statements, block=1) for _ in range(3)]
    while sum(await asyncio.gather(*(sealer.seal() for sealer in sealers))):
        pass
    rows = await statements.rows("SELECT seq FROM ledger.chain_block ORDER BY seq")
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert (await verify(bank.url)).sound


async def test_a_sealer_that_breaks_before_its_commit_leaves_nothing_and_the_next_one_seals_the_same(booked):
    _, statements = booked

    class Broken(Sealer):
        async def _write(self, *given):
            await super()._write(*given)
            raise ConnectionAbortedError

    broken = Broken(statements)
    with pytest.raises(ConnectionAbortedError):
        await broken.seal()
    assert await statements.rows("SELECT 1 FROM ledger.chain_block") == []
    assert await Sealer(statements).seal() == 6


async def test_a_column_added_later_leaves_old_blocks_valid_and_is_sealed_in_new_ones(booked):
    bank, statements = booked
    await seal_all(Sealer(statements))
    with psycopg.connect(plain(bank.url), autocommit=True) as owner:
        owner.execute("ALTER TABLE ledger.txn ADD COLUMN branch text NOT NULL DEFAULT 'main'")
    await bank.ledger.post(bank.name, "after", [Leg(STP_SETTLEMENT, ANA, Money(1, "MXN"))])
    await seal_all(Sealer(statements))
    assert (await verify(bank.url)).sound
    with psycopg.connect(plain(bank.url), autocommit=True) as owner:
        owner.execute("ALTER TABLE ledger.txn DISABLE TRIGGER ALL")
        owner.execute("UPDATE ledger.txn SET branch = 'other' WHERE idem_key = 'after'")
    assert not (await verify(bank.url)).sound
