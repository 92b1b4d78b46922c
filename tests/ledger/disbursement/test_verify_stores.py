"""The auditor names the first row that does not agree, whatever was damaged."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import make_url

from ledger.disbursement.model import Outcome
from ledger.disbursement.verify import examined, verify

GUARDED = ("balance_update", "bank_transfer", "balance_update_status", "bank_transfer_status", "bank_transfer_item")
DAMAGE = {
    "UPDATE disbursement.balance_update SET seq = 77 WHERE seq = 2": "numbered without a gap",
    "UPDATE disbursement.balance_update SET previous = previous + 1, new = new + 1 WHERE seq = 2": "numbered without",
    "UPDATE disbursement.balance_update SET effect = effect + 1, new = new + 1 WHERE seq = 1": "its transaction",
    "DELETE FROM disbursement.balance_update_status; DELETE FROM disbursement.bank_transfer_item WHERE update_id = "
    "(SELECT max(id) FROM disbursement.balance_update); DELETE FROM disbursement.balance_update WHERE id = "
    "(SELECT max(id) FROM disbursement.balance_update)": "nothing moves a store's account",
    "UPDATE ledger.balance SET credits = credits + 1 WHERE account_id = (SELECT id FROM ledger.account "
    "WHERE kind = 'store-payable' AND owner_id = 's1')": "is its account in the book",
    "UPDATE disbursement.balance_update SET status = 'PENDING' WHERE seq = 1": "pending and in transit",
    "UPDATE disbursement.bank_transfer_item SET released_at = now()": "at most one live transfer",
    "DROP INDEX disbursement.bank_transfer_item_live; INSERT INTO disbursement.bank_transfer_item "
    "SELECT i.update_id, t.id FROM disbursement.bank_transfer_item i, disbursement.bank_transfer t "
    "WHERE NOT EXISTS (SELECT FROM disbursement.bank_transfer_item o WHERE (o.update_id, o.transfer_id) = "
    "(i.update_id, t.id))": "at most one live transfer",
    "UPDATE disbursement.bank_transfer SET amount = amount + 1": "the sum of its updates",
    "UPDATE disbursement.bank_transfer SET status = 'CANCELLED'": "is where it went last",
    "INSERT INTO disbursement.bank_transfer_status (transfer_id, status, cause, actor) "
    "SELECT id, 'IN_TRANSIT', 'x', 'x' FROM disbursement.bank_transfer": "went only where it may go",
    "UPDATE disbursement.balance_update_status SET status = 'PENDING'": "where its records end",
    "UPDATE disbursement.balance_update SET overwritten = false": "compensated once",
    "UPDATE disbursement.credit SET disbursed = NOT disbursed": "disbursed while one is applied",
    "UPDATE disbursement.credit SET amount = amount + 1": "amount less its commission",
}


@pytest.fixture(scope="module")
def damaged_url(new_stores) -> str:
    return str(new_stores())


@pytest.fixture
async def shop(damaged_url, open_lender):
    """A store with two settled transfers, one of them returned, and a cancellation."""
    async with open_lender(damaged_url) as lender:
        yield lender


async def test_the_auditor_is_content_with_a_sound_store_and_finds_each_damage(shop):
    await shop.store()
    await shop.delivered("c1", "100", "10")
    await shop.told(await shop.sent(), Outcome.SETTLED)
    await shop.delivered("c2", "60")
    second = await shop.sent()
    await shop.told(second, Outcome.SETTLED)
    await shop.told(second, Outcome.RETURNED)
    await shop.cancel("c2")
    report = await verify(shop.url)
    assert report.sound, report
    assert str(report).endswith("Store balances are sound.")
    address = make_url(shop.url).set(drivername="postgresql").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(address) as owner:
        for statement, check in DAMAGE.items():
            for table in GUARDED:
                await owner.execute(f"ALTER TABLE disbursement.{table} DISABLE TRIGGER ALL".encode())
            await owner.execute(statement.encode())
            report = await examined(owner)
            assert any(check in one.check for one in report.findings if not one.sound), (statement, str(report))
            assert report.first is not None
            await owner.rollback()
    assert (await verify(shop.url)).sound
