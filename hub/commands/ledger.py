"""`payhub ledger`: the book, proved, made again and taken out."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hub.terminal import AsJson, DataFolder, databases, explained, fail, judge, say, use_stack

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

ledger_app = typer.Typer(no_args_is_help=True, help="The book.")


@ledger_app.command("verify")
def ledger_verify(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Recompute the book from its postings; name the first row that does not agree."""
    from hub.errors import Unavailable
    from ledger.verify import verify

    use_stack(data_dir)
    with explained(Unavailable, as_json=as_json):
        report = asyncio.run(verify(databases()[1]))
    judge(report, sound=report.sound, as_json=as_json)


@ledger_app.command("rebuild")
def ledger_rebuild(
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Replace balances that differ, provided that the postings are sound.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why they are replaced; kept with each of them.")] = "",
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make every balance again from postings and holds, and compare; they must be equal."""
    from hub.errors import Unavailable
    from ledger.rebuild import NotRebuilt, rebuild

    use_stack(data_dir)
    if write and not reason:
        fail("--write needs a --reason", as_json=as_json)
    with explained(NotRebuilt, Unavailable, as_json=as_json):
        made = asyncio.run(rebuild(databases()[1], write=write, reason=reason))
    if not made.equal and not made.written:
        fail(str(made), as_json=as_json, rebuilt=made.as_json())
    say(made.as_json(), str(made), as_json=as_json)


@ledger_app.command("export")
def ledger_export(
    file: Annotated[Path, typer.Argument(help="Where to; it appears when it is complete.")],
    *,
    book: Annotated[str, typer.Option(help="The tenant.")],
    since: Annotated[datetime, typer.Option("--from", help="The first day or instant, in UTC.")],
    until: Annotated[datetime, typer.Option("--to", help="The first day or instant that no longer counts, in UTC.")],
    form: Annotated[str, typer.Option("--format", help="csv or parquet")] = "csv",
    account: Annotated[str | None, typer.Option(help="One account's entries, as in customer-deposit:A-17.")] = None,
    currency: Annotated[str | None, typer.Option(help="The account's currency.")] = None,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write what was booked within a span of time to a file: a book's postings, or one account's entries."""
    from hub.errors import Unavailable
    from ledger.export import CannotExport, export_to_file

    use_stack(data_dir)
    with explained(CannotExport, Unavailable, OSError, as_json=as_json):
        rows = asyncio.run(
            export_to_file(databases()[1], book, (since, until), file, form=form, account=account, currency=currency)
        )
    say({"rows": rows, "file": str(file)}, f"{rows} rows are in {file}.", as_json=as_json)
