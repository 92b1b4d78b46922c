"""PostgreSQL: how it is opened and what its failures mean.

Every write of ours is idempotent, so a lost connection is `Unavailable`: trying again is always safe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hub.errors import Unavailable
from hub.statements import is_defect


@asynccontextmanager
async def open_database(url: str, pool_size: int = 8) -> AsyncIterator[AsyncEngine]:
    """A pooled engine, closed on leaving. Single statements run on `autocommit(engine)`: one round trip each."""
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,  # they would print with an unexpected error: names and account numbers
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
        if isinstance(error, OperationalError) and is_defect(error.orig):
            raise
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
