"""`payhub demo`: real payments through the real hub, watched to their end, and the proof that the books agree."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI, Request
from rich.console import Console, JustifyMethod
from rich.table import Table
from standardwebhooks import Webhook, WebhookVerificationError

from hub.api import build_app, serve
from hub.demo_stores import StoresDay, StoresFailed
from hub.local import LocalHub
from hub.money import Money
from hub.seed import SeedError, seed
from hub.stack.commands import bring_down, bring_up
from hub.stack.control import StackControl
from hub.stack.display import Display
from hub.stack.errors import NotRunning
from hub.stack.launcher import Wishes
from hub.stack.ports import choose_free
from hub.stack.state import StackState, load_state
from hub.telemetry import configure_logging
from hub.transfer import TransferState
from ledger.model import AccountKind
from ledger.verify import Report, verify

_FINAL: Final = frozenset({TransferState.COMMITTED, TransferState.ABORTED, TransferState.RETURNED})
_OUTAGE_SECONDS: Final = 6
_PATIENCE_SECONDS: Final = 120
_DEPOSIT: Final = "250.00"
_DEPOSIT_TO: Final = "646180157000000017"
"""Ana's CLABE in examples/seed.json."""


class DemoFailed(Exception):
    """The demonstration could not be made, or showed something it should not have."""


@dataclass
class Shown:
    """One line of the payments file and what became of it."""

    key: str
    shows: str
    tenant: str
    body: dict[str, Any]
    simulate: str
    event: str
    expected: tuple[str, str]
    payment_id: str = ""
    state: str = ""
    reason: str = ""
    effect: str = ""
    told: int = 0
    """Signed outcome callbacks that arrived and verified."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def as_expected(self) -> bool:
        return (self.state, self.reason) == self.expected


def read_payments(file: Path) -> list[Shown]:
    """The payments of a CSV file. Raises `DemoFailed` with the line that is wrong."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return [_shown(row, number) for number, row in enumerate(csv.DictReader(lines), start=2)]
    except OSError as error:
        raise DemoFailed(f"{file}: {error.strerror}; run it from the project's folder or name the file") from None
    except KeyError as error:
        raise DemoFailed(f"{file} has no column {error}") from None


def _shown(row: dict[str, str], number: int) -> Shown:
    if None in row.values():
        raise DemoFailed(f"line {number} of the payments has too few columns")
    body = {
        "payer": {"partyIdInfo": {"partyIdType": row["payer_type"], "partyIdentifier": row["payer"]}},
        "payee": {
            "partyIdInfo": {"partyIdType": row["payee_type"], "partyIdentifier": row["payee"]},
            "name": row["payee_name"],
        },
        "amount": {"amount": row["amount"], "currency": row["currency"]},
        "note": row["note"],
    }
    expected = (row["expected_state"], row["expected_reason"])
    return Shown(row["key"], row["shows"], row["tenant"], body, row["simulate"], row["event"], expected)


def run_demo(file: Path, seed_file: Path, folder: Path, *, leave: bool, free_ports: bool, as_json: bool) -> None:
    """Start the hub unless it runs, show the payments, prove the books, and stay until Ctrl-C unless told to leave.

    Raises `DemoFailed` when a payment ended otherwise than its line expects or a book does not agree.
    """
    payments = read_payments(file)
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=160)  # lines of a log, not of a screen
    ours = _start(folder, free_ports=free_ports, quiet=as_json)
    try:
        state = load_state(folder)
        if state is None:
            raise DemoFailed(f"{folder} holds no stack")
        demo = Demo(payments, seed_file, folder, state, console)
        demo.run()
        if as_json:
            print(json.dumps(demo.as_json()))
        demo.judge()
        if ours and not leave:
            console.print("The hub stays up until you press Ctrl-C.")
            with suppress(KeyboardInterrupt):
                signal.pause()
    except KeyboardInterrupt:
        raise DemoFailed("stopped before the end") from None
    finally:
        if ours:
            console.print("Stopping the hub.")
            bring_down(folder.resolve())


def _start(folder: Path, *, free_ports: bool, quiet: bool) -> bool:
    """Bring the hub up, bound to this process; False when one runs already on this folder."""
    try:
        running = StackControl(folder).status()
    except NotRunning:
        running = None
    if running is not None:
        if not running.healthy:
            raise DemoFailed("the running hub is not healthy; see `payhub status`")
        return False
    wishes = Wishes(folder, free_ports=free_ports, bound_to=os.getpid())
    bring_up(wishes, LocalHub(folder), Display(quiet=quiet), lambda _: None, detach=True)
    return True


class Demo:
    """One run of the payments against one running hub."""

    def __init__(
        self, payments: list[Shown], seed_file: Path, folder: Path, state: StackState, console: Console
    ) -> None:
        self._payments = payments
        self._seed_file = seed_file
        self._folder = folder
        self._state = state
        self._console = console
        self._urls = state.base_urls
        self._run = secrets.token_hex(3)
        self._issuer = LocalHub(folder).issuer()
        self._began = time.monotonic()
        self._report: Report | None = None
        self._books: tuple[int, int] = (0, 0)
        self._deposited = False

    def run(self) -> None:
        """Everything that is shown, in order."""
        configure_logging("demo", level="WARNING")
        try:
            asyncio.run(self._all())
        except* (DemoFailed, StoresFailed) as failed:
            raise DemoFailed("; ".join(str(one) for one in failed.exceptions)) from None
        self._console.print(self._table())
        for table in self._stores.tables():
            self._console.print(table)
        self._console.print(str(self._report))
        at_stp, here = self._books
        self._console.print(f"STP's book: {at_stp / 100:,.2f} MXN paid. Ours: {here / 100:,.2f} MXN over STP.")
        for name, url in self._urls.items():
            self._console.print(f"  {name:<14} {url}")

    async def _all(self) -> None:
        variables = self._state.variables()
        try:
            loaded = await seed(
                self._seed_file, variables["PAYHUB_DATABASE_URL"], variables["PAYHUB_LEDGER_DATABASE_URL"]
            )
        except SeedError as error:
            raise DemoFailed(str(error)) from None
        self._say("", f"{loaded.tenants} tenants with {loaded.accounts} accounts are in place")
        async with httpx.AsyncClient(timeout=15) as self._http:
            self._stores = StoresDay(self._http, self._urls, self._issuer, self._say, self._run)
            async with self._listening():
                await self._shown()
        self._report = await verify(variables["PAYHUB_LEDGER_DATABASE_URL"])

    async def _shown(self) -> None:
        """Payments and a deposit, then the stores, then what both sides' books say."""
        await self._instruct_simulator()
        async with asyncio.TaskGroup() as group:
            for shown in self._payments:
                group.create_task(self._live(shown))
                await asyncio.sleep(0.15)
        await self._deposit()
        await self._stores.live(f"http://127.0.0.1:{self._callback_port}/reports")
        for shown in self._payments:
            shown.effect = await self._effect(shown)
        self._books = await self._at_stp(), await self._over_stp()

    def _say(self, key: str, what: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:7.2f}s  {key:<12} {what}", highlight=False)

    # --- One payment's life

    def _headers(self, shown: Shown) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._issuer.mint('channel', shown.tenant)}",
            "Platform-TenantId": shown.tenant,
            "X-CorrelationID": f"demo-{self._run}-{shown.key}",
        }

    async def _live(self, shown: Shown) -> None:
        began = time.monotonic()
        headers = self._headers(shown)
        if shown.tenant == "acme":
            headers["X-CallbackURL"] = f"http://127.0.0.1:{self._callback_port}/outcomes"
        answer = await self._ask(shown, headers)
        shown.payment_id = str(answer.json()["transactionId"])
        self._say(shown.key, f"accepted as {shown.payment_id}")
        if shown.event == "twice":
            again = await self._ask(shown, headers)
            replayed = again.headers.get("Idempotent-Replayed") == "true"
            if again.json() != answer.json() or not replayed:
                raise DemoFailed(f"{shown.key}: the same request was not answered the same")
            self._say(shown.key, "sent again: the same answer, replayed")
        if shown.event == "outage":
            await self._outage(shown)
        await self._watch(shown)
        if shown.event == "late":
            await self._late_return(shown)
        shown.seconds = time.monotonic() - began

    async def _ask(self, shown: Shown, headers: dict[str, str]) -> httpx.Response:
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with suppress(httpx.TransportError):
                answer = await self._http.post(
                    f"{self._urls['channel']}/channel/transfer", json=shown.body, headers=headers
                )
                if answer.status_code == httpx.codes.ACCEPTED:
                    return answer
                if answer.is_client_error or time.monotonic() > end:
                    raise DemoFailed(f"{shown.key}: answered {answer.status_code}: {answer.text}")
            if time.monotonic() > end:
                raise DemoFailed(f"{shown.key}: the channel does not answer")
            await asyncio.sleep(0.5)

    async def _watch(self, shown: Shown) -> None:
        """Show each state until one that ends the payment and was not seen before."""
        seen, end = shown.state, time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                answer = await self._http.get(
                    f"{self._urls['channel']}/channel/transfer/{shown.payment_id}", headers=self._headers(shown)
                )
                answer.raise_for_status()
                found = answer.json()
                if found["transferState"] != shown.state:
                    shown.state, shown.reason = found["transferState"], found.get("reason") or ""
                    self._say(shown.key, f"{shown.state} {shown.reason.replace('none', '')}".rstrip())
                if shown.state in _FINAL and shown.state != seen:
                    return
            await asyncio.sleep(0.1)

    async def _late_return(self, shown: Shown) -> None:
        """What settled comes back: the payee's bank has no such account."""
        order = await self._order(shown)
        told = await self._http.post(
            f"{self._urls['stp_simulator']}/control/orders/{order['id']}/state", json={"estado": "D", "causa": 1}
        )
        told.raise_for_status()
        await self._watch(shown)

    async def _outage(self, shown: Shown) -> None:
        """Take the database away while STP settles the order, and bring it back."""
        if "postgres" in self._state.existing:
            self._say(shown.key, "the database is not ours: it stays up")
            return
        await self._order(shown)  # so that the outage falls between sending and booking
        control = StackControl(self._folder)
        self._say(shown.key, f"the ledger's database goes away for {_OUTAGE_SECONDS} s")
        await asyncio.to_thread(control.stop_part, "postgres")
        await asyncio.sleep(_OUTAGE_SECONDS)
        await asyncio.to_thread(control.start_part, "postgres")
        self._say(shown.key, "the ledger's database is back")

    async def _order(self, shown: Shown) -> dict[str, Any]:
        """Its order at STP, once it is there."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            for order in await self._orders():
                if order["conceptoPago"] == self._concept(shown):
                    return order
            await asyncio.sleep(0.1)
        raise DemoFailed(f"{shown.key}: the order did not reach STP")

    # --- The pretend STP

    def _concept(self, shown: Shown) -> str:
        return str(shown.body["note"])

    async def _instruct_simulator(self) -> None:
        """Tell the pretend STP what to do with each payment; this run's notes are marked so that old rules do not."""
        for shown in self._payments:
            shown.body["note"] = f"{shown.body['note']} {self._run}"
            if shown.simulate:
                rule = {"match": {"conceptoPago": self._concept(shown)}, "do": shown.simulate}
                told = await self._http.post(f"{self._urls['stp_simulator']}/control/rules", json=rule)
                if told.is_error:
                    raise DemoFailed(f"{shown.key}: the simulator does not know how to {shown.simulate!r}")

    async def _orders(self) -> list[dict[str, Any]]:
        answer = await self._http.get(f"{self._urls['stp_simulator']}/control/orders")
        found: list[dict[str, Any]] = answer.json()["orders"]
        return found

    async def _deposits(self) -> list[dict[str, Any]]:
        answer = await self._http.get(f"{self._urls['stp_simulator']}/control/deposits")
        found: list[dict[str, Any]] = answer.json()["deposits"]
        return found

    async def _at_stp(self) -> int:
        """Minor units that STP's book says left, less what came in."""
        left = sum(order["centavos"] for order in await self._orders() if order["estado"] == "LQ")
        came = sum(deposit["centavos"] for deposit in await self._deposits() if deposit["estado"] == "CCO")
        return int(left - came)

    async def _deposit(self) -> None:
        """Money comes in over STP for a customer of ours, and is told three times."""
        key = f"DEMO/{self._run}"
        arrived = {"claveRastreo": key, "monto": _DEPOSIT, "cuentaBeneficiario": _DEPOSIT_TO, "times": 3}
        told = await self._http.post(f"{self._urls['stp_simulator']}/control/deposits", json=arrived)
        told.raise_for_status()
        self._say("deposit", f"{_DEPOSIT} MXN come in for {_DEPOSIT_TO}")
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            found = next(deposit for deposit in await self._deposits() if deposit["claveRastreo"] == key)
            if found["estado"] != "R" and found["posts"] >= arrived["times"]:
                self._deposited = found["estado"] == "CCO"
                self._say("deposit", "credited once" if self._deposited else "sent back")
                return
            await asyncio.sleep(0.1)
        raise DemoFailed("deposit: STP was not answered")

    # --- Our book

    async def _ledger(self, tenant: str, path: str) -> dict[str, Any]:
        """What the book says; nothing when it does not know what is asked for. Raises `DemoFailed`."""
        token = self._issuer.mint("viewer", tenant)
        end = time.monotonic() + 20
        while True:
            answer = await self._http.get(f"{self._urls['ledger']}{path}", headers={"Authorization": f"Bearer {token}"})
            if answer.status_code == httpx.codes.NOT_FOUND:
                return {}
            if answer.status_code == httpx.codes.OK:
                found: dict[str, Any] = answer.json()
                return found
            # The database was away a moment ago: connections of that time break when they are used again.
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > end:
                raise DemoFailed(f"the ledger answered {answer.status_code} to {path}")
            await asyncio.sleep(0.5)

    async def _over_stp(self) -> int:
        """Minor units that all tenants' books say left over STP."""
        total = 0
        for tenant in sorted({shown.tenant for shown in self._payments}):
            found = await self._ledger(tenant, f"/ledger/accounts/{AccountKind.STP_SETTLEMENT}/balances")
            for one in found.get("balances", ()):  # a book that never paid over STP has no such account
                # Our money at STP: more goes out here than comes in, so the balance is below zero.
                amount = Money.parse(one["booked"].removeprefix("-"), one["currency"]).minor
                total += amount if one["booked"].startswith("-") else -amount
        return total

    async def _effect(self, shown: Shown) -> str:
        """What the book says the payment did to the payer."""
        answer = await self._ledger(shown.tenant, f"/ledger/payments/{shown.payment_id}/transactions")
        found = answer.get("transactions", ())  # what was refused before anything was booked, the book does not know
        paid = [
            Money.parse(posting["amount"], posting["currency"])
            for transaction in found
            for posting in transaction["postings"]
            if posting["debit"].startswith(f"{AccountKind.CUSTOMER_DEPOSIT}:")
        ]
        if any(transaction["kind"] == "reverse" for transaction in found):
            return "taken, then given back"
        if paid:
            return f"-{sum(paid[1:], paid[0])}, {len(paid)} postings"
        return " and ".join(transaction["kind"] for transaction in found) or "none"

    # --- Outcome callbacks

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """A channel's own endpoint, which verifies each callback's signature."""
        self._callback_port = choose_free({"callbacks": 0})["callbacks"]
        tenants = json.loads(self._seed_file.read_text())["tenants"]
        verifier = Webhook(next(tenant["callback_secret"] for tenant in tenants if tenant["id"] == "acme"))
        app: FastAPI = build_app("demo channel")

        @app.post("/outcomes", status_code=204)
        async def outcome(request: Request) -> None:
            try:
                told = verifier.verify(await request.body(), dict(request.headers))
            except WebhookVerificationError:
                self._say("callback", "with a WRONG signature")
                return
            for shown in self._payments:
                if shown.payment_id == told["transactionId"]:
                    shown.told += 1
                    self._say(shown.key, f"signed callback says {told['transferState']}")

        @app.post("/reports", status_code=204)
        async def report(request: Request) -> None:
            try:
                self._stores.heard(await request.body(), request.headers)
            except WebhookVerificationError:
                self._say("report", "with a WRONG signature")

        serving = asyncio.create_task(serve(app, "127.0.0.1", self._callback_port))
        try:
            yield
        finally:
            await asyncio.sleep(0.5)
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    # --- What is shown at the end

    def _table(self) -> Table:
        table = Table(title="What became of each payment", show_lines=False)
        for column in ("payment", "shows", "outcome", "ledger effect on the payer", "told", "seconds"):
            justify: JustifyMethod = "right" if column in {"told", "seconds"} else "left"
            table.add_column(column, justify=justify, no_wrap=column in {"payment", "outcome"})
        for shown in self._payments:
            outcome = f"{shown.state} {'' if shown.reason == 'none' else shown.reason}".rstrip()
            colour = "green" if shown.as_expected else "red"
            table.add_row(
                shown.payment_id,
                shown.shows,
                f"[{colour}]{outcome}",
                shown.effect,
                str(shown.told),
                f"{shown.seconds:.1f}",
            )
        return table

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        at_stp, here = self._books
        return {
            "payments": [
                {
                    "key": shown.key,
                    "transactionId": shown.payment_id,
                    "shows": shown.shows,
                    "state": shown.state,
                    "reason": shown.reason,
                    "expected": list(shown.expected),
                    "ledger_effect": shown.effect,
                    "seconds": round(shown.seconds, 2),
                }
                for shown in self._payments
            ],
            "stores": self._stores.as_json(),
            "ledger": self._report.as_json() if self._report else None,
            "deposit_credited": self._deposited,
            "stp_book": at_stp,
            "ledger_over_stp": here,
            "urls": dict(self._urls),
        }

    def judge(self) -> None:
        """Raises `DemoFailed` when something is not as it should be."""
        problems = [
            f"{shown.key} is {shown.state} ({shown.reason}), not {' '.join(shown.expected)}"
            for shown in self._payments
            if not shown.as_expected
        ]
        if self._report is None or not self._report.sound:
            problems.append(str(self._report))
        if not self._deposited:
            problems.append("the deposit was not credited")
        if self._books[0] != self._books[1]:
            problems.append(f"STP's book holds {self._books[0]}, the ledger {self._books[1]} minor units")
        problems += self._stores.problems()
        if problems:
            raise DemoFailed("; ".join(problems))
