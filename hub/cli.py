"""`payhub`: the composition root, the one module that knows everybody.

Exit code 0 means success and nothing else. With `--json` a command prints one JSON object on standard output, errors
too. Commands that talk to a running hub take what they need from `PAYHUB_*` settings, else from the data folder of
`payhub up`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hub.connector import OpenService
from hub.settings import DatabaseSettings, EngineSettings, SettingsError, read

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A payment hub: payment flows drawn in BPMN, run by Zeebe, carried out by workers.",
)
bpmn_app = typer.Typer(no_args_is_help=True, help="The drawings.")
stp_app = typer.Typer(no_args_is_help=True, help="The STP rail.")
ledger_app = typer.Typer(no_args_is_help=True, help="The book.")
payment_app = typer.Typer(no_args_is_help=True, help="What an operator can tell a payment.")
accounts_app = typer.Typer(no_args_is_help=True, help="The accounts of customers at STP.")
stp_app.add_typer(accounts_app, name="accounts")
for name, group in {"bpmn": bpmn_app, "stp": stp_app, "ledger": ledger_app, "payment": payment_app}.items():
    app.add_typer(group, name=name)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
LogsAsJson = Annotated[
    bool, typer.Option("--json", help="Errors and log lines as JSON on a terminal too; elsewhere log lines always are.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data folder of `payhub up` [env PAYHUB_DATA_DIR; default: .payhub]."),
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]


def _say(answer: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    print(json.dumps(answer) if as_json else text)


def _fail(problem: str, *, as_json: bool, **more: Any) -> NoReturn:
    if as_json:
        print(json.dumps({"error": problem, **more}))
    else:
        print(f"payhub: {problem}", file=sys.stderr)
    raise typer.Exit(1)


@contextmanager
def _explained(*kinds: type[Exception], as_json: bool = False) -> Iterator[None]:
    """Turn the errors that a person can mend into one sentence and exit code 1."""
    understood: tuple[type[Exception], ...] = (SettingsError, *kinds)
    try:
        yield
    except understood as error:
        _fail(str(error.args[0]) if isinstance(error, KeyError) else str(error), as_json=as_json)


def use_stack(data_dir: Path | None) -> None:
    """Let this process find the stack of a data folder; what the environment already says wins."""
    from hub.stack.state import default_data_folder, load_state

    state = load_state(data_dir or default_data_folder())
    if state is not None:
        for variable, value in state.variables().items():
            os.environ.setdefault(variable, value)


def _databases() -> tuple[str, str]:
    from ledger.settings import LedgerSettings

    try:
        return read(DatabaseSettings).url, read(LedgerSettings).database_url
    except SettingsError as error:
        hint = "start a hub with `payhub up`, name its folder with --data-dir, or set the variable"
        raise SettingsError(f"{error}; {hint}") from None


def _stack_commands() -> None:
    from hub.stack.commands import add_stack_commands

    def local_hub(data_folder: Path) -> Any:
        from hub.local import LocalHub

        return LocalHub(data_folder)

    add_stack_commands(app, local_hub)


@app.command()
def work(
    connector: Annotated[str, typer.Argument(help="channel, ams or stp")],
    *,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the health page and the metrics; 0: any free one.")] = 0,
    as_json: LogsAsJson = False,
) -> None:
    """Do the jobs of one connector until told to stop."""
    from connectors.registry import by_name
    from hub import process

    with _explained(KeyError, as_json=as_json):
        found = by_name(connector)
        process.run(f"work-{connector}", process.work(found, host, port), as_json=as_json)


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help="channel, stp-callbacks, ledger, stp-simulator or fineract-simulator")],
    *,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on; 0: any free one.")] = 0,
    as_json: LogsAsJson = False,
) -> None:
    """Serve one HTTP service until told to stop."""
    from connectors import registry
    from hub import process

    opened: OpenService
    if service == "ledger":
        from ledger.service import open_ledger_service

        opened = open_ledger_service
    elif service in registry.SERVICES:
        opened = registry.by_name(registry.SERVICES[service]).services[service]
    else:
        _fail(f"there is no service {service!r}; there are ledger, {', '.join(registry.SERVICES)}", as_json=as_json)
    with _explained(as_json=as_json):
        process.run(f"serve-{service}", process.provide(service, opened, host, port), as_json=as_json)


@app.command()
def export(
    view: Annotated[str, typer.Argument(help="audit or operations")],
    *,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the health page and the metrics; 0: any free one.")] = 0,
    as_json: LogsAsJson = False,
) -> None:
    """Keep one view in Elasticsearch up to date with the engine until told to stop. Several may run at once."""
    from exporters.service import exporter
    from exporters.views import VIEWS
    from hub import process

    if view not in VIEWS:
        _fail(f"there is no view {view}; there are {', '.join(VIEWS)}", as_json=as_json)
    with _explained(as_json=as_json):
        process.run(f"export-{view}", process.provide(view, exporter(VIEWS[view]), host, port), as_json=as_json)


@app.command()
def rebuild(
    views: Annotated[list[str] | None, typer.Argument(help="audit, operations; both when none is named.")] = None,
    *,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Delete the indexes that were replaced.")] = False,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make the views again from Kafka, switch to them, and fail when they differ from those that were in use."""
    from elastic_transport import TransportError
    from elasticsearch import ApiError
    from kafka.errors import KafkaError

    from exporters.rebuild import rebuild as make_again
    from exporters.views import VIEWS

    chosen = views or list(VIEWS)
    if unknown := [name for name in chosen if name not in VIEWS]:
        _fail(f"there is no view {', '.join(unknown)}; there are {', '.join(VIEWS)}", as_json=as_json)
    use_stack(data_dir)
    with _explained(KafkaError, TransportError, ApiError, as_json=as_json):
        made = [make_again(VIEWS[name], drop_old=drop_old) for name in chosen]
    equal = all(one.equal for one in made)
    answer = {"equal": equal, "views": [one.as_json() for one in made]}
    _say(answer, "\n".join(str(one) for one in made), as_json=as_json)
    if not equal:
        raise typer.Exit(1)


@app.command()
def deploy(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Bring the tables to their newest form and give the drawings to the engine, unless a job has no worker."""
    from hub.errors import Unavailable
    from hub.local import NotServed, migrate_all
    from hub.local import deploy as give

    use_stack(data_dir)
    with _explained(NotServed, Unavailable, as_json=as_json):
        migrate_all(*_databases())
        deployed = asyncio.run(give(read(EngineSettings)))
    names = [f"{one.id} v{one.version}" for one in (*deployed.processes, *deployed.decisions)]
    _say({"deployed": names}, "Deployed " + ", ".join(names) + ".", as_json=as_json)


@bpmn_app.command("check")
def bpmn_check(*, as_json: AsJson = False) -> None:
    """Compare what is drawn with what is coded, both ways."""
    import bpmn
    from hub.local import differences

    found = [str(finding) for finding in differences()]
    if found:
        _fail("\n".join(found), as_json=as_json, findings=found)
    drawings = sorted(bpmn.resources())
    _say({"findings": [], "drawings": drawings}, f"{', '.join(drawings)}: drawn as coded.", as_json=as_json)


@app.command()
def seed(
    file: Annotated[Path, typer.Argument(help="JSON as described in docs/seed.md")],
    *,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Load tenants, fees, accounts and allow-lists. Repeating it changes nothing."""
    from hub.errors import Unavailable
    from hub.seed import SeedError
    from hub.seed import seed as load

    use_stack(data_dir)
    with _explained(SeedError, Unavailable, as_json=as_json):
        loaded = asyncio.run(load(file, *_databases()))
    answer = {"tenants": loaded.tenants, "accounts": loaded.accounts}
    _say(answer, f"{loaded.tenants} tenants with {loaded.accounts} accounts are in place.", as_json=as_json)


@app.command()
def token(
    *,
    role: Annotated[list[str], typer.Option(help="channel, viewer, operator, ...; may be repeated")],
    tenant: Annotated[str, typer.Option(help="The tenant the caller acts for.")],
    subject: Annotated[str, typer.Option(help="Who the caller is.")] = "local",
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long it is valid.")] = 60,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Print a token of the local issuer, which the local hub believes."""
    from hub.stack.state import default_data_folder, load_state
    from hub.tokens import LocalIssuer

    folder = data_dir or default_data_folder()
    if load_state(folder) is None:
        _fail(f"there is no stack in {folder}; start one with `payhub up`, or name it with --data-dir", as_json=as_json)
    with _explained(PermissionError, TypeError, as_json=as_json):
        minted = LocalIssuer.open(folder / "issuer").mint(role, tenant, subject, timedelta(minutes=minutes))
    _say({"token": minted, "expires_in": minutes * 60}, minted, as_json=as_json)


@payment_app.command("decide")
def payment_decide(
    payment_id: Annotated[str, typer.Argument(help="The transactionId.")],
    *,
    outcome: Annotated[str, typer.Option(help="SETTLED, REJECTED, RETURNED or CANCELLED")],
    note: Annotated[str, typer.Option(help="Why, for those who read it later.")],
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Settle a payment that waits for an operator because nobody else can tell its outcome."""
    from pydantic import ValidationError

    from hub.errors import Unavailable
    from hub.operator import OutcomeDecided
    from hub.zeebe.client import open_engine

    use_stack(data_dir)
    try:
        decided = OutcomeDecided.model_validate({"payment_id": payment_id, "outcome": outcome, "reason_detail": note})
    except ValidationError:
        _fail("--outcome must be one of SETTLED, REJECTED, RETURNED, CANCELLED", as_json=as_json)

    async def publish() -> str:
        async with open_engine(read(EngineSettings)) as engine:
            return await engine.publish(decided)

    with _explained(Unavailable, as_json=as_json):
        published = asyncio.run(publish())
    _say({"payment_id": payment_id, "published": published}, f"The engine knows ({published}).", as_json=as_json)


@stp_app.command("sign")
def stp_sign(
    file: Annotated[Path, typer.Argument(help="An order as JSON, with STP's own field names.")],
    *,
    key: Annotated[Path | None, typer.Option(help="PEM of the private key [env PAYHUB_STP_PRIVATE_KEY_FILE].")] = None,
    as_json: AsJson = True,  # noqa: ARG001 -- always JSON; the flag is taken so that every command takes it
) -> None:
    """Print the joined string and the signature of an order, as JSON."""
    from connectors.stp.seal import OrderFileError, sign_file
    from connectors.stp.signature import BadKey

    chosen = key or os.environ.get("PAYHUB_STP_PRIVATE_KEY_FILE")
    if not chosen:
        _fail("name the key with --key or PAYHUB_STP_PRIVATE_KEY_FILE", as_json=False)
    with _explained(OrderFileError, BadKey):
        signed = sign_file(file, Path(chosen), os.environ.get("PAYHUB_STP_PRIVATE_KEY_PASSPHRASE"))
    print(json.dumps(signed, ensure_ascii=False))


def _quietly() -> None:
    """Let the parts that a worker is made of log warnings only, and on standard error."""
    from hub.telemetry import configure_logging

    configure_logging("payhub", "WARNING")


AccountFile = Annotated[Path, typer.Argument(help="JSON: one account or a list, with STP's own field names.")]
AccountKind = Annotated[str, typer.Option(help="fisica (persons) or moral (companies)")]
OfTenant = Annotated[str, typer.Option(help="The tenant whose company at STP it is.")]


@accounts_app.command("register")
def stp_accounts_register(
    file: AccountFile,
    *,
    tenant: OfTenant,
    kind: AccountKind = "fisica",
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Register accounts of customers at STP, a hundred at once. Repeating it changes nothing."""
    from connectors.stp.by_hand import register_accounts

    _stp_accounts(register_accounts, file, tenant, kind, data_dir, as_json=as_json)


@accounts_app.command("remove")
def stp_accounts_remove(
    file: AccountFile,
    *,
    tenant: OfTenant,
    kind: AccountKind = "fisica",
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove accounts of customers at STP."""
    from connectors.stp.by_hand import remove_accounts

    _stp_accounts(remove_accounts, file, tenant, kind, data_dir, as_json=as_json)


def _stp_accounts(what: Any, file: Path, tenant: str, kind: str, data_dir: Path | None, *, as_json: bool) -> None:
    from connectors.stp.account_registry import KINDS, AccountFileError
    from connectors.stp.by_hand import read_account_file
    from connectors.stp.model import StpConfigurationError
    from hub.errors import Unavailable, Uncertain

    _quietly()
    if kind not in KINDS:
        _fail(f"--kind must be one of {', '.join(KINDS)}", as_json=as_json)
    use_stack(data_dir)
    with _explained(AccountFileError, StpConfigurationError, Unavailable, Uncertain, as_json=as_json):
        told = asyncio.run(what(read_account_file(file, kind), tenant))
    listed = [each.as_json() for each in told]
    if not all(each.done for each in told):
        _fail("\n".join(str(each) for each in told), as_json=as_json, accounts=listed)
    _say({"accounts": listed}, "\n".join(str(each) for each in told), as_json=as_json)


@stp_app.command("return")
def stp_return(
    payment_id: Annotated[str, typer.Argument(help="The deposit's id with us.")],
    *,
    tenant: OfTenant,
    amount: Annotated[str, typer.Option(help="What came in, as 12.50 (MXN).")],
    sender: Annotated[int, typer.Option(help="The sending institution's number, as 40012.")],
    key: Annotated[str, typer.Option(help="The deposit's tracking key.")],
    day: Annotated[str, typer.Option("--date", help="The deposit's operation date, as 2026-11-18.")],
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give an incoming transfer back to its sender. Repeating it looks first and gives it back once."""
    from datetime import date

    from connectors.stp.by_hand import return_deposit
    from connectors.stp.model import GivenBackAlready, ReturnDeposit, StpConfigurationError
    from hub.errors import Rejected, Unavailable, Uncertain
    from hub.money import BadMoney, Money
    from hub.transfer import PaymentId, TenantId

    _quietly()
    use_stack(data_dir)
    kinds = (BadMoney, LookupError, GivenBackAlready, StpConfigurationError, Rejected, Unavailable, Uncertain)
    with _explained(*kinds, as_json=as_json):
        try:
            came_in = date.fromisoformat(day)
        except ValueError:
            _fail("--date must be a date like 2026-11-18", as_json=as_json)
        job = ReturnDeposit(
            payment_id=PaymentId(payment_id),
            tenant_id=TenantId(tenant),
            amount=Money.parse(amount, "MXN").minor,
            currency="MXN",
            sender_institution=sender,
            deposit_tracking_key=key,
            operation_date=came_in,
        )
        back = asyncio.run(return_deposit(job))
    _say({"payment_id": payment_id, "return_tracking_key": back}, f"It goes back as {back}.", as_json=as_json)


OperationDate = Annotated[str | None, typer.Option("--date", help="An operation date, as 2026-11-18.")]


@stp_app.command("inbox")
def stp_inbox(
    *,
    result: Annotated[
        str | None, typer.Option(help="conflict, unknown-order, unknown-status, malformed or failed; all when unset.")
    ] = None,
    before: Annotated[int | None, typer.Option(help="Read on below this number.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what STP posted and a person must look at, newest first."""
    from connectors.stp.inbox import look
    from hub.errors import Unavailable

    use_stack(data_dir)
    with _explained(Unavailable, ValueError, as_json=as_json):
        found = asyncio.run(look(result, before, limit))
    text = "\n".join(str(one) for one in found) or "Nothing waits for a person."
    _say({"callbacks": [one.as_json() for one in found]}, text, as_json=as_json)


@stp_app.command("reconcile")
def stp_reconcile(
    *,
    day: Annotated[str, typer.Option("--date", help="The operation date, as 2026-11-18.")],
    tenant: Annotated[str | None, typer.Option(help="Only the company that carries this tenant's orders.")] = None,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Compare ledger, orders and STP for one operation date. Fails while breaks are open; repeating it is safe."""
    from connectors.stp.model import StpConfigurationError
    from connectors.stp.reconciliation_wiring import reconcile_now
    from hub.errors import Unavailable
    from hub.telemetry import configure_logging

    configure_logging("stp-reconcile", level="WARNING")
    use_stack(data_dir)
    wanted = _date(day, as_json=as_json)
    with _explained(StpConfigurationError, Unavailable, as_json=as_json):
        done = asyncio.run(reconcile_now(wanted, tenant))
    breaks = [one for company in done for one in company.open_breaks]
    if breaks:
        _fail("\n".join(str(one) for one in breaks), as_json=as_json, breaks=[one.as_json() for one in breaks])
    counted = [{"company": one.company, "orders": one.orders, "deposits": one.deposits} for one in done]
    text = "\n".join(f"{one.company} {wanted}: {one.orders} orders and {one.deposits} deposits agree." for one in done)
    _say({"operation_date": wanted.isoformat(), "companies": counted, "breaks": []}, text, as_json=as_json)


@stp_app.command("breaks")
def stp_breaks(
    *,
    day: OperationDate = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's, and those of which nobody knows whose.")
    ] = None,
    healed: Annotated[bool, typer.Option("--all", help="Also those that were closed because they healed.")] = False,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List the breaks that reconciliation filed. Fails while some are open."""
    from connectors.stp.reconciliation_wiring import filed_breaks
    from hub.errors import Unavailable

    use_stack(data_dir)
    wanted = None if day is None else _date(day, as_json=as_json)
    with _explained(Unavailable, as_json=as_json):
        found = asyncio.run(filed_breaks(wanted, tenant, healed=healed))
    text = "\n".join(str(one) for one in found) or "No break is open."
    _say({"breaks": [one.as_json() for one in found]}, text, as_json=as_json)
    if any(one.closed_at is None for one in found):
        raise typer.Exit(1)


def _date(text: str, *, as_json: bool) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        _fail("--date must be a date like 2026-11-18", as_json=as_json)


@ledger_app.command("verify")
def ledger_verify(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Recompute the book from its postings; name the first row that does not agree."""
    from hub.errors import Unavailable
    from ledger.verify import verify

    use_stack(data_dir)
    with _explained(Unavailable, as_json=as_json):
        report = asyncio.run(verify(_databases()[1]))
    if not report.sound:
        _fail(str(report), as_json=as_json, report=report.as_json())
    _say(report.as_json(), str(report), as_json=as_json)


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
        _fail("--write needs a --reason", as_json=as_json)
    with _explained(NotRebuilt, Unavailable, as_json=as_json):
        made = asyncio.run(rebuild(_databases()[1], write=write, reason=reason))
    if not made.equal and not made.written:
        _fail(str(made), as_json=as_json, rebuilt=made.as_json())
    _say(made.as_json(), str(made), as_json=as_json)


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
    with _explained(CannotExport, Unavailable, OSError, as_json=as_json):
        rows = asyncio.run(
            export_to_file(_databases()[1], book, (since, until), file, form=form, account=account, currency=currency)
        )
    _say({"rows": rows, "file": str(file)}, f"{rows} rows are in {file}.", as_json=as_json)


@app.command()
def demo(
    *,
    file: Annotated[Path, typer.Option(help="The payments to send.")] = Path("examples/payments.csv"),
    seed_file: Annotated[Path, typer.Option("--seed", help="The tenants and accounts.")] = Path("examples/seed.json"),
    leave: Annotated[bool, typer.Option("--exit", help="Leave when the payments are done.")] = False,
    data_dir: DataFolder = None,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Replace every port that is taken.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the hub, send the payments of a file through it and watch each one to its end."""
    from hub.demo import DemoFailed, run_demo
    from hub.stack.errors import StackError
    from hub.stack.state import default_data_folder

    folder = data_dir or default_data_folder()
    with _explained(DemoFailed, StackError, as_json=as_json):
        run_demo(file, seed_file, folder, leave=leave, free_ports=free_ports, as_json=as_json)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="end-to-end, accept, worker, ledger, hot-account, orders, streamer; or all."),
    ] = None,
    *,
    rounds: Annotated[int, typer.Option(min=1, help="end-to-end: how often the two sides alternate.")] = 3,
    payments: Annotated[int, typer.Option(min=20, help="end-to-end: payments per round and side.")] = 400,
    as_json: AsJson = False,
) -> None:
    """Measure speed as ratios in one run: the hub against the same drawings with no-op workers, and its parts."""
    from benchmarks.run import END_TO_END, NAMES, run

    chosen = names or [END_TO_END]
    chosen = list(NAMES) if chosen == ["all"] else chosen
    if unknown := [name for name in chosen if name not in NAMES]:
        _fail(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)} and all", as_json=as_json)
    raise typer.Exit(run(chosen, rounds=rounds, payments=payments, as_json=as_json))


def main() -> None:
    """The console script."""
    if sys.argv[1:2] not in (["work"], ["serve"], ["export"]):
        _stack_commands()
    app()


if __name__ == "__main__":
    main()
