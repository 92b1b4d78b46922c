"""The schema's history goes up, down and up again, and is safe to run twice."""

from __future__ import annotations

import subprocess
import sys

import psycopg
from alembic import command
from sqlalchemy.engine import make_url

from hub.migrations import migrate, migrations

PACKAGE = "ledger.migrations"


def objects(url: str) -> set[str]:
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        rows = connection.execute(
            "SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'ledger'::regnamespace "
            "UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace "
            "UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'ledger'::regnamespace "
            "UNION ALL SELECT 'trigger ' || tgrelid::regclass || tgname FROM pg_trigger WHERE NOT tgisinternal"
        ).fetchall()
    return {row[0] for row in rows if "alembic" not in row[0]}


def test_every_revision_goes_up_down_and_up_again(new_database):
    url = new_database()
    migrate(PACKAGE, url)
    there = objects(url)
    assert "function place_hold" in there
    command.downgrade(migrations(PACKAGE, url), "base")
    assert objects(url) == set()
    migrate(PACKAGE, url)
    assert objects(url) == there


def test_migrating_twice_changes_nothing(new_database):
    url = new_database()
    migrate(PACKAGE, url)
    there = objects(url)
    migrate(PACKAGE, url)
    assert objects(url) == there


def test_several_processes_may_migrate_at_once(new_database):
    url = new_database()
    code = "import sys; from hub.migrations import migrate; migrate(sys.argv[1], sys.argv[2])"
    started = [subprocess.Popen([sys.executable, "-c", code, PACKAGE, url]) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    assert "function place_hold" in objects(url)
