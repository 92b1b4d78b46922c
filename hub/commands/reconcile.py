"""`payhub reconcile`: ledger = scheme book = engine = views."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from hub.settings import DatabaseSettings, read
from hub.terminal import AsJson, DataFolder, databases, explained, judge, use_stack

if TYPE_CHECKING:
    from operations_app.truth import Report

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415


def reconcile(
    *,
    since: Annotated[
        datetime | None, typer.Option(help="The first day or instant, in UTC; a day ago when not given.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="The first day or instant that no longer counts, in UTC; now.")
    ] = None,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Compare what ledger, scheme book, engine and views say of each payment; fail when any two differ."""
    from hub.errors import Unavailable

    use_stack(data_dir)
    end = _utc(until) if until else datetime.now(UTC)
    begin = _utc(since) if since else end - timedelta(days=1)
    with explained(Unavailable, as_json=as_json):
        databases()
        report = asyncio.run(check(begin, end))
    judge(report, sound=report.agree, as_json=as_json)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


async def check(since: datetime, until: datetime) -> Report:
    """The comparison on the servers of the settings: views where there are any, the ledger where it is ours."""
    from hub.statements import open_statements
    from ledger.settings import LedgerSettings
    from operations_app.truth import Truth
    from operations_app.views import open_views

    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(open_statements(read(DatabaseSettings).url, 2))
        ledger = views = None
        if os.environ.get("PAYHUB_AMS_BACKEND", "ledger") == "ledger":
            url = read(LedgerSettings).database_url
            ledger = await opened.enter_async_context(open_statements(url, 2, statement_timeout="60s"))
        if os.environ.get("PAYHUB_ELASTICSEARCH_URL"):
            views = await opened.enter_async_context(open_views())
        return await Truth(database, ledger, views).check(since, until)
