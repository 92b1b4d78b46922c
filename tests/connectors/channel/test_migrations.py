"""The schema grows and shrinks again."""

from __future__ import annotations

from alembic import command
from sqlalchemy import create_engine, text

from hub.migrations import migrate, migrations


def test_the_schema_goes_up_down_and_up_again(new_database):
    url = new_database()
    tables = text(
        "SELECT count(*) FROM information_schema.tables "
        "WHERE table_schema = 'channel' AND table_name <> 'alembic_version'"
    )
    engine = create_engine(url)
    try:
        for upward in (True, True, False, True):
            if upward:
                migrate("connectors.channel.migrations", url)
            else:
                command.downgrade(migrations("connectors.channel.migrations", url), "base")
            with engine.connect() as connection:
                assert bool(connection.execute(tables).scalar()) == upward
    finally:
        engine.dispose()
