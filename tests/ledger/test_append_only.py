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
    "chain_block": "hash",
    "snapshot": "debits",
    "snapshot_run": "taken_at",
    "rebuilt_balance": "reason",
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


# --- The same once more by grants, for the role that the hub works as: it does not even come to the triggers.


@pytest.fixture
def app(connection):
    connection.execute("SET ROLE payhub_ledger_app")
    return connection


def not_permitted(connection: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"permission denied|must be owner"):
        connection.execute(statement.encode())


def test_the_hubs_role_may_not_update(app):
    for table, column in APPEND_ONLY.items():
        not_permitted(app, f"UPDATE ledger.{table} SET {column} = {column}")


def test_the_hubs_role_may_not_delete_or_truncate_or_switch_guards_off(app):
    for table in (*APPEND_ONLY, *NEVER_REMOVED):
        not_permitted(app, f"DELETE FROM ledger.{table}")
        not_permitted(app, f"TRUNCATE ledger.{table} CASCADE")
        not_permitted(app, f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
        not_permitted(app, f"DROP TABLE ledger.{table} CASCADE")


def test_the_hubs_role_may_not_do_what_the_book_never_does(app):
    for statement in (
        "UPDATE ledger.balance SET account_id = 0",
        "UPDATE ledger.balance SET side = 'D'",
        "UPDATE ledger.hold_state SET amount = 1",
        "UPDATE ledger.hold_state SET from_account = 1",
        "UPDATE ledger.account_identifier SET account_id = 1",
        "INSERT INTO ledger.rebuilt_balance (account_id, was, became, reason) VALUES (1, '{}', '{}', 'x')",
        "INSERT INTO ledger.alembic_version VALUES ('x')",
        "CREATE TABLE ledger.mine ()",
        "ALTER FUNCTION ledger.refuse_change() RENAME TO harmless",
        "SET session_replication_role = replica",
    ):
        not_permitted(app, statement)


def test_the_hubs_role_may_read_and_append_everywhere_else_and_owns_nothing(app):
    rows = app.execute(
        "SELECT c.relname, has_table_privilege('payhub_ledger_app', c.oid, 'SELECT') AND "
        "has_table_privilege('payhub_ledger_app', c.oid, 'INSERT'), pg_get_userbyid(c.relowner) "
        "FROM pg_class c WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r'"
    ).fetchall()
    assert {name for name, granted, _ in rows if not granted} == {"alembic_version", "rebuilt_balance"}
    assert "payhub_ledger_app" not in {owner for _, _, owner in rows}


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
