"""PostgreSQL for the hot path: one statement, one round trip, straight on the driver.

    async with open_statements(url) as statements:
        rows = await statements.rows("SELECT id FROM channel.payment WHERE id = %(id)s", {"id": payment_id})

Each statement is its own transaction. SQLAlchemy's asynchronous layer adds about 400 microseconds of processor time to
each statement, twice what the driver itself needs; at a dozen statements per payment that is what counts. Whoever needs
several statements in one transaction takes `connection`.

Connections are opened when they are needed, so an outage is noticed and over at once; when one breaks, the idle ones,
which have broken with it, are dropped too. Every write of ours is idempotent, so a lost connection is `Unavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import namedtuple_row

from hub.errors import Unavailable

_DEFAULTS: Final = {"connect_timeout": 5, "application_name": "payhub"}
_WAIT_WITHIN: Final = 5.0


def is_defect(error: BaseException | None) -> bool:
    """Whether what the driver calls operational is a mistake of ours, which trying again does not mend.

    PostgreSQL's class 55 is "object not in prerequisite state"; only 55P03, a lock that was not free, passes by itself.
    """
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and state.startswith("55") and state != "55P03"


class Statements:
    """A few connections and the statements that run on them. Make one with `open_statements`."""

    def __init__(self, conninfo: str, size: int) -> None:
        self._conninfo = conninfo
        self._idle: list[AsyncConnection[tuple[Any, ...]]] = []
        self._room = asyncio.Semaphore(size)

    async def rows(self, statement: LiteralString, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Run one statement and return its rows, none if it has none. Raises `Unavailable`."""
        async with self.connection() as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description is not None else []

    async def named_rows(self, statement: LiteralString, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """As `rows`, of a statement that has some; each column is an attribute of its row. Raises `Unavailable`."""
        async with self.connection() as connection, connection.cursor(row_factory=namedtuple_row) as cursor:
            return await (await cursor.execute(statement, parameters)).fetchall()

    async def ping(self) -> None:
        """A probe: raises `Unavailable` when the database does not answer."""
        await self.rows("SELECT 1")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[tuple[Any, ...]]]:
        """A connection for as long as the block takes; `async with connection.transaction():` makes a transaction.

        Raises `Unavailable` when the database is away or too busy, also from inside the block.
        """
        await self._turn()
        connection: AsyncConnection[tuple[Any, ...]] | None = None
        try:
            connection = self._idle.pop() if self._idle else await self._open()
            yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if connection is not None and connection.closed:
                await self.close()
            if is_defect(error):
                raise
            raise Unavailable(f"database: {type(error).__name__}") from error
        except psycopg.Error:
            raise
        except BaseException:
            # Cancelled half-way, or a defect: what the connection was doing is not known.
            if connection is not None:
                await _closed(connection)
            raise
        finally:
            if connection is not None and not connection.closed:
                self._idle.append(connection)
            self._room.release()

    async def close(self) -> None:
        """Close what is idle; what is in use is closed by whoever uses it."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await _closed(connection)

    async def _turn(self) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(_WAIT_WITHIN):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable("database: every connection is in use") from None

    async def _open(self) -> AsyncConnection[tuple[Any, ...]]:
        return await AsyncConnection.connect(self._conninfo, autocommit=True)


def _conninfo(url: str, limits: str) -> str:
    """libpq's form of a SQLAlchemy URL. SQLAlchemy itself would take 18 MB of each process for this."""
    server, mark, query = url.replace("postgresql+psycopg://", "postgresql://", 1).partition("?")
    asked: dict[str, Any] = conninfo_to_dict(server + mark + query.replace("+", "%20"))  # libpq knows no + for blanks
    options = f"{limits} {asked.get('options', '')}".strip()
    return make_conninfo("", **{**_DEFAULTS, **asked, "options": options})


async def _closed(connection: AsyncConnection[Any]) -> None:
    with suppress(psycopg.Error, OSError):
        await connection.close()


@asynccontextmanager
async def open_statements(
    url: str, size: int = 8, *, lock_timeout: str = "5s", statement_timeout: str = "10s", role: str | None = None
) -> AsyncIterator[Statements]:
    """Up to `size` connections to the database of this SQLAlchemy URL, closed on leaving.

    `lock_timeout`, `statement_timeout`: PostgreSQL's, so that nothing waits for ever; `0` for no limit.
    `role`: work with the rights of this role, of which the URL's user must be a member.
    """
    limits = f"-c lock_timeout={lock_timeout} -c statement_timeout={statement_timeout}"
    if role is not None:
        limits += f" -c role={role}"
    statements = Statements(_conninfo(url, limits), size)
    try:
        yield statements
    finally:
        await statements.close()
