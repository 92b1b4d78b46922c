"""`payhub disburse`: runs, files of stores and credits, the month's commissions, and the proof of all balances."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.terminal import AsJson, DataFolder, databases, explained, fail, judge, say, use_stack

if TYPE_CHECKING:
    from hub.statements import Statements
    from ledger.disbursement.importing import Imported, Importer
    from ledger.disbursement.model import Frequency, Verdict

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

disburse_app = typer.Typer(no_args_is_help=True, help="What stores are owed, and their transfers.")
import_app = typer.Typer(
    no_args_is_help=True, help="Bring stores or credits in from a CSV file (docs/disbursements.md)."
)
disburse_app.add_typer(import_app, name="import")

OneTenant = Annotated[str | None, typer.Option(help="Only this tenant; all of them when not said.")]
OfTenant = Annotated[str, typer.Option(help="The tenant.")]
CsvFile = Annotated[Path, typer.Argument(help="CSV in UTF-8 with the names of the columns in its first line.")]


@disburse_app.command("run")
def run(
    *,
    frequency: Annotated[str, typer.Option(help="instant, hourly, daily, weekly or monthly")],
    tenant: OneTenant = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask for nothing; say what would become of each store.")
    ] = False,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a run now, whatever the schedule says; or explain, store by store, what a run would find."""
    from hub.errors import Unavailable
    from ledger.disbursement.model import Frequency

    use_stack(data_dir)
    if frequency.upper() not in Frequency.__members__:
        fail(f"--frequency must be one of {', '.join(Frequency).lower()}", as_json=as_json)
    wanted = Frequency(frequency.upper())
    with explained(Unavailable, as_json=as_json):
        found: list[Any] = asyncio.run(_explained_run(wanted, tenant) if dry_run else _requested_run(wanted, tenant))
    if not found:
        whose = f"tenant {tenant} has" if tenant else "there are"
        fail(f"{whose} no stores that are paid {wanted.lower()}", as_json=as_json)
    if dry_run:
        _tell_verdicts(found, as_json=as_json)
    else:
        told = [{"tenant": owner, "run": run_id} for owner, run_id in found]
        text = "\n".join(f"{owner}: run {run_id} is asked for." for owner, run_id in found)
        say({"runs": told}, text, as_json=as_json)


async def _explained_run(frequency: Frequency, tenant: str | None) -> list[tuple[str, Verdict]]:
    from ledger.disbursement.eligibility import Eligibility

    found: list[tuple[str, Verdict]] = []
    async with _database() as statements:
        eligibility = Eligibility(statements)
        for owner in await _tenants(statements, frequency, tenant):
            after = None
            while page := await eligibility.explain(owner, frequency=frequency, after=after):
                found += [(owner, verdict) for verdict in page]
                after = page[-1].store
    return found


async def _requested_run(frequency: Frequency, tenant: str | None) -> list[tuple[str, str]]:
    from ledger.disbursement.runs import Runs

    async with _database() as statements:
        runs = Runs(statements)
        owners = await _tenants(statements, frequency, tenant)
        return [(owner, (await runs.request(owner, frequency, _who())).id) for owner in owners]


def _tell_verdicts(found: list[Any], *, as_json: bool) -> None:
    from ledger.disbursement.explanations import explanation

    stores = [
        {
            "tenant": owner,
            "store": verdict.store,
            "merchant": verdict.merchant,
            "verdict": verdict.code.value,
            "explanation": explanation(verdict),
            "updates": verdict.updates,
            "total": verdict.total.decimal(),
            "minimum": verdict.minimum.decimal(),
        }
        for owner, verdict in found
    ]
    paid = [verdict.total for _, verdict in found if verdict.pays]
    total = sum(paid[1:], paid[0]).decimal() if paid else "0.00"
    lines = [f"{one['tenant']} {one['store']}: {one['verdict']}: {one['explanation']}" for one in stores]
    lines.append(f"{len(paid)} of {len(stores)} stores would be paid {total} MXN in all; nothing was asked for.")
    say({"stores": stores, "would_be_paid": len(paid), "total": total}, "\n".join(lines), as_json=as_json)


@import_app.command("stores")
def import_stores(file: CsvFile, *, tenant: OfTenant, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Add stores with their bank accounts, all or none. The same file again changes nothing."""
    _import("stores", file, tenant, data_dir, as_json=as_json)


@import_app.command("credits")
def import_credits(file: CsvFile, *, tenant: OfTenant, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Add signed credits, each with the commission of its option, all or none. Again: nothing changes."""
    _import("credits", file, tenant, data_dir, as_json=as_json)


def _import(what: str, file: Path, tenant: str, data_dir: Path | None, *, as_json: bool) -> None:
    from hub.errors import Unavailable
    from ledger.disbursement.importing import NotImported, read_file

    use_stack(data_dir)
    with explained(Unavailable, OSError, as_json=as_json):
        try:
            done = asyncio.run(_imported(what, read_file(file), tenant))
        except NotImported as refused:
            faults = [{"line": one.line, "column": one.column, "remedy": one.remedy} for one in refused.faults]
            problem = f"{file}: nothing was imported\n{refused}"
            fail(problem, as_json=as_json, faults=faults, more=refused.more)
    text = f"{done.added} {what} were added, {done.same} were there already."
    say({"added": done.added, "same": done.same}, text, as_json=as_json)


async def _imported(what: str, content: bytes, tenant: str) -> Imported:
    from ledger.disbursement.importing import Importer

    async with _database() as statements:
        importer: Importer = Importer(statements)
        bring = importer.stores if what == "stores" else importer.credits
        return await bring(tenant, content, actor=_who(), progress=_progress)


def _progress(done: int, of: int) -> None:
    """On a terminal, how far it is; elsewhere nothing, since only the end counts."""
    if sys.stderr.isatty():
        print(f"\r{done} of {of} rows", end="\n" if done == of else "", file=sys.stderr, flush=True)


@disburse_app.command("verify")
def disburse_verify(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Recompute all store balances from what was written; name the first row that does not agree."""
    from hub.errors import Unavailable
    from ledger.disbursement.verify import verify

    use_stack(data_dir)
    with explained(Unavailable, as_json=as_json):
        report = asyncio.run(verify(databases()[1]))
    judge(report, sound=report.sound, as_json=as_json)


@disburse_app.command("recalculate")
def recalculate(
    *,
    month: Annotated[str, typer.Option(help="The month whose rates these are to be, as 2026-03.")],
    tenant: OneTenant = None,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give the options with auto-update their rates for a month, from the month before. Again: nothing changes."""
    from datetime import date

    from hub.errors import Unavailable

    use_stack(data_dir)
    try:
        first = date.fromisoformat(f"{month}-01")
    except ValueError:
        fail("--month must be a month like 2026-03", as_json=as_json)
    with explained(Unavailable, as_json=as_json):
        found = asyncio.run(_recalculated(first, tenant))
    told = [{"tenant": owner, **done.as_json()} for owner, done in found]
    text = "\n".join(f"{owner}: {done}" for owner, done in found) or "No option has auto-update."
    say({"recalculated": told}, text, as_json=as_json)


async def _recalculated(month: Any, tenant: str | None) -> list[tuple[str, Any]]:
    from ledger.disbursement.pricing import Commissions

    async with _database() as statements:
        commissions = Commissions(statements)
        owners = [tenant] if tenant else await commissions.tenants()
        return [(owner, await commissions.recalculate(owner, month, actor=_who())) for owner in owners]


@asynccontextmanager
async def _database() -> AsyncIterator[Statements]:
    """The ledger's database with the rights that the hub's processes have."""
    from hub.settings import read
    from hub.statements import open_statements
    from ledger.settings import LedgerSettings

    url = databases()[1]
    async with open_statements(url, 1, role=read(LedgerSettings).role) as statements:
        yield statements


async def _tenants(statements: Statements, frequency: Frequency, tenant: str | None) -> list[str]:
    rows = await statements.rows(
        "SELECT DISTINCT tenant_id FROM disbursement.store WHERE frequency = %(frequency)s "
        "AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) ORDER BY tenant_id",
        {"frequency": frequency, "tenant": tenant},
    )
    return [row[0] for row in rows]


def _who() -> str:
    return f"cli:{getpass.getuser()}"
