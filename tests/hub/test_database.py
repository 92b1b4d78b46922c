from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hub.database import database_errors, open_database, ping
from hub.errors import Unavailable


async def test_a_database_that_is_away_is_unavailable() -> None:
    async with open_database("postgresql+psycopg://nobody:s3cret@127.0.0.1:1/nothing") as away:
        with pytest.raises(Unavailable) as refused, database_errors():
            await ping(away)
    assert "s3cret" not in str(refused.value)


async def test_an_unexpected_error_does_not_print_what_was_sent(database_url: str) -> None:
    async with open_database(database_url) as database, database.connect() as connection:
        with pytest.raises(DBAPIError) as broken, database_errors():
            await connection.execute(text("SELECT CAST(:name AS text) FROM nowhere"), {"name": "Ana Torres"})
    assert "Ana Torres" not in str(broken.value)


async def test_a_mistake_of_ours_is_no_outage(database_url: str) -> None:
    unassigned = text("DO $$ DECLARE r record; n integer; BEGIN n := r.id; END $$")
    async with open_database(database_url) as database, database.connect() as connection:
        with pytest.raises(DBAPIError), database_errors():
            await connection.execute(unassigned)
