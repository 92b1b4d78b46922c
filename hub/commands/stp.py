"""`payhub stp`: the rail, by hand."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.terminal import AsJson, DataFolder, explained, fail, say, use_stack

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

stp_app = typer.Typer(no_args_is_help=True, help="The STP rail.")
accounts_app = typer.Typer(no_args_is_help=True, help="The accounts of customers at STP.")
stp_app.add_typer(accounts_app, name="accounts")


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
        fail("name the key with --key or PAYHUB_STP_PRIVATE_KEY_FILE", as_json=False)
    with explained(OrderFileError, BadKey):
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
        fail(f"--kind must be one of {', '.join(KINDS)}", as_json=as_json)
    use_stack(data_dir)
    with explained(AccountFileError, StpConfigurationError, Unavailable, Uncertain, as_json=as_json):
        told = asyncio.run(what(read_account_file(file, kind), tenant))
    listed = [each.as_json() for each in told]
    if not all(each.done for each in told):
        fail("\n".join(str(each) for each in told), as_json=as_json, accounts=listed)
    say({"accounts": listed}, "\n".join(str(each) for each in told), as_json=as_json)


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
    from operations_app.by_hand import open_journal, written_down

    _quietly()
    use_stack(data_dir)
    kinds = (BadMoney, LookupError, GivenBackAlready, StpConfigurationError, Rejected, Unavailable, Uncertain)
    with explained(*kinds, as_json=as_json):
        try:
            came_in = date.fromisoformat(day)
        except ValueError:
            fail("--date must be a date like 2026-11-18", as_json=as_json)
        job = ReturnDeposit(
            payment_id=PaymentId(payment_id),
            tenant_id=TenantId(tenant),
            amount=Money.parse(amount, "MXN").minor,
            currency="MXN",
            sender_institution=sender,
            deposit_tracking_key=key,
            operation_date=came_in,
        )

        async def give_back() -> str:
            target = f"transfer:{payment_id}"
            async with (
                open_journal() as journal,
                written_down(journal, "deposit.return", target, tenant_id=tenant, payment_id=payment_id),
            ):
                return await return_deposit(job)

        back = asyncio.run(give_back())
    say({"payment_id": payment_id, "return_tracking_key": back}, f"It goes back as {back}.", as_json=as_json)


@stp_app.command("balance")
def stp_balance(
    *,
    tenant: OfTenant,
    day: Annotated[str | None, typer.Option("--date", help="At the end of this date; now when unset.")] = None,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Ask STP what is on the tenant's account there. STP answers a limited number of questions an hour."""
    from connectors.stp.by_hand import account_balance
    from connectors.stp.model import StpConfigurationError
    from hub.errors import Unavailable
    from hub.transfer import TenantId

    _quietly()
    use_stack(data_dir)
    wanted = None if day is None else _date(day, as_json=as_json)
    with explained(StpConfigurationError, Unavailable, as_json=as_json):
        found = asyncio.run(account_balance(TenantId(tenant), wanted))
    answer = {"balance": f"{found.balance:.2f}", "pending": f"{found.pending:.2f}", "currency": "MXN"}
    say(answer, f"{found.balance:.2f} MXN, of which {found.pending:.2f} are being sent.", as_json=as_json)


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
    with explained(Unavailable, ValueError, as_json=as_json):
        found = asyncio.run(look(result, before, limit))
    text = "\n".join(str(one) for one in found) or "Nothing waits for a person."
    say({"callbacks": [one.as_json() for one in found]}, text, as_json=as_json)


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
    with explained(StpConfigurationError, Unavailable, as_json=as_json):
        done = asyncio.run(reconcile_now(wanted, tenant))
    breaks = [one for company in done for one in company.open_breaks]
    if breaks:
        fail("\n".join(str(one) for one in breaks), as_json=as_json, breaks=[one.as_json() for one in breaks])
    counted = [{"company": one.company, "orders": one.orders, "deposits": one.deposits} for one in done]
    text = "\n".join(f"{one.company} {wanted}: {one.orders} orders and {one.deposits} deposits agree." for one in done)
    say({"operation_date": wanted.isoformat(), "companies": counted, "breaks": []}, text, as_json=as_json)


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
    with explained(Unavailable, as_json=as_json):
        found = asyncio.run(filed_breaks(wanted, tenant, healed=healed))
    text = "\n".join(str(one) for one in found) or "No break is open."
    say({"breaks": [one.as_json() for one in found]}, text, as_json=as_json)
    if any(one.closed_at is None for one in found):
        raise typer.Exit(1)


def _date(text: str, *, as_json: bool) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail("--date must be a date like 2026-11-18", as_json=as_json)
