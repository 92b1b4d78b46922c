"""What was written is never changed or removed: the database itself refuses each forbidden statement (L57, L78)."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.money import Money
from ledger.model import AccountRef

APPEND_ONLY = {
    "book": "code",
    "asset": "scale",
    "chart": "floor_default",
    "account": "owner_id",
    "account_policy_event": "reason",
    "txn": "ext_ref",
    "posting": "amount",
    "hold": "amount",
    "outbox": "payload",
    "tariff": "valid_from",
    "tariff_band": "fixed",
}
NEVER_REMOVED = ("balance", "hold_state")
ANOTHER_LEG = "INSERT INTO ledger.posting SELECT txn_id, 9, dr_account, {}, 9, 1, 9, 1 FROM ledger.posting LIMIT 1"


@pytest.fixture
async def connection(bank):
    """As the owner of the tables, with a row in each."""
    await bank.open(
        {"id": "ana", "opening_balance": "5", "status": "frozen"},
        {"id": "bruno", "opening_balance": "5"},
        fees=[{"currency": "MXN", "fixed": "1"}],
    )
    await bank.ledger.hold(bank.name, "p1:hold", AccountRef.customer("bruno"), Money(100, "MXN"))
    address = make_url(bank.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as opened:
        yield opened


def refused(connection: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        connection.execute(statement.encode())


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_an_update_is_refused(connection, table):
    refused(connection, f"UPDATE ledger.{table} SET {APPEND_ONLY[table]} = {APPEND_ONLY[table]}")
    refused(connection, f"UPDATE ledger.{table} SET {APPEND_ONLY[table]} = NULL WHERE false")


@pytest.mark.parametrize("table", [*APPEND_ONLY, *NEVER_REMOVED])
def test_a_delete_is_refused(connection, table):
    refused(connection, f"DELETE FROM ledger.{table}")


@pytest.mark.parametrize("table", [*APPEND_ONLY, *NEVER_REMOVED])
def test_a_truncate_is_refused(connection, table):
    refused(connection, f"TRUNCATE ledger.{table} CASCADE")


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_a_session_that_switches_ordinary_triggers_off_is_refused_too(connection, table):
    connection.execute("SET session_replication_role = replica")
    refused(connection, f"DELETE FROM ledger.{table}")


def test_every_table_of_the_book_is_guarded_or_known_to_change(connection):
    tables = {
        row[0]
        for row in connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'ledger' AND tablename <> 'alembic_version'"
        )
    }
    assert tables == {*APPEND_ONLY, *NEVER_REMOVED, "account_holder", "account_identifier", "outbox_cursor"}


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE ledger.balance SET hold_out = -1", "balance_hold_out_check"),
        ("UPDATE ledger.balance SET debits = credits + 1 WHERE floor = 0", "balance_check"),
        ("UPDATE ledger.hold_state SET captured = amount, released = 1", "hold_state_check"),
        ("INSERT INTO ledger.asset VALUES ('MXN/3', 2)", "asset_check"),
        (ANOTHER_LEG.format("dr_account, asset, 1"), "posting_check"),
        (ANOTHER_LEG.format("cr_account, asset, 0"), "posting_amount_check"),
    ],
)
def test_the_tables_refuse_what_no_book_can_hold(connection, statement, constraint):
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        connection.execute(statement)
    assert raised.value.diag.constraint_name == constraint


def test_a_posting_cannot_use_an_account_of_another_currency(connection):
    connection.execute("INSERT INTO ledger.asset VALUES ('EUR/2', 2) ON CONFLICT DO NOTHING")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute(ANOTHER_LEG.format("cr_account, 'EUR/2', 1"))
