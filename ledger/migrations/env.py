"""Run by Alembic: opens the database named in the configuration and keeps the version table in our own schema."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

SCHEMA = "ledger"


def run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    if url is None:
        raise LookupError("sqlalchemy.url is not set")
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        connection.commit()
        context.configure(connection=connection, version_table_schema=SCHEMA)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
