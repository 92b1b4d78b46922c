"""What was written about stores' money is never changed or removed; only present states are updated (L1, L13, L57)."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import make_url

from ledger.disbursement.model import Outcome

APPEND_ONLY = {
    "credit_change": "amount",
    "balance_update_status": "status",
    "bank_transfer_status": "status",
    "event_log": "payload",
    "event_outcome": "outcome",
}
PRESENT_STATE = {
    "merchant": {"name", "tax_id", "partner", "automation", "validated"},
    "store": {"name", "frequency", "minimum_amount", "manual_confirmation", "validated"},
    "bank_account": {"authenticated_at", "authenticated_by"},
    "credit": {"amount", "commission", "disbursed"},
    "balance_update": {"status", "overwritten"},
    "bank_transfer": {
        "status",
        "confirmed_by",
        "confirmed_at",
        "process_instance_key",
        "reason",
        "reason_detail",
        "settled_at",
    },
    "bank_transfer_item": {"released_at"},
    "outbox": {"published_at", "publish_after"},
}
"""What the hub's role may update of each table: its present state, and nothing of what was."""


@pytest.fixture
async def owner(lender):
    """As the owner of the tables, with a row in each."""
    await lender.store()
    await lender.delivered("c1", "100")
    await lender.told(await lender.sent(), Outcome.SETTLED)
    address = make_url(lender.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as opened:
        yield opened


def refused(connection: psycopg.Connection, statement: str, why: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=why):
        connection.execute(statement.encode())


def test_even_the_owner_is_refused_updates_of_records_and_removals_of_anything(owner):  # L13
    for table, column in APPEND_ONLY.items():
        refused(owner, f"UPDATE disbursement.{table} SET {column} = {column}", "append-only")
    owner.execute("SET session_replication_role = replica")  # which switches ordinary triggers off
    for table in (*APPEND_ONLY, *PRESENT_STATE):
        refused(owner, f"DELETE FROM disbursement.{table}", "append-only")
        refused(owner, f"TRUNCATE disbursement.{table} CASCADE", "append-only")


def test_the_hubs_role_updates_present_states_and_nothing_else(owner):  # L1, L57
    columns = owner.execute(
        "SELECT c.relname, a.attname, has_column_privilege('payhub_ledger_app', c.oid, a.attname, 'UPDATE') "
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE c.relnamespace = 'disbursement'::regnamespace AND c.relname = ANY (%s)",
        [[*APPEND_ONLY, *PRESENT_STATE]],
    ).fetchall()
    granted: dict[str, set[str]] = {}
    for table, column, may in columns:
        if may:
            granted.setdefault(table, set()).add(column)
    assert {table: granted.get(table, set()) >= may for table, may in PRESENT_STATE.items()} == dict.fromkeys(
        PRESENT_STATE, True
    )
    known = {"balance_update", "bank_transfer", "bank_transfer_item", "bank_account", "credit", "outbox"}
    assert {table: granted[table] for table in known} == {table: PRESENT_STATE[table] for table in known}
    assert not granted.keys() & APPEND_ONLY.keys()


def test_the_hubs_role_neither_removes_nor_switches_guards_off(owner):
    owner.execute("SET ROLE payhub_ledger_app")
    for table in (*APPEND_ONLY, *PRESENT_STATE):
        refused(owner, f"DELETE FROM disbursement.{table}", "permission denied")
        refused(owner, f"TRUNCATE disbursement.{table} CASCADE", "permission denied")
        refused(owner, f"ALTER TABLE disbursement.{table} DISABLE TRIGGER ALL", "must be owner")
    for table, column in {**APPEND_ONLY, "balance_update": "effect", "bank_transfer": "amount"}.items():
        refused(owner, f"UPDATE disbursement.{table} SET {column} = {column}", "permission denied")
    refused(owner, "INSERT INTO disbursement.alembic_version VALUES ('x')", "permission denied")


def test_every_table_of_stores_refuses_removals(owner):
    unguarded = owner.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'disbursement'::regnamespace AND c.relkind = 'r' "
        "AND c.relname = ANY (%s) AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid "
        "AND t.tgname IN ('append_only', 'never_removed') AND t.tgenabled = 'A')",
        [[*APPEND_ONLY, *PRESENT_STATE]],
    ).fetchall()
    assert unguarded == []


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE disbursement.balance_update SET new = new + 1", "balance_update_follows"),
        (
            "UPDATE disbursement.balance_update SET status = 'PENDING' WHERE type = 'DISBURSEMENT'",
            "balance_update_born_applied",
        ),
        (
            "UPDATE disbursement.balance_update SET status = 'IN_TRANSIT' WHERE status = 'APPLIED'",
            "balance_update_transition",
        ),
        (
            "UPDATE disbursement.balance_update SET credit_id = NULL WHERE credit_id IS NOT NULL",
            "balance_update_credit",
        ),
        ("UPDATE disbursement.credit SET commission = amount + 1", "credit_check"),
        ("UPDATE disbursement.bank_transfer SET confirmed_at = now(), confirmed_by = 'x'", "bank_transfer_check1"),
    ],
)
def test_the_tables_refuse_what_no_store_can_have(owner, statement, constraint):  # L3, L8, L12
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        owner.execute(statement.encode())
    assert raised.value.diag.constraint_name == constraint
