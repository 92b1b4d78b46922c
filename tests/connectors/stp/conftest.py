"""A whole STP rail for each test: worker, callbacks and pretend STP over real HTTP, PostgreSQL, and a clock to move."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.ams.ledger_backend import LedgerBackend
from connectors.stp.api import build_callbacks_app
from connectors.stp.callbacks import Callbacks
from connectors.stp.client import StpHttp, open_stp
from connectors.stp.connector import profiles
from connectors.stp.deposit_store import DepositStore
from connectors.stp.deposits import Deposits
from connectors.stp.dispatch import Dispatch, Rules
from connectors.stp.fake import Simulator, build_simulator_app
from connectors.stp.model import InquireOrder, OrderReturnedLate, OrderStatusChanged, SendOrder
from connectors.stp.orders import OrderStore, StoredOrder
from connectors.stp.settings import StpCallbackSettings, StpSettings, StpSimulatorSettings
from connectors.stp.signature import generate_key_pair
from connectors.stp.tracking import TrackingKey, tracking_key
from connectors.stp.worker import StpWorker, Timers
from hub.api import serve
from hub.database import open_database
from hub.messages import Message, Published
from hub.migrations import migrate
from hub.money import Money
from hub.statements import open_statements
from hub.testing import FakeEngine
from hub.transfer import IdentifierType, Party, PaymentId, TenantId
from ledger.seed import Seed, seed
from ledger.settlements import Settlements

COMPANY = "TAMIZI"
PAYER_ACCOUNT = "646180110400000007"
PAYEE_ACCOUNT = "072691004495711499"
SECRET = "a-secret-for-callbacks-in-tests"
TENANT = TenantId("greenbank")
WEDNESDAY_TEN = datetime(2026, 11, 18, 16, 0, tzinfo=UTC)
"""Ten in the morning in Mexico City, on a banking day."""


class Clock:
    """A clock that runs like the real one from a moment that tests choose."""

    def __init__(self, moment: datetime = WEDNESDAY_TEN) -> None:
        self.set(moment)

    def set(self, moment: datetime) -> None:
        self._moment, self._since = moment, time.monotonic()

    def advance(self, by: timedelta) -> None:
        self.set(self() + by)

    def __call__(self) -> datetime:
        return self._moment + timedelta(seconds=time.monotonic() - self._since)


class SlowEngine(FakeEngine):
    """The kit's engine, which may take its time."""

    slow_by = 0.0
    heard: Callable[[Message], None] | None = None
    """Called with each message that is new."""

    async def publish(self, message: Message) -> Published:
        await asyncio.sleep(self.slow_by)
        published = await super().publish(message)
        if self.heard is not None and published is Published.NEW:
            self.heard(message)
        return published

    def told(self, payment_id: str) -> list[OrderStatusChanged]:
        """What was published about one payment, each message once."""
        return [message for message in self.published(OrderStatusChanged) if message.payment_id == payment_id]

    def late(self, payment_id: str) -> list[OrderReturnedLate]:
        """The returns after settlement that were published about one payment, each message once."""
        return [message for message in self.published(OrderReturnedLate) if message.payment_id == payment_id]


@dataclass
class Rail:
    """All the parts, and the few questions that tests ask."""

    settings: StpSettings
    database: AsyncEngine
    orders: OrderStore
    stp: StpHttp
    dispatch: Dispatch
    worker: StpWorker
    callbacks: Callbacks
    engine: SlowEngine
    simulator: Simulator
    clock: Clock
    http: httpx.AsyncClient
    callback_url: str
    simulator_url: str
    callback_settings: StpCallbackSettings
    deposits: Deposits

    def job(self, amount: int = 125_000, **changes: Any) -> SendOrder:
        given: dict[str, Any] = {
            "payment_id": PaymentId(str(uuid.uuid4())),
            "tenant_id": TENANT,
            "amount": amount,
            "currency": "MXN",
            "payer": Party(id_type=IdentifierType.CLABE, identifier="646180110400000010", name="José Ñandú"),
            "payee": Party(id_type=IdentifierType.CLABE, identifier=PAYEE_ACCOUNT, name="Ricardo Sánchez"),
            "concept": "Prueba",
            "reference_number": 5273144,
        }
        return SendOrder(**{**given, **changes})

    @staticmethod
    def ask(job: SendOrder, inquiries: int = 0) -> InquireOrder:
        return InquireOrder(payment_id=job.payment_id, tenant_id=job.tenant_id, inquiries=inquiries)

    @staticmethod
    def key(job: SendOrder) -> TrackingKey:
        return tracking_key(job.payment_id)

    async def order(self, job: SendOrder) -> StoredOrder:
        found = await self.orders.find(job.payment_id)
        assert found is not None
        return found

    def at_stp(self, job: SendOrder) -> list[Any]:
        """What the pretend STP's book has under this payment's key."""
        return self.simulator.book.orders(self.key(job))

    def sends(self, job: SendOrder) -> int:
        return self.simulator.book.attempts_of(self.key(job))

    async def rule(self, job: SendOrder, do: Any, **more: Any) -> None:
        """Tell the pretend STP over its control API what shall happen to this payment's order."""
        rule = {"match": {"claveRastreo": self.key(job)}, "do": do, **more}
        answer = await self.http.post(f"{self.simulator_url}/control/rules", json=rule)
        assert answer.status_code == 200, answer.text

    async def post_status(self, body: Any, secret: str | None = SECRET) -> httpx.Response:
        headers = {} if secret is None else {"X-STP-Secret": secret}
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self.http.post(self.callback_url, headers=headers, **content)

    @property
    def database_url(self) -> str:
        return self.database.url.render_as_string(hide_password=False)

    async def rows(self, query: str, **given: Any) -> Sequence[Any]:
        async with self.database.connect() as connection:
            return (await connection.execute(text(query), given)).all()

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)
        self.simulator.clock_offset += by.total_seconds()

    def set_clocks(self, moment: datetime) -> None:
        self.clock.set(moment)
        self.simulator.clock_offset = moment.timestamp() - time.time()


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return generate_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def migrated_url(database_url: str) -> str:
    migrate("connectors.stp.migrations", database_url)
    return database_url


@asynccontextmanager
async def served(app: ASGIApp, listening: socket.socket) -> AsyncIterator[None]:
    """The application on a real port."""
    serving = asyncio.ensure_future(serve(app, "127.0.0.1", 0, listening=listening))
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def by_path(callbacks: ASGIApp, simulator: ASGIApp) -> ASGIApp:
    """Both applications behind one port, which starts and stops in half the time of two."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] != "http" or scope["path"].startswith(("/stp/", "/health/"))
        await (callbacks if ours else simulator)(scope, receive, send)

    return app


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rules() -> Rules:
    """Attempts are over at once, so that a test need not wait to send again."""
    return Rules(resend=True, in_flight_at_most=timedelta(0), rollover_guard=timedelta(minutes=5))


@pytest.fixture
def dialect() -> str:
    return "C"


@pytest.fixture
async def rail(
    migrated_url: str, key_files: tuple[Path, Path], tmp_path: Path, clock: Clock, rules: Rules, dialect: str
) -> AsyncIterator[Rail]:
    private, public = key_files
    engine = SlowEngine()
    listening = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    secret = SecretStr(SECRET)
    # On a busy machine the time allowed in production passes, and what is then left to the sweep would fail tests.
    callback_settings = StpCallbackSettings(callback_secret=secret, publish_within=10)
    simulated = StpSimulatorSettings(
        company=COMPANY,
        payer_account=PAYER_ACCOUNT,
        public_key_file=public,
        book_file=tmp_path / "book.sqlite",
        callback_url=f"{base}/stp/order-status",
        callback_secret=secret,
        dialect=dialect,
        repeat_every=0.05,
    )
    settings = StpSettings(
        base_url=base,
        company=COMPANY,
        payer_account=PAYER_ACCOUNT,
        private_key_file=private,
        connect_timeout=2,
        read_timeout=1,
        consult_timeout=2,
    )
    async with (
        open_database(migrated_url) as database,
        open_statements(migrated_url) as statements,
        httpx.AsyncClient(timeout=20) as http,
        open_stp(settings) as stp,
        Simulator.open(simulated) as simulator,
    ):
        simulator.clock_offset = clock().timestamp() - time.time()
        orders, known = OrderStore(statements), profiles(settings)
        callbacks = Callbacks(orders, engine, clock)
        dispatch = Dispatch(orders, stp, known, rules, clock)
        worker = StpWorker(
            orders=orders,
            dispatch=dispatch,
            profiles=known,
            institutions=settings.known_institutions(),
            timers=Timers(timedelta(seconds=30), timedelta(hours=1)),
            clock=clock,
        )
        deposits = Deposits(DepositStore(statements), orders, callbacks, engine, clock=clock)
        app = by_path(build_callbacks_app(callback_settings, callbacks, deposits), build_simulator_app(simulator))
        async with served(app, listening):
            yield Rail(
                settings, database, orders, stp, dispatch, worker, callbacks, engine, simulator, clock, http,
                simulated.callback_url, base, callback_settings, deposits,
            )  # fmt: skip


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    """Wait until something holds; fail after a few seconds."""

    async def wait(holds: Callable[[], Any], seconds: float = 8.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() < deadline, "it did not come about in time"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What people were alerted to while the test ran."""
    from connectors.stp import dispatch

    found: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def error(self, _: str, *, kind: str, **facts: Any) -> None:
            found.append((kind, facts))

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

    monkeypatch.setattr(dispatch, "log", Log())
    return found


@pytest.fixture(scope="session")
def ledger_url(migrated_url: str) -> str:
    """The same database, with the ledger's tables."""
    migrate("ledger.migrations", migrated_url)
    return migrated_url


@dataclass
class Bank:
    """The account system of one tenant that nobody else uses, and what its book says of STP."""

    tenant: TenantId
    accounts: LedgerBackend
    settlements: Settlements
    url: str

    async def hold(self, job: SendOrder) -> None:
        await self.accounts.hold(self.tenant, job.payment_id, "ana", Money(job.amount, "MXN"), Money(0, "MXN"))

    async def paid(self, job: SendOrder) -> None:
        """Hold and capture, as the process does for a payment that settled."""
        await self.hold(job)
        await self.accounts.capture(self.tenant, job.payment_id)


@pytest.fixture
async def bank(ledger_url: str) -> AsyncIterator[Bank]:
    tenant = TenantId(f"bank-{uuid.uuid4().hex[:10]}")
    account = {"id": "ana", "currency": "MXN", "holder_name": "Ana", "opening_balance": "99999999.00"}
    await seed(ledger_url, Seed.model_validate({"tenants": [{"id": tenant, "fees": [], "accounts": [account]}]}))
    async with open_statements(ledger_url) as statements:
        yield Bank(tenant, LedgerBackend(statements), Settlements(statements), ledger_url)
