"""The auditor names the first row that does not agree, whatever was damaged (L79)."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.errors import Unavailable
from hub.money import Money
from hub.statements import open_statements
from ledger.chain import Sealer
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.settings import APP_ROLE
from ledger.verify import CHAIN, verify

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


@pytest.fixture
async def busy(own_bank):
    """A book in which everything happened once: numbers of rows are stable because its database is new."""
    bank = own_bank
    await bank.open(
        {"id": "ana", "opening_balance": "100"},
        {"id": "bruno", "opening_balance": "5"},
        {"id": "shut", "status": "closed"},
        {"id": "cold", "status": "frozen"},
        {"id": "usd", "currency": "USD", "opening_balance": "7"},
    )
    for payment in ("p1", "p2", "p3"):
        await bank.ledger.hold(bank.name, f"{payment}:hold", ANA, mxn("10"), mxn("1"), reference=payment)
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    await bank.ledger.release(bank.name, "p2:hold", "p2:release")
    await bank.ledger.hold(bank.name, "p4:hold", ANA, mxn("1"), lifetime=timedelta(microseconds=1))
    assert await bank.ledger.expire_holds() == 1
    await bank.ledger.post(bank.name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("3")), Leg(ANA, BRUNO, mxn("2"))])
    await bank.ledger.set_policy(bank.name, BRUNO, "MXN", "floor", floor=-mxn("5"), reason="agreed")
    async with open_statements(bank.url, 1, role=APP_ROLE) as statements:
        sealer = Sealer(statements, block=4)
        while await sealer.seal():
            pass
        await statements.rows("SELECT ledger.take_snapshots(clock_timestamp(), true)")
    return bank


async def damage(bank, *statements: str) -> None:
    """As a superuser who switches the guards off."""
    address = make_url(bank.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        for table in (
            *("account_policy_event", "balance", "txn", "posting", "hold", "hold_state", "outbox"),
            *("chain_block", "snapshot"),
        ):
            connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL".encode())
        for statement in statements:
            connection.execute(statement.encode())


async def test_a_book_in_which_everything_happened_is_sound(busy):
    report = await verify(busy.url)
    assert report.sound, report
    assert report.first is None
    assert all(finding.rows > 0 for finding in report.findings)
    assert str(report).endswith("The book is sound.")
    assert report.as_json()["sound"] is True


OF_CAPTURE = "{} WHERE txn_id = (SELECT id FROM ledger.txn WHERE kind = 'capture')"
IN_BALANCE = "UPDATE ledger.balance SET {} WHERE account_id = (SELECT id FROM ledger.account WHERE owner_id = '{}')"


@pytest.mark.parametrize(
    ("statement", "check", "named"),
    [
        (IN_BALANCE.format("credits = credits + 1", "ana"), "debits equal credits", "book own-bank, MXN/2"),
        (IN_BALANCE.format("credits = credits + 1, debits = debits + 1", "bruno"), "every balance is the sum", "(cust"),
        (
            OF_CAPTURE.format("UPDATE ledger.posting SET amount = amount + 1"),
            "every balance is the sum",
            "say 0 and 101",
        ),
        (OF_CAPTURE.format("DELETE FROM ledger.posting") + " AND leg = 1", "transactions that move", "has 1 postings"),
        ("UPDATE ledger.posting SET dr_after = dr_after + 1 WHERE leg = 2", "sequences have no gap", "balance after"),
        (
            "UPDATE ledger.posting SET cr_seq = cr_seq + 100 WHERE leg = 2",
            "sequences have no gap",
            "sequence 1",
        ),
        (IN_BALANCE.format("ver = ver + 1", "ana"), "the last sequence", "sequence 6, postings say 5"),
        (IN_BALANCE.format("hold_out = hold_out - 1", "ana"), "what accounts hold", "held 1099, open holds say 1100"),
        ("UPDATE ledger.hold_state SET captured = 0 WHERE captured > 0", "holds: captured plus released", "captured 0"),
        ("UPDATE ledger.hold_state SET released = 1 WHERE NOT final", "holds: captured plus released", "released 1"),
        ("DELETE FROM ledger.hold_state WHERE NOT final", "holds: captured plus released", "hold "),
        ("DELETE FROM ledger.txn WHERE kind = 'void'", "holds: captured plus released", "0 releases"),
        (OF_CAPTURE.format("DELETE FROM ledger.posting"), "transactions that move", "has 0 postings"),
        (IN_BALANCE.format("closed = false", "shut"), "freezes, closings and floors", "balance of account"),
        (IN_BALANCE.format("debits_frozen = false", "cold"), "freezes, closings and floors", "balance of account"),
        (IN_BALANCE.format("floor = NULL", "bruno"), "freezes, closings and floors", "balance of account"),
        ("DELETE FROM ledger.account_policy_event WHERE action = 'close'", "freezes, closings", "balance of account"),
        (
            "DELETE FROM ledger.outbox WHERE topic = 'ledger.capture'",
            "every transaction has its outbox row",
            "(capture) has 0",
        ),
        (
            "INSERT INTO ledger.outbox (topic, key, txn_id) SELECT topic, key, txn_id FROM ledger.outbox LIMIT 1",
            "every transaction has its outbox row",
            "has 2 outbox rows",
        ),
        (
            "ALTER TABLE ledger.balance DROP CONSTRAINT balance_check; "
            + IN_BALANCE.format("hold_out = 1000000", "ana"),
            "no account is below its floor",
            "balance of account",
        ),
        (IN_BALANCE.format("side = 'D', floor = NULL", "ana"), "every account has its balance", "customer-deposit"),
        ("DELETE FROM ledger.balance WHERE ver = 0", "every account has its balance", "account "),
        (
            "UPDATE ledger.txn SET book_id = 0 WHERE kind = 'capture'",
            "postings stay inside the book",
            "/1",
        ),
        ("UPDATE ledger.hold_state SET expires_at = NULL WHERE expires_at < now()", "holds end when", "hold "),
        ("UPDATE ledger.txn SET ext_ref = 'p9' WHERE kind = 'capture'", CHAIN, "block 2"),
        ("UPDATE ledger.txn SET booked_at = booked_at + interval '1us' WHERE id = 1", CHAIN, "not what was sealed"),
        ("UPDATE ledger.posting SET cr_after = cr_after WHERE false; UPDATE ledger.hold SET fee = 2", CHAIN, "block 1"),
        ("DELETE FROM ledger.txn WHERE kind = 'void'", CHAIN, "the first missing is 8"),
        ("DELETE FROM ledger.chain_block WHERE seq = 2", CHAIN, "block 2 is missing before it"),
        ("UPDATE ledger.chain_block SET prev_hash = sha256('x') WHERE seq = 3", CHAIN, "does not follow"),
        ("UPDATE ledger.chain_block SET sealed_at = sealed_at - interval '1h' WHERE seq = 1", CHAIN, "block 1"),
        (
            "UPDATE ledger.chain_block SET contents = '{txn.id,txn.gone}' WHERE seq = 1",
            CHAIN,
            "txn.gone, which is gone",
        ),
        (
            "UPDATE ledger.chain_block SET members = '{[5,10)}' WHERE seq = 3",
            "no transaction is in two blocks",
            "once more",
        ),
        (
            "DELETE FROM ledger.chain_block WHERE seq = 1; UPDATE ledger.chain_block SET sealed_at = 'tomorrow'",
            "no transaction escaped the chain",
            "never sealed",
        ),
        ("UPDATE ledger.snapshot SET debits = debits + 1 WHERE account_id = 2", "snapshots are", "account 2 before"),
        ("UPDATE ledger.snapshot SET last_seq = last_seq + 1", "snapshots are", "snapshot of account"),
    ],
)
async def test_damage_is_found_and_named(busy, statement, check, named):
    await damage(busy, statement)
    report = await verify(busy.url)
    found = {finding.check: finding for finding in report.findings if not finding.sound}
    (name,) = [one for one in found if one.startswith(check)]
    assert found[name].broken > 0
    assert named in (found[name].first or "")
    assert report.first is not None
    assert not report.sound
    assert name in str(report)
    assert str(report).endswith("The book is NOT sound.")


async def test_the_first_broken_row_is_the_earliest(busy):
    await damage(busy, "DELETE FROM ledger.outbox WHERE txn_id IN (5, 3, 4)")
    report = await verify(busy.url)
    (finding,) = [one for one in report.findings if not one.sound]
    assert finding.broken == 3
    assert (finding.first or "").startswith("transaction 3 ")


async def test_an_auditor_without_a_database_says_so():
    with pytest.raises(Unavailable):
        await verify("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
