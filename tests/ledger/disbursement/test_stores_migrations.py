"""The schema of stores goes up, down and up again; books that were there before learn its kinds of account."""

from __future__ import annotations

import psycopg
from alembic import command
from sqlalchemy.engine import make_url

from hub.migrations import migrate, migrations
from ledger.model import STANDARD_CHART

STORES, BOOK = "ledger.disbursement.migrations", "ledger.migrations"
OBJECTS = (
    "SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'disbursement'::regnamespace "
    "UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'disbursement'::regnamespace "
    "UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'disbursement'::regnamespace"
)


def asked(url: str, query: str) -> set[tuple[str, ...]]:
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(False)) as connection:
        return {row for row in connection.execute(query.encode()) if "alembic" not in row[0]}


def test_every_revision_goes_up_down_and_up_again_and_old_books_get_the_new_kinds(new_database):
    url = new_database()
    migrate(BOOK, url, "0003")
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(False)) as connection:
        connection.execute("INSERT INTO ledger.book (code) VALUES ('old')")
    migrate(BOOK, url)
    kinds: set[tuple[object, ...]] = set(asked(url, "SELECT kind, side, auto_create FROM ledger.chart"))
    new = [
        line
        for line in STANDARD_CHART
        if line.kind in ("store-payable", "credit-receivable", "commission-income", "balance-adjustment")
    ]
    assert kinds == {(line.kind.value, line.side.value, line.auto_create) for line in new}
    migrate(STORES, url)
    there = asked(url, OBJECTS)
    assert ("function append_update",) in there
    command.downgrade(migrations(STORES, url), "base")
    assert asked(url, OBJECTS) == set()
    command.downgrade(migrations(BOOK, url), "0003")
    assert asked(url, "SELECT kind FROM ledger.chart") == set()
    migrate(BOOK, url)
    migrate(STORES, url)
    assert asked(url, OBJECTS) == there
