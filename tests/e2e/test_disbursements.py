"""Stores that are paid by the real engine and the pretend STP: every way a transfer can end, in one run.

One run asks for all stores at once, and its worker is killed three times in the middle of it. Each test then looks at
one store.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import pytest_asyncio

from connectors.disbursement.model import StoreDue
from hub.money import Money
from hub.settings import EngineSettings
from hub.statements import Statements, open_statements
from hub.transfer import PaymentId, TenantId
from hub.trial import BBVA, TrialHub
from hub.zeebe.client import ZeebeEngine, open_engine
from ledger.disbursement.balances import Balances
from ledger.disbursement.model import BankTransfer, Frequency, TransferStatus, Trigger, VerdictCode
from ledger.disbursement.report import Reports
from ledger.disbursement.runs import Run, Runs, payment_of
from ledger.disbursement.transfers import Transfers
from ledger.disbursement.verify import verify as verify_stores
from ledger.verify import verify

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

TENANT: Final = TenantId("acme")
PROCESSES: Final = ("serve-stp-simulator", "serve-stp-callbacks", "work-stp", "work-disbursement")

AMOUNTS: Final = {
    "settles": 10_101, "refused": 10_202, "cancelled": 10_303, "returned": 10_404, "late-return": 10_505,
    "confirmed": 10_606, "declined": 10_707, "forgotten": 10_808, "silent": 10_909, "lost-answer": 11_010,
    "repeated": 11_111, "reordered": 11_212, "early": 11_313, "small": 5_000, "off": 11_414,
}  # fmt: skip
"""What is owed to the stores of the one run, in centavos: the pretend STP knows them by it."""

AT_STP: Final = {
    "refused": "refuse", "cancelled": "cancel", "returned": "return", "silent": "silent", "lost-answer": "lose-answer",
    "repeated": "repeat", "reordered": "reorder", "early": "callback-first",
}  # fmt: skip

MANUAL: Final = {"confirmed", "declined", "forgotten"}
MANY: Final = [f"x{number:03}" for number in range(150)]
"""Stores that just settle, so that the worker dies in the middle of a run."""
DEATHS: Final = 3


@dataclass
class Payer:
    """A lender whose stores are paid, and what it sees of it."""

    hub: TrialHub
    engine: ZeebeEngine
    statements: Statements
    run: Run | None = None
    killed_at: list[int] = field(default_factory=list)
    """How many transfers there were each time the worker was killed."""
    confirmation: asyncio.Task[BankTransfer] | None = None
    cancellation: asyncio.Task[BankTransfer] | None = None
    balances: Balances = field(init=False)
    transfers: Transfers = field(init=False)
    runs: Runs = field(init=False)

    def __post_init__(self) -> None:
        self.balances, self.transfers = Balances(self.statements), Transfers(self.statements)
        self.runs = Runs(self.statements)

    async def merchant(self, name: str, *, automation: bool = True) -> None:
        await self.statements.rows(
            "INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, automation, validated) "
            "VALUES (%(t)s, %(id)s, 'Muebles', 'MUE010101AAA', %(automation)s, true)",
            {"t": TENANT, "id": name, "automation": automation},
        )

    async def store(self, name: str, frequency: str = "DAILY", **more: Any) -> None:
        given = {"t": TENANT, "id": name, "merchant": "m1", "manual": False, "minimum": 0, "clabe": BBVA}
        given |= {"frequency": frequency, **more}
        await self.statements.rows(
            "WITH made AS (INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, "
            "minimum_amount, manual_confirmation, validated) VALUES (%(t)s, %(id)s, %(merchant)s, 'Centro', "
            "%(frequency)s, %(minimum)s, %(manual)s, true)) "
            "INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id, authenticated_at, "
            "authenticated_by) VALUES (%(t)s, %(id)s, %(clabe)s, 'Muebles SA', 'MUE010101AAA', now(), 'treasury')",
            given,
        )

    async def owe(self, store: str, centavos: int) -> None:
        await self.balances.adjust(
            TENANT, store, Money(centavos, "MXN"), operation=uuid.uuid4().hex, reason="opening", actor="treasury"
        )

    async def transfer(self, store: str, *statuses: str, within: float = 90) -> BankTransfer:
        """The store's only transfer, once it has one of these statuses."""
        end = time.monotonic() + within
        found: list[BankTransfer] = []
        while time.monotonic() < end:
            found = list(await self.transfers.search(TENANT, store=store))
            if [each.status.value for each in found if each.status.value in statuses]:
                [only] = found
                return only
            await asyncio.sleep(0.1)
        raise TimeoutError(f"the transfers of {store} are {[each.status.value for each in found]}")

    async def until(self, holds: Callable[[], Any], within: float = 90) -> None:
        end = time.monotonic() + within
        while not await holds():
            assert time.monotonic() < end, "it did not come about in time"
            await asyncio.sleep(0.1)

    async def history(self, transfer: BankTransfer) -> list[str]:
        return [record.status for record in await self.transfers.history(TENANT, transfer.id)]

    async def owed(self, store: str) -> tuple[int, int]:
        """The store's balance and how much of it is pending."""
        balance = await self.balances.balance(TENANT, store)
        return balance.balance.minor, balance.pending.minor

    async def reports(self, transfer: BankTransfer) -> list[str]:
        return [report.kind.value for report in await Reports(self.statements).find(TENANT, transfer.id)]

    async def order(self, centavos: int) -> dict[str, Any]:
        """The pretend STP's only order of this amount."""
        [found] = [each for each in await self.hub.simulated_orders() if each["monto"] == f"{centavos / 100:.2f}"]
        return found

    async def stp_says(self, centavos: int, estado: str, causa: int | None = None) -> None:
        """Its state changes, and STP tells."""
        order = (await self.order(centavos))["id"]
        url = f"{self.hub.urls['stp_simulator']}/control/orders/{order}/state"
        (await self.hub.http.post(url, json={"estado": estado, "causa": causa})).raise_for_status()


async def fill(payer: Payer) -> None:
    await payer.merchant("m1")
    await payer.merchant("m2", automation=False)
    for name, centavos in AMOUNTS.items():
        if name in AT_STP:
            await payer.hub.simulate({"monto": f"{centavos / 100:.2f}"}, AT_STP[name])
        merchant = "m2" if name == "off" else "m1"
        await payer.store(name, manual=name in MANUAL, minimum=5_000 if name == "small" else 0, merchant=merchant)
        await payer.owe(name, centavos)
    for name in MANY:
        await payer.store(name)
        await payer.owe(name, 20_000 + int(name[1:]))


async def kill_in_the_middle(payer: Payer) -> None:
    """SIGKILL to the worker, again and again, when some stores are paid and others are not yet asked for."""
    for _ in range(DEATHS):
        enough = 5 + max(payer.killed_at, default=0)  # each life gets something done
        while (made := len(await payer.transfers.search(TENANT, limit=1000))) < enough:
            await asyncio.sleep(0.02)
        payer.killed_at.append(made)
        payer.hub.kill("work-disbursement")


async def confirm(payer: Payer) -> BankTransfer:
    """A person confirms a transfer as soon as it waits, twice."""
    waiting = await payer.transfer("confirmed", "WAITING_FOR_CONFIRMATION", within=120)
    for _ in range(2):
        await payer.transfers.confirm(TENANT, waiting.id, "maria")
    return waiting


async def decline(payer: Payer) -> BankTransfer:
    """A person cancels a transfer as soon as it waits."""
    waiting = await payer.transfer("declined", "WAITING_FOR_CONFIRMATION", within=120)
    return await payer.transfers.cancel(TENANT, waiting.id, "maria", "the store closed")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def payer(
    tmp_path_factory: pytest.TempPathFactory, zeebe_address: str, new_database: Callable[[], str]
) -> AsyncIterator[Payer]:
    """One run for all stores, asked for by a person; its worker was killed several times."""
    settings = {
        "PAYHUB_STP_INQUIRE_AFTER": "1",
        "PAYHUB_STP_INQUIRE_AGAIN_AFTER": "3",
        "PAYHUB_DISBURSEMENT_PAGE": "50",
        "PAYHUB_DISBURSEMENT_CONFIRM_WITHIN": "15",
    }
    folder = tmp_path_factory.mktemp("hub")
    async with (
        TrialHub.open(folder, zeebe_address, new_database(), settings) as hub,
        open_engine(EngineSettings(address=zeebe_address)) as engine,
        open_statements(hub.environment["PAYHUB_LEDGER_DATABASE_URL"]) as statements,
    ):
        for name in PROCESSES:
            hub.start(name)
        await asyncio.gather(*(hub.ready(name) for name in PROCESSES))
        mine = Payer(hub, engine, statements)
        await fill(mine)
        async with asyncio.TaskGroup() as people:
            mine.confirmation = people.create_task(confirm(mine))
            mine.cancellation = people.create_task(decline(mine))
            mine.run = await mine.runs.request(TENANT, Frequency.DAILY, "maria")
            await kill_in_the_middle(mine)
            yield mine


# --- How a transfer can end -----------------------------------------------------------------------------------------


async def test_a_store_is_paid_and_its_merchant_told(payer: Payer):  # L24 L35 L56
    transfer = await payer.transfer("settles", "APPLIED")
    assert payer.run is not None
    assert transfer.id == payment_of(payer.run.id, "settles")
    assert (transfer.run_id, transfer.trigger) == (payer.run.id, Trigger.DAILY)
    assert await payer.history(transfer) == ["WAITING_FOR_CONFIRMATION", "IN_TRANSIT", "APPLIED"]
    assert await payer.owed("settles") == (0, 0)
    order = await payer.order(AMOUNTS["settles"])
    assert (order["cuentaBeneficiario"], order["estado"]) == (BBVA, "LQ")

    async def told() -> bool:
        return await payer.reports(transfer) == ["SETTLEMENT"]

    await payer.until(told)


@pytest.mark.parametrize(
    ("store", "status", "reason", "history"),
    [
        ("refused", "CANCELLED", "scheme-rejected", ["WAITING_FOR_CONFIRMATION", "CANCELLED"]),  # L44
        ("cancelled", "CANCELLED", "scheme-cancelled", ["WAITING_FOR_CONFIRMATION", "IN_TRANSIT", "CANCELLED"]),  # L36
        ("returned", "REJECTED", "account-unknown", ["WAITING_FOR_CONFIRMATION", "IN_TRANSIT", "REJECTED"]),  # L37
    ],
)
async def test_what_is_not_paid_is_pending_again_with_the_cause_kept(payer: Payer, store, status, reason, history):
    transfer = await payer.transfer(store, status)
    assert (transfer.reason, await payer.history(transfer)) == (reason, history)
    assert await payer.owed(store) == (AMOUNTS[store], AMOUNTS[store])
    assert await payer.reports(transfer) == []


async def test_what_comes_back_after_settlement_is_owed_again_and_corrected(payer: Payer):  # L38
    transfer = await payer.transfer("late-return", "APPLIED")
    await payer.stp_says(AMOUNTS["late-return"], "D", 3)
    transfer = await payer.transfer("late-return", "REJECTED")
    assert transfer.reason == "account-closed"
    assert await payer.owed("late-return") == (AMOUNTS["late-return"], AMOUNTS["late-return"])
    types = [update.type.value for update in await payer.balances.updates(TENANT, "late-return")]
    assert types == ["DISBURSEMENT_OVERRIDE", "DISBURSEMENT", "BALANCE_ADJUSTMENT"]

    async def told() -> bool:
        return await payer.reports(transfer) == ["SETTLEMENT", "CORRECTION"]

    await payer.until(told)


async def test_a_transfer_waits_for_a_person_and_is_sent_when_confirmed(payer: Payer):  # L23
    assert payer.confirmation is not None
    assert (await payer.confirmation).must_wait
    transfer = await payer.transfer("confirmed", "APPLIED")
    assert transfer.confirmed_by == "maria"


async def test_a_transfer_that_a_person_cancels_is_never_sent(payer: Payer):  # L21 L23
    assert payer.cancellation is not None
    assert (await payer.cancellation).reason_detail == "the store closed"
    assert await payer.owed("declined") == (AMOUNTS["declined"], AMOUNTS["declined"])
    with pytest.raises(ValueError, match="not enough values"):
        await payer.order(AMOUNTS["declined"])


async def test_a_transfer_that_nobody_confirms_in_time_is_cancelled(payer: Payer):  # L23 H3
    transfer = await payer.transfer("forgotten", "CANCELLED")
    assert transfer.reason_detail == "nobody confirmed it in time"
    assert await payer.owed("forgotten") == (AMOUNTS["forgotten"], AMOUNTS["forgotten"])


async def test_an_order_of_which_nothing_is_heard_keeps_its_updates_until_stp_tells(payer: Payer):  # H3
    await payer.transfer("silent", "IN_TRANSIT")
    assert await payer.owed("silent") == (AMOUNTS["silent"], 0)
    await payer.stp_says(AMOUNTS["silent"], "LQ")
    await payer.transfer("silent", "APPLIED")


@pytest.mark.parametrize("store", ["lost-answer", "repeated", "early"])
async def test_an_answer_that_is_lost_and_callbacks_that_repeat_or_come_early_pay_once(payer: Payer, store):  # L41 H4
    await payer.transfer(store, "APPLIED")
    assert (await payer.order(AMOUNTS[store]))["estado"] == "LQ"
    assert await payer.owed(store) == (0, 0)


async def test_a_return_that_is_told_before_the_settlement_stays_a_return(payer: Payer):  # L22 L41
    await payer.transfer("reordered", "REJECTED")
    assert await payer.owed("reordered") == (AMOUNTS["reordered"], AMOUNTS["reordered"])


# --- The run --------------------------------------------------------------------------------------------------------


async def test_a_run_whose_worker_was_killed_goes_on_and_pays_nothing_twice(payer: Payer):  # L31
    run = payer.run
    assert run is not None
    assert max(payer.killed_at) < len(MANY) + len(AMOUNTS) - 2, "the run was over when the worker was killed"
    assert payer.hub.deaths("work-disbursement") >= DEATHS

    async def closed() -> bool:
        found = await payer.runs.find(TENANT, run.id)
        return found is not None and found.closed_at is not None

    await payer.until(closed, within=150)

    async def paid() -> bool:
        applied = await payer.transfers.search(TENANT, run_id=run.id, status=TransferStatus.APPLIED, limit=1000)
        return set(MANY) <= {each.store for each in applied}

    await payer.until(paid, within=150)
    made = Counter(each.store for each in await payer.transfers.search(TENANT, run_id=run.id, limit=1000))
    assert made == Counter({name: 1 for name in [*MANY, *AMOUNTS] if name not in {"small", "off"}})
    found = {each.verdict.store: each.verdict.code for each in await payer.runs.stores(TENANT, run.id)}
    skipped = {"small": VerdictCode.BELOW_MINIMUM, "off": VerdictCode.AUTOMATION_OFF}
    assert {name: found[name] for name in [*MANY, *AMOUNTS]} == dict.fromkeys(
        [*MANY, *AMOUNTS], VerdictCode.PAY
    ) | skipped


@pytest.mark.parametrize("store", ["small", "off"])
async def test_a_store_that_is_not_to_be_paid_is_skipped_and_keeps_what_it_is_owed(payer: Payer, store):  # L28 L30
    assert await payer.transfers.search(TENANT, store=store) == []
    assert await payer.owed(store) == (AMOUNTS[store], AMOUNTS[store])


async def test_two_firings_at_once_make_one_transfer(payer: Payer):  # L31
    await payer.store("twice", "HOURLY")
    await payer.owe("twice", 30_001)
    firings = [
        StoreDue(payment_id=PaymentId(str(uuid.uuid4())), tenant_id=TENANT, store_id="twice", trigger=Trigger.HOURLY)
        for _ in range(6)
    ]
    await asyncio.gather(*(payer.engine.publish(firing) for firing in [*firings, *firings]))
    transfer = await payer.transfer("twice", "APPLIED")
    assert transfer.id in {firing.payment_id for firing in firings}
    await payer.order(30_001)


async def test_an_instant_store_is_paid_on_its_new_update(payer: Payer):  # L26
    await payer.store("instant", "INSTANT")
    await payer.owe("instant", 30_002)
    transfer = await payer.transfer("instant", "APPLIED")
    assert (transfer.trigger, transfer.run_id) == (Trigger.INSTANT, None)
    await payer.owe("instant", -500)
    await payer.owe("instant", 200)
    await payer.owe("instant", 1_003)

    async def paid_again() -> bool:
        return await payer.owed("instant") == (0, 0)

    await payer.until(paid_again)  # L29: below zero nothing is paid until later updates bring it up


async def test_in_the_end_what_stp_paid_is_what_was_applied(payer: Payer):  # L35
    transfers = await payer.transfers.search(TENANT, limit=1000)
    applied = sorted(each.amount.decimal() for each in transfers if each.status.value == "APPLIED")
    orders = await payer.hub.simulated_orders()
    assert sorted(str(order["monto"]) for order in orders if order["estado"] == "LQ") == applied
    assert max(Counter(order["claveRastreo"] for order in orders).values()) == 1
    for audit in (verify, verify_stores):
        report = await audit(payer.hub.environment["PAYHUB_LEDGER_DATABASE_URL"])
        assert report.sound, str(report)
