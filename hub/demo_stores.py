"""A day of three stores, shown by `payhub demo`: what they earn, how they are paid, and what comes back.

Everything goes through the public surface: the API of disbursements, and the control routes of the pretend STP. A run
of all daily stores is asked for three times, as operators may; the schedule is moved out of the way so that none comes
by itself in between.

    centro   is paid, and after 90 days its bank sends the money back: owed again, paid by the third run
    norte    is paid; then a credit is cancelled and it owes us: the second run leaves it out, a later sale brings it up
    sur      pays only what a person confirms: cancelled by STP, then returned, then paid
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
from rich.table import Table
from standardwebhooks import Webhook

from hub.tokens import LocalIssuer

TENANT: Final = "acme"
TAX_ID: Final = "MCE010101AB1"
_PATIENCE_SECONDS: Final = 90
_LATE: Final = timedelta(days=90)
_PERSON: Final = "teresa"
"""Who confirms, validates and asks for runs in the demonstration."""


class StoresFailed(Exception):
    """The day of the stores could not be shown, or showed something it should not have."""


@dataclass
class StoreShown:
    """One store, and what it is expected to have come to."""

    word: str
    name: str
    clabe: str
    manual: bool
    expected_transfers: tuple[str, ...]
    """Statuses, oldest first."""
    expected_reports: tuple[str, ...]
    id: str = ""
    balance: str = ""
    updates: list[dict[str, Any]] = field(default_factory=list)
    """Oldest first."""
    transfers: list[dict[str, Any]] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    """What was told of its transfers and verified, in order."""


def _stores() -> tuple[StoreShown, StoreShown, StoreShown]:
    settled, correction = "disbursement.settlement", "disbursement.correction"
    return (
        StoreShown(
            *("centro", "Muebles Centro", "012180001183597198", False),
            expected_transfers=("REJECTED", "APPLIED"),
            expected_reports=(settled, correction, settled),
        ),
        StoreShown(
            *("norte", "Muebles Norte", "072691004495711499", False),
            expected_transfers=("APPLIED", "APPLIED"),
            expected_reports=(settled, settled),
        ),
        StoreShown(
            *("sur", "Muebles Sur", "014180567890123452", True),
            expected_transfers=("CANCELLED", "REJECTED", "APPLIED"),
            expected_reports=(settled,),
        ),
    )


class StoresDay:
    """The three stores of a merchant, new in each run of the demonstration."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        urls: Mapping[str, str],
        issuer: LocalIssuer,
        say: Callable[[str, str], None],
        run: str,
    ) -> None:
        self._http, self._urls, self._issuer, self._say, self._run = http, urls, issuer, say, run
        self.stores = _stores()
        self._merchant = f"muebles-{run}"
        self._secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        for store in self.stores:
            store.id = f"{store.word}-{run}"

    async def live(self, reports_url: str) -> None:
        """The whole day. `reports_url`: where the merchant listens. Raises `StoresFailed`."""
        await self._found(reports_url)
        centro, norte, sur = self.stores
        await self._deliver(centro, "1", "1200.00")
        await self._deliver(centro, "2", "800.00")
        cancelled = await self._deliver(norte, "1", "300.00")
        sale = await self._deliver(sur, "1", "1650.00")
        await self._daily_run(centro="PAY", norte="PAY", sur="PAY")
        await self._becomes(centro, 1, "APPLIED")
        await self._becomes(norte, 1, "APPLIED")
        await self._confirm(sur, 1, sale, "CANCELLED", simulate="cancel")

        booked = await self._post(f"/credits/{cancelled}/cancellation", "operator", {"reason": "goods sent back"})
        self._say("norte", f"a delivered purchase is cancelled: the balance is {booked['newBalance']}")
        await self._daily_run(centro="NOTHING_PENDING", norte="NEGATIVE_TOTAL", sur="PAY")
        await self._confirm(sur, 2, sale, "REJECTED", simulate="return")

        await self._late_return(centro)
        await self._deliver(norte, "2", "1000.00")
        await self._daily_run(centro="PAY", norte="PAY", sur="PAY")
        await self._becomes(centro, 2, "APPLIED")
        await self._becomes(norte, 2, "APPLIED")
        await self._confirm(sur, 3, sale, "APPLIED")
        await self._until("the merchant is told", self._all_told)
        for store in self.stores:
            await self._look(store)

    def heard(self, body: bytes, headers: Mapping[str, str]) -> None:
        """A report arrived at the merchant's address. Raises `WebhookVerificationError` when its signature is wrong."""
        told = Webhook(self._secret).verify(body, dict(headers))
        for store in self.stores:
            if store.id == told["store"]["id"]:
                store.reports.append(told["type"])
                lines = len(told["lines"])
                self._say(store.word, f"signed report: {told['type']} of {told['amount']} MXN, {lines} lines")

    # --- The steps

    async def _found(self, reports_url: str) -> None:
        """A merchant with three stores, validated the long way (L51, L52), accounts authenticated (L55)."""
        await self._put("/schedules/DAILY", "treasury", {"cron": _far_from_now(), "timeZone": "UTC"})
        merchant = {"id": self._merchant, "name": "Muebles del Centro", "taxId": TAX_ID, "partner": self._merchant}
        await self._post("/merchants", "operator", merchant)
        address = {"url": reports_url, "secret": self._secret, "allowList": ["http://127.0.0.1:*/"]}
        await self._put(f"/merchants/{self._merchant}/report-address", "treasury", address)
        for store in self.stores:
            await self._add(store)
        await self._post(f"/merchants/{self._merchant}/validation", "treasury")
        self._say("stores", f"merchant {self._merchant} with {len(self.stores)} validated stores")

    async def _add(self, store: StoreShown) -> None:
        account = {"clabe": store.clabe, "holderName": "Muebles del Centro SA", "taxId": TAX_ID}
        body = {"id": store.id, "merchantId": self._merchant, "name": store.name, "frequency": "DAILY"}
        added = await self._post(
            "/stores", "operator", {**body, "manualConfirmation": store.manual, "bankAccount": account}
        )
        account_id = added["bankAccount"]["id"]
        await self._post(f"/stores/{store.id}/bank-accounts/{account_id}/authentication", "operator")
        now = datetime.now(UTC)
        option = {
            "id": f"{store.id}-6",
            "storeId": store.id,
            "code": "6MSI",
            "type": "INTEREST_FREE",
            "active": True,
            "payments": 6,
            "startsAt": (now - timedelta(days=1)).isoformat(),
            "endsAt": (now + timedelta(days=365)).isoformat(),
            "priority": 1,
            "minAmount": "100.00",
            "maxAmount": "20000.00",
            "merchantCommission": "5.00",
        }
        await self._post("/options", "operator", option)
        await self._post(f"/options/{store.id}-6/validation", "treasury")
        await self._post(f"/stores/{store.id}/validation", "treasury")

    async def _deliver(self, store: StoreShown, number: str, amount: str) -> str:
        """A credit is signed, and the partner tells that its purchase was delivered."""
        credit = f"{store.id}-{number}"
        body = {"id": credit, "storeId": store.id, "amount": amount, "payments": 6}
        signed = await self._post("/credits", "operator", body)
        delivery = {"creditId": credit, "deliveredAt": datetime.now(UTC).isoformat()}
        booked = await self._post("/deliveries", "partner", delivery)
        self._say(
            store.word,
            f"delivered: {amount} less {signed['commission']} commission, the balance is {booked['newBalance']}",
        )
        return credit

    async def _daily_run(self, **expected: str) -> None:
        """Ask for a run of all daily stores and wait until it has looked at ours."""
        run = (await self._post("/runs", "operator", {"frequency": "DAILY"}))["id"]

        async def closed() -> bool:
            return (await self._get(f"/runs/{run}"))["closedAt"] is not None

        await self._until("the run closes", closed)
        found = {one["storeId"]: one["verdict"] for one in (await self._get(f"/runs/{run}/stores?limit=500"))["stores"]}
        for store in self.stores:
            verdict = found.get(store.id)
            self._say(store.word, f"daily run: {verdict}")
            if verdict != expected[store.word]:
                raise StoresFailed(f"{store.word}: the run found {verdict}, not {expected[store.word]}")

    async def _confirm(
        self, store: StoreShown, number: int, credit: str, status: str, simulate: str | None = None
    ) -> None:
        """A person lets the waiting transfer go, and STP does with it what it was told to."""
        waiting = await self._becomes(store, number, "WAITING_FOR_CONFIRMATION")
        if simulate:
            rule = {"match": {"monto": waiting["amount"], "cuentaBeneficiario": store.clabe}, "do": simulate, "uses": 1}
            await self._simulator("rules", rule)
        await self._post(f"/transfers/{waiting['id']}/confirmation", "treasury")
        self._say(store.word, f"{_PERSON} confirms the transfer of {waiting['amount']} MXN")
        ended = await self._becomes(store, number, status)
        if ended["status"] != "APPLIED":
            again = (await self._get(f"/credits/{credit}/updates"))["updates"][0]["status"]
            self._say(store.word, f"STP: {ended['reason']}; its update is {again} again")

    async def _late_return(self, store: StoreShown) -> None:
        """Ninety days later the payee's bank sends the money back (L38)."""
        transfer = (await self._transfers(store))[-1]
        found = [
            order
            for order in await self._orders()
            if (order["cuentaBeneficiario"], order["monto"]) == (store.clabe, transfer["amount"])
            and order["estado"] == "LQ"
        ]
        if not found:
            raise StoresFailed(f"{store.word}: STP has no settled order of {transfer['amount']}")
        await self._simulator("clock", {"advance_seconds": _LATE.total_seconds()})
        self._say("stp", f"{_LATE.days} days pass at STP; the bank of {store.word} sends the money back")
        await self._simulator(f"orders/{max(order['id'] for order in found)}/state", {"estado": "D", "causa": 3})
        returned = await self._becomes(store, 1, "REJECTED")
        await self._simulator("clock", {"advance_seconds": -_LATE.total_seconds()})
        balance = (await self._get(f"/stores/{store.id}/balance"))["balance"]
        self._say(store.word, f"returned after it settled ({returned['reason']}): {balance} MXN are owed again")

    async def _becomes(self, store: StoreShown, number: int, status: str) -> dict[str, Any]:
        """The store's first, second ... transfer, once it has this status."""
        found: dict[str, Any] = {}

        async def arrived() -> bool:
            nonlocal found
            transfers = await self._transfers(store)
            found = transfers[number - 1] if len(transfers) >= number else {}
            return found.get("status") == status

        await self._until(f"transfer {number} of {store.word} is {status}", arrived)
        self._say(store.word, f"transfer of {found['amount']} MXN: {status}")
        return found

    async def _transfers(self, store: StoreShown) -> list[dict[str, Any]]:
        """Oldest first."""
        found: list[dict[str, Any]] = (await self._get(f"/transfers?store={store.id}"))["transfers"]
        return found[::-1]

    async def _all_told(self) -> bool:
        return all(len(store.reports) >= len(store.expected_reports) for store in self.stores)

    async def _look(self, store: StoreShown) -> None:
        store.balance = (await self._get(f"/stores/{store.id}/balance"))["balance"]
        store.updates = (await self._get(f"/stores/{store.id}/updates"))["updates"][::-1]
        store.transfers = await self._transfers(store)

    # --- What is shown at the end

    def tables(self) -> list[Table]:
        """Each store's statement."""
        return [_statement(store) for store in self.stores]

    def as_json(self) -> list[dict[str, Any]]:
        """The same for machines."""
        return [
            {
                "store": store.word,
                "balance": store.balance,
                "updates": [[one["type"], one["effect"], one["newBalance"], one["status"]] for one in store.updates],
                "transfers": [[one["status"], one["amount"]] for one in store.transfers],
                "reports": store.reports,
            }
            for store in self.stores
        ]

    def problems(self) -> list[str]:
        """What is not as it should be."""
        found = []
        for store in self.stores:
            statuses = tuple(one["status"] for one in store.transfers)
            if statuses != store.expected_transfers:
                found.append(f"the transfers of {store.word} are {statuses}, not {store.expected_transfers}")
            if sorted(store.reports) != sorted(store.expected_reports):
                found.append(f"the merchant was told {store.reports} of {store.word}, not {store.expected_reports}")
            if store.balance != "0.00":
                found.append(f"{store.word} is still owed {store.balance}")
        return found

    # --- Asking

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._ask("GET", path, "treasury")

    async def _post(self, path: str, role: str, body: object = None) -> dict[str, Any]:
        return await self._ask("POST", path, role, body)

    async def _put(self, path: str, role: str, body: object) -> dict[str, Any]:
        return await self._ask("PUT", path, role, body)

    async def _ask(self, method: str, path: str, role: str, body: object = None) -> dict[str, Any]:
        subject = self._merchant if role == "partner" else _PERSON
        headers = {"Authorization": f"Bearer {self._issuer.mint(role, TENANT, subject)}"}
        if method == "POST":
            headers["Idempotency-Key"] = f"demo-{self._run}-{secrets.token_hex(6)}"
        answer = await self._http.request(method, f"{self._urls['disbursement']}{path}", json=body, headers=headers)
        if answer.is_error:
            raise StoresFailed(f"{method} {path}: answered {answer.status_code}: {answer.text}")
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    async def _simulator(self, control: str, body: object) -> None:
        (await self._http.post(f"{self._urls['stp_simulator']}/control/{control}", json=body)).raise_for_status()

    async def _orders(self) -> list[dict[str, Any]]:
        answer = await self._http.get(f"{self._urls['stp_simulator']}/control/orders")
        found: list[dict[str, Any]] = answer.json()["orders"]
        return found

    async def _until(self, what: str, holds: Callable[[], Any]) -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        while not await holds():
            if time.monotonic() > end:
                raise StoresFailed(f"it did not come about that {what}")
            await asyncio.sleep(0.1)


def _far_from_now() -> str:
    """A daily cron line that does not fire within the next hours."""
    return f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"


def _statement(store: StoreShown) -> Table:
    """A store's balance, update by update, and the transfers that paid it."""
    paid = ", ".join(f"{one['amount']} {one['status'].lower()}" for one in store.transfers)
    table = Table(title=f"{store.name} is owed {store.balance} MXN. Transfers: {paid}")
    table.add_column("no.", justify="right")
    table.add_column("what", no_wrap=True)
    table.add_column("credit or transfer")
    for column in ("effect", "balance"):
        table.add_column(column, justify="right")
    table.add_column("status")
    for one in store.updates:
        about = one["creditId"] or one["transferId"] or one["reason"]
        flag = " (undone)" if one["overwritten"] else ""
        what = one["type"].replace("_", " ").lower() + flag
        table.add_row(str(one["sequence"]), what, about, one["effect"], one["newBalance"], one["status"].lower())
    return table
