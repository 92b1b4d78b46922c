"""PostgreSQL: how it is opened, how its schema grows, and what its failures mean.

Each component that keeps tables has its own schema and its own Alembic history, because components know nothing of each
other. Every write of ours is idempotent, so a lost connection is `Unavailable`: trying again is always safe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hub.errors import Unavailable

_MIGRATION_LOCK = 7201  # any number; one migration at a time per database


@asynccontextmanager
async def open_database(url: str, pool_size: int = 8) -> AsyncIterator[AsyncEngine]:
    """A pooled engine, closed on leaving. Single statements run on `autocommit(engine)`: one round trip each."""
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        connect_args={"connect_timeout": 5, "application_name": "payhub"},
    )
    try:
        yield engine
    finally:
        await engine.dispose()


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """The same pool with each statement its own transaction: one round trip instead of three."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn "the database is away or too busy" into `Unavailable`; let every other error through."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise Unavailable(f"database: {type(error).__name__}") from error
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(
            error.orig,
            (psycopg.errors.AdminShutdown, psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected),
        ):
            raise Unavailable(f"database: {type(error.orig).__name__}") from error
        raise


async def ping(engine: AsyncEngine) -> None:
    """Raises when the database does not answer."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


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
