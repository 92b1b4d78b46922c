"""What was written about stores' money is never changed or removed; only present states are updated (L1, L13, L57)."""

from __future__ import annotations

import re
from pathlib import Path

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
    await lender.delivered("c2", "50")
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


def test_what_the_docs_purge_is_old_and_published_and_the_guards_stand_again(new_stores):
    docs = Path(__file__).parents[3] / "docs" / "disbursements.md"
    [purge] = re.findall(r"```sql\n(.*?)```", docs.read_text(), re.DOTALL)
    address = make_url(new_stores()).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO disbursement.outbox (message, correlation, payload, published_at) VALUES "
            "('old', 'k', '{}', now() - interval '91 days'), ('new', 'k', '{}', now()), ('waiting', 'k', '{}', NULL)"
        )
        owner.execute(
            "INSERT INTO disbursement.run (id, tenant_id, frequency, scheduled_for, closed_at) VALUES "
            "('old', 't', 'DAILY', now() - interval '2 years', now() - interval '2 years'), "
            "('new', 't', 'DAILY', now(), now()), ('open', 't', 'DAILY', now() - interval '3 years', NULL)"
        )
        owner.execute(
            "INSERT INTO disbursement.run_store (run_id, store_id, verdict, updates, total, minimum) "
            "SELECT id, 's', 'NOTHING_PENDING', 0, 0, 0 FROM disbursement.run"
        )
        owner.execute(purge.encode())
        kept = owner.execute("SELECT array_agg(message ORDER BY id) FROM disbursement.outbox").fetchone()
        looked = owner.execute("SELECT array_agg(run_id ORDER BY run_id) FROM disbursement.run_store").fetchone()
        assert (kept, looked) == ((["new", "waiting"],), (["new", "open"],))
        for table in ("outbox", "run_store"):
            refused(owner, f"DELETE FROM disbursement.{table}", "append-only")


def test_every_table_of_stores_refuses_removals(owner):
    unguarded = owner.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'disbursement'::regnamespace AND c.relkind = 'r' "
        "AND c.relname = ANY (%s) AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid "
        "AND t.tgname IN ('append_only', 'never_removed') AND t.tgenabled = 'A')",
        [[*APPEND_ONLY, *PRESENT_STATE]],
    ).fetchall()
    assert unguarded == []


REFUSED = (
    # L3
    ("UPDATE disbursement.balance_update SET new = new + 1 WHERE true", "balance_update_follows"),
    # L5
    (
        "UPDATE disbursement.balance_update SET type = 'FEE', credit_id = NULL WHERE status = 'PENDING'",
        "balance_update_type_check",
    ),
    # L6, L8 to L11: what the types may do
    (
        "UPDATE disbursement.balance_update SET effect = -effect, new = previous - effect WHERE type = 'CONTRIBUTION'",
        "balance_update_sign",
    ),
    (
        "UPDATE disbursement.balance_update SET effect = -effect, new = previous - effect WHERE type = 'DISBURSEMENT'",
        "balance_update_sign",
    ),
    (
        "UPDATE disbursement.balance_update SET status = 'PENDING' WHERE type = 'DISBURSEMENT'",
        "balance_update_born_applied",
    ),
    (
        (
            "UPDATE disbursement.balance_update SET type = 'DISBURSEMENT_OVERRIDE', overwrites = id "
            "WHERE type = 'DISBURSEMENT'"
        ),
        "balance_update_sign",
    ),
    (
        "UPDATE disbursement.balance_update SET type = 'CREDIT_CANCELLATION', overwrites = id WHERE status = 'PENDING'",
        "balance_update_sign",
    ),
    (
        "UPDATE disbursement.balance_update SET type = 'BALANCE_ADJUSTMENT', credit_id = NULL WHERE status = 'PENDING'",
        "balance_update_reason",
    ),
    (
        "UPDATE disbursement.balance_update SET credit_id = NULL WHERE credit_id IS NOT NULL",
        "balance_update_credit",
    ),
    # L12
    (
        "UPDATE disbursement.balance_update SET status = 'APPLIED' WHERE status = 'PENDING'",
        "balance_update_transition",
    ),
    (
        "UPDATE disbursement.balance_update SET status = 'IN_TRANSIT' WHERE status = 'APPLIED' AND credit_id = 'c1'",
        "balance_update_transition",
    ),
    # L16
    (
        (
            "INSERT INTO disbursement.balance_update (tenant_id, store_id, seq, type, effect, previous, new, status, "
            "overwrites, credit_id, txn_id, operation, actor) SELECT tenant_id, store_id, seq + 10 * n, "
            "'CREDIT_CANCELLATION', -effect, new, previous, 'PENDING', id, credit_id, -n, format('again %%s', n), 'x' "
            "FROM disbursement.balance_update, generate_series(1, 2) n WHERE status = 'PENDING'"
        ),
        "balance_update_overwrites_key",
    ),
    # L18, L20, L23
    ("UPDATE disbursement.bank_transfer SET amount = 0 WHERE true", "bank_transfer_amount_check"),
    (
        (
            "INSERT INTO disbursement.bank_transfer (id, tenant_id, store_id, amount, currency, status, trigger, "
            "clabe, holder_name, tax_id, needs_confirmation) SELECT gen_random_uuid()::text, tenant_id, store_id, "
            "amount, currency, 'PAID', trigger, clabe, holder_name, tax_id, false "
            "FROM disbursement.bank_transfer WHERE true"
        ),
        "bank_transfer_status_check",
    ),
    (
        "UPDATE disbursement.bank_transfer SET confirmed_at = now(), confirmed_by = 'x' WHERE true",
        "bank_transfer_check1",
    ),
    # L45
    ("UPDATE disbursement.credit SET commission = amount + 1 WHERE true", "credit_check"),
)


def test_the_tables_refuse_what_no_store_can_have(lender, owner):
    # L3, L5, L6, L8, L9, L10, L11, L12, L16, L18, L20, L45
    for statement, constraint in REFUSED:
        with pytest.raises(psycopg.errors.IntegrityError) as raised:
            owner.execute(f"{statement} AND tenant_id = %s".encode(), [lender.name])
        assert raised.value.diag.constraint_name == constraint, statement
