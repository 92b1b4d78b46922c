"""Statements straight on the driver: quick, bounded, and well again after an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from sqlalchemy.engine import make_url

import hub.statements
from hub.errors import Unavailable
from hub.statements import Statements, open_statements


@pytest.fixture
async def statements(database_url: str) -> AsyncIterator[Statements]:
    async with open_statements(database_url, 2) as opened:
        yield opened


async def test_a_statement_brings_its_rows(statements: Statements) -> None:
    assert await statements.rows("SELECT %(a)s::int, %(b)s::text", {"a": 1, "b": "two"}) == [(1, "two")]
    assert await statements.rows("DO $$ BEGIN END $$") == []


async def test_each_statement_is_its_own_transaction(statements: Statements) -> None:
    [(one,)] = await statements.rows("SELECT txid_current()")
    [(two,)] = await statements.rows("SELECT txid_current()")
    assert one != two


async def test_a_broken_connection_is_unavailable_once_and_then_replaced(
    statements: Statements, database_url: str
) -> None:
    async def pid() -> int:
        [(found,)] = await statements.rows("SELECT pg_backend_pid()")
        return int(found)

    before = await asyncio.gather(pid(), pid())
    async with open_statements(database_url, 1) as other:
        for each in set(before):
            await other.rows("SELECT pg_terminate_backend(%(pid)s)", {"pid": each})
    with pytest.raises(Unavailable):
        await pid()
    assert await pid() not in before, "the other idle connection was dropped with the first"


async def test_nobody_there_is_unavailable_at_once() -> None:
    async with open_statements("postgresql+psycopg://nobody:s3cret@127.0.0.1:1/nothing") as away:
        async with asyncio.timeout(2):
            with pytest.raises(Unavailable) as refused:
                await away.ping()
    assert "s3cret" not in str(refused.value)


async def test_more_callers_than_connections_wait_their_turn(
    statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(statements.rows("SELECT pg_sleep(0.02)") for _ in range(20)))
    assert len(statements._idle) == 2
    monkeypatch.setattr(hub.statements, "_WAIT_WITHIN", 0.05)
    async with statements.connection(), statements.connection():
        with pytest.raises(Unavailable, match="in use"):
            await statements.ping()
    await statements.ping()


async def test_a_cancelled_statement_leaves_no_connection_in_doubt(statements: Statements) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await statements.rows("SELECT pg_sleep(5)")
    assert await statements.rows("SELECT 7") == [(7,)]


async def test_a_wrong_statement_is_no_outage_and_costs_no_connection(statements: Statements) -> None:
    await statements.ping()
    with pytest.raises(psycopg.errors.UndefinedTable):
        await statements.rows("SELECT * FROM nothing_of_the_kind")
    assert len(statements._idle) == 1
    await statements.ping()


async def test_nothing_waits_for_a_lock_for_ever(database_url: str) -> None:
    async with (
        open_statements(database_url, 2, lock_timeout="100ms") as statements,
        statements.connection() as holder,
        holder.transaction(),
    ):
        await holder.execute("SELECT pg_advisory_xact_lock(4711)")
        with pytest.raises(Unavailable) as refused:
            await statements.rows("SELECT pg_advisory_xact_lock(4711)")
        assert isinstance(refused.value.__cause__, psycopg.errors.LockNotAvailable)


async def test_nothing_runs_for_ever_and_a_urls_own_options_are_kept(database_url: str) -> None:
    url = make_url(database_url).update_query_dict({"options": "-c search_path=elsewhere"})
    given = url.render_as_string(hide_password=False)
    async with open_statements(given, 1, statement_timeout="100ms") as statements:
        assert await statements.rows("SHOW search_path") == [("elsewhere",)]
        with pytest.raises(Unavailable):
            await statements.rows("SELECT pg_sleep(5)")


async def test_a_mistake_of_ours_is_no_outage(statements: Statements) -> None:
    unassigned = "DO $$ DECLARE r record; n integer; BEGIN n := r.id; END $$"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        await statements.rows(unassigned)
