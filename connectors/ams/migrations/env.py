"""Alembic's entry for the schema `ams`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

SCHEMA = "ams"


def run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    if url is None:
        raise LookupError("sqlalchemy.url is not set")
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        context.configure(connection=connection, version_table_schema=SCHEMA, transactional_ddl=True)
        with context.begin_transaction():
            context.run_migrations()


run()
