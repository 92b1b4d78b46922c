"""How each component's schema grows: its own PostgreSQL schema, its own Alembic history.

Components know nothing of each other, so their tables do not either; `payhub up` and `payhub deploy` bring all of them
to the newest revision before anything is started.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from alembic import command, context, op
from alembic.config import Config
from sqlalchemy import create_engine, pool, text

_MIGRATION_LOCK = 7201  # any number; one migration at a time per database


def migrations(package: str, url: str) -> Config:
    """The Alembic configuration of the component whose migrations live in `package`, as in `ledger.migrations`."""
    config = Config()
    config.set_main_option("script_location", str(files(package)))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(package: str, url: str, revision: str = "head") -> None:
    """Bring one component's schema to `revision`. Safe to run twice and from several processes at once."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as lock:
            lock.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
            try:
                command.upgrade(migrations(package, url), revision)
            finally:
                lock.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
    finally:
        engine.dispose()


def revise(schema: str) -> None:
    """What every component's `env.py` calls: run the revisions Alembic was asked for, in the component's own schema."""
    url = context.config.get_main_option("sqlalchemy.url")
    if url is None:
        raise LookupError("sqlalchemy.url is not set")
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
        context.configure(connection=connection, version_table_schema=schema, transactional_ddl=True)
        with context.begin_transaction():
            context.run_migrations()


def run_script(script: Path) -> None:
    """Run a file of SQL in the revision under way, just as it is written."""
    # SQLAlchemy's text() would take `:name` for a parameter, and psycopg, given parameters, `%`.
    cursor = op.get_bind().connection.cursor()
    cursor.execute(script.read_text(encoding="utf-8"))
    cursor.close()
