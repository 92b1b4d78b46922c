"""The schema's history goes up, down and up again, and is safe to run twice."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

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


def test_several_processes_may_migrate_at_once_one_database_or_several_of_a_server(new_database):
    url, other = new_database(), new_database()
    code = "import sys; from hub.migrations import migrate; migrate(sys.argv[1], sys.argv[2])"
    started = [subprocess.Popen([sys.executable, "-c", code, PACKAGE, each]) for each in (url, url, other)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert "function place_hold" in objects(url)
    assert objects(other) == objects(url)


def test_an_owner_who_is_no_superuser_makes_the_hubs_role_and_may_work_as_it(new_database):
    roles = (resources.files(PACKAGE) / "sql" / "0003_grants.sql").read_text().partition("GRANT USAGE")[0]
    with psycopg.connect(make_url(new_database()).set(drivername="postgresql").render_as_string(False)) as connection:
        # Roles belong to the whole server: all of this is taken back.
        connection.execute(
            "DO $$ BEGIN CREATE ROLE payhub_ledger_app; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        connection.execute("ALTER ROLE payhub_ledger_app RENAME TO not_the_hubs_role")
        connection.execute("CREATE ROLE an_owner LOGIN CREATEROLE")
        connection.execute("SET LOCAL ROLE an_owner")
        for _ in range(2):
            connection.execute(roles.encode())
        connection.execute("SET LOCAL ROLE payhub_ledger_app")
        connection.rollback()
