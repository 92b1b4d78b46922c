"""B6: the whole way of an order through STP's worker, against bare clients that sign and send the same orders.

    python -m benchmarks.stp_orders --database-url postgresql+psycopg://... [--rounds 5] [--orders 300] [--json]

*hub* does what the worker does with a job: read its variables, check, clean and sign the order, commit it, send it,
write down the answer, and answer the engine (which is not there). *bare* is what one would write in an afternoon: the
order's fields are ready, it joins and signs them, PUTs them with httpx and reads the id; it keeps nothing. *limit* does
the same over the hub's own line, and is the least that any client can cost. All three run in this process, one after
the other in turns, against the pretend STP in a process of its own, which verifies every signature; afterwards its book
must hold every order once. The URL's database is not touched: a new one is made on its server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from connectors.stp import accounts
from connectors.stp.client import REGISTER_PATH, StpHttp, open_stp
from connectors.stp.connector import rules
from connectors.stp.dispatch import Dispatch
from connectors.stp.model import SendOrder
from connectors.stp.orders import OrderStore
from connectors.stp.settings import StpSettings
from connectors.stp.signature import Signer, generate_key_pair
from connectors.stp.tenants import profiles
from connectors.stp.tracking import tracking_key
from connectors.stp.wire import Orden, Sender, orden
from connectors.stp.worker import StpWorker, Timers
from hub.jobs import Handler, handlers_of
from hub.migrations import migrate
from hub.money import Money
from hub.settings import read
from hub.statements import open_statements
from hub.telemetry import configure_logging
from hub.transfer import PaymentId
from hub.zeebe.outcomes import Completed, settle

COMPANY: Final = "TAMIZI"
PAYER_ACCOUNT: Final = "646180110400000007"
KINDS: Final = ("hub", "bare", "limit")
AT_LEAST: Final = 0.8
"""What hub ÷ bare must not fall below."""

VARIABLES: Final[dict[str, Any]] = {
    "tenant_id": "bench",
    "amount": 125_000,
    "currency": "MXN",
    "payer": {"id_type": "CLABE", "identifier": "646180110400000010", "name": "José Ñandú Güemes"},
    "payee": {"id_type": "CLABE", "identifier": "072691004495711499", "name": "Ricardo Sánchez Pérez"},
    "concept": "Pago de nómina",
    "reference_number": 5273144,
}


@dataclass(frozen=True)
class Burst:
    """One kind's turn."""

    kind: str
    per_second: float
    cpu_ms: float
    """Processor time of this process for one order."""
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Measured:
    """All turns; ratios are made inside a round, and the median is told."""

    orders: int
    at_once: int
    rounds: int
    cores: int
    load_before: float
    ratio: float
    """hub ÷ bare, orders a second."""
    ratio_to_limit: float
    ratios: list[float]
    median: dict[str, dict[str, float]]
    at_least: float = AT_LEAST


Send = Callable[[str], Awaitable[None]]
"""Sends the order of one payment, named by its id."""


async def _burst(kind: str, send: Send, count: int, at_once: int) -> Burst:
    waiting: Iterator[str] = iter([str(uuid.uuid4()) for _ in range(count)])
    times: list[float] = []

    async def client() -> None:
        for payment in waiting:
            began = time.perf_counter()
            await send(payment)
            times.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(at_once)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    times.sort()
    p99 = times[min(count - 1, count * 99 // 100)]
    return Burst(kind, count / took, cpu / count * 1000, times[count // 2] * 1000, p99 * 1000)


# --- The three clients ----------------------------------------------------------------------------------------------


def _hub(handler: Handler) -> Send:
    async def send(payment: str) -> None:
        job = SendOrder.model_validate_json(json.dumps({**VARIABLES, "payment_id": payment}))
        ending = await settle(handler, job, 60, 60.0)
        if not isinstance(ending, Completed) or '"ACCEPTED"' not in ending.json():
            raise RuntimeError(f"the order was not accepted: {ending}")

    return send


def _order(payment: str, institutions: accounts.Institutions) -> Orden:
    """The same order as the hub's, ready in STP's words."""
    job = SendOrder.model_validate({**VARIABLES, "payment_id": payment})
    assert job.payer is not None
    return orden(
        sender=Sender(COMPANY, PAYER_ACCOUNT),
        key=tracking_key(PaymentId(payment)),
        amount=Money(job.amount, job.currency),
        payer=job.payer,
        payee=job.payee,
        beneficiary=accounts.beneficiary(job.payee, institutions),
        concept=job.concept,
        reference=5273144,
    )


def _accepted(answer: Any) -> None:
    if answer["resultado"]["id"] <= 999:
        raise RuntimeError(f"the order was not accepted: {answer}")


def _bare(http: httpx.AsyncClient, url: str, signer: Signer, fields: dict[str, Any], names: list[str]) -> Send:
    async def send(payment: str) -> None:
        order = fields | {"claveRastreo": tracking_key(PaymentId(payment)), "folioOrigen": None}
        joined = "||" + "|".join("" if order[name] is None else str(order[name]) for name in names) + "||"
        present = {name: value for name, value in order.items() if value is not None}
        answer = await http.put(url, json=present | {"firma": signer.sign(joined)})
        _accepted(answer.json())

    return send


def _limit(stp: StpHttp, signer: Signer, fields: dict[str, Any], names: list[str]) -> Send:
    async def send(payment: str) -> None:
        order = fields | {"claveRastreo": tracking_key(PaymentId(payment)), "folioOrigen": None}
        joined = "||" + "|".join("" if order[name] is None else str(order[name]) for name in names) + "||"
        present = {name: value for name, value in order.items() if value is not None}
        body = json.dumps(present | {"firma": signer.sign(joined)}).encode()
        _, answer = await stp.command("limit", "PUT", REGISTER_PATH, body)
        _accepted(json.loads(answer))

    return send


# --- The servers ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _pretend_stp(folder: Path, public_key: Path) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    simulated = {
        "COMPANY": COMPANY,
        "PAYER_ACCOUNT": PAYER_ACCOUNT,
        "PUBLIC_KEY_FILE": str(public_key),
        "BOOK_FILE": str(folder / "book.sqlite"),
        "CALLBACK_URL": "http://127.0.0.1:1/stp/order-status",
        "CALLBACK_SECRET": "unused",
        "SETTLE_AFTER": "3600",  # no statuses while we measure
        "BY_CENTS": "false",
    }
    environment = {**os.environ, **{f"PAYHUB_STP_SIMULATOR_{name}": value for name, value in simulated.items()}}
    command = [sys.executable, "-m", "hub.cli", "serve", "stp-simulator", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            deadline = time.monotonic() + 60
            while True:
                try:
                    if (await http.get(f"{url}/health/ready")).is_success:
                        break
                except httpx.TransportError:
                    pass
                if process.returncode is not None or time.monotonic() > deadline:
                    raise RuntimeError("the pretend STP did not start")
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()


def _new_database(url: str) -> tuple[str, Callable[[], None]]:
    """A database of our own on that server, and how it is dropped."""
    server, name = make_url(url), f"bench_{uuid.uuid4().hex[:12]}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)

    def execute(statement: str) -> None:
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(statement.encode())

    execute(f"CREATE DATABASE {name}")
    made = server.set(database=name).render_as_string(hide_password=False)
    return made, lambda: execute(f"DROP DATABASE {name} WITH (FORCE)")


# --- The measuring --------------------------------------------------------------------------------------------------


async def measure(database_url: str, stp_url: str, key: Path, *, rounds: int, orders: int, at_once: int) -> Measured:
    """Each kind in turn, `rounds` times, the order turning round too."""
    load = os.getloadavg()[0]
    settings = read(
        StpSettings, base_url=stp_url, company=COMPANY, payer_account=PAYER_ACCOUNT, private_key_file=key
    )  # fmt: skip
    known, institutions = profiles(settings), settings.known_institutions()
    signer = Signer.from_file(key)
    async with (
        open_statements(database_url) as database,
        open_stp(settings) as stp,
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
    ):
        store = OrderStore(database)
        worker = StpWorker(
            orders=store,
            dispatch=Dispatch(store, stp, known, rules(settings)),
            profiles=known,
            institutions=institutions,
            timers=Timers(timedelta(seconds=30), timedelta(hours=1)),
        )
        handler = next(each for each in handlers_of([worker]) if each.job is SendOrder)
        made = _order(str(uuid.uuid4()), institutions)
        fields = {name: getattr(made, name) for name in Orden.model_fields} | {"monto": str(made.monto)}
        names = list(Orden.model_fields)
        sends: dict[str, Send] = {
            "hub": _hub(handler),
            "bare": _bare(http, stp_url + REGISTER_PATH, signer, fields, names),
            "limit": _limit(stp, signer, fields, names),
        }
        for kind in KINDS:
            await _burst(kind, sends[kind], 30, at_once)
        found: list[Burst] = []
        for turn in range(rounds):
            for kind in KINDS if turn % 2 == 0 else reversed(KINDS):
                found += [await _burst(kind, sends[kind], orders, at_once)]
        await _check(http, stp_url, len(KINDS) * (30 + rounds * orders))
    return _measured(found, rounds, orders, at_once, load)


async def _check(http: httpx.AsyncClient, stp_url: str, count: int) -> None:
    book = (await http.get(f"{stp_url}/control/orders")).json()["orders"]
    keys = {order["claveRastreo"] for order in book}
    if not len(book) == len(keys) == count:
        raise RuntimeError(f"STP's book has {len(book)} orders under {len(keys)} keys, {count} were sent")


def _measured(found: list[Burst], rounds: int, orders: int, at_once: int, load: float) -> Measured:
    by_kind = {kind: [burst for burst in found if burst.kind == kind] for kind in KINDS}

    def ratios(to: str) -> list[float]:
        pairs = zip(by_kind["hub"], by_kind[to], strict=True)
        return [round(ours.per_second / theirs.per_second, 2) for ours, theirs in pairs]

    median = {
        kind: {
            name: round(statistics.median(getattr(burst, name) for burst in bursts), 2)
            for name in ("per_second", "cpu_ms", "p50_ms", "p99_ms")
        }
        for kind, bursts in by_kind.items()
    }
    return Measured(
        orders=orders,
        at_once=at_once,
        rounds=rounds,
        cores=os.cpu_count() or 1,
        load_before=round(load, 1),
        ratio=round(statistics.median(ratios("bare")), 2),
        ratio_to_limit=round(statistics.median(ratios("limit")), 2),
        ratios=ratios("bare"),
        median=median,
    )


def _table(measured: Measured) -> Table:
    table = Table(
        title=f"{measured.rounds} rounds of {measured.orders} orders, {measured.at_once} at once, "
        f"{measured.cores} cores, load before {measured.load_before}"
    )
    for column in ("client", "orders/s", "its CPU per order", "p50", "p99"):
        table.add_column(column, justify="left" if column == "client" else "right")
    for kind, row in measured.median.items():
        table.add_row(
            kind,
            f"{row['per_second']:.0f}",
            f"{row['cpu_ms']:.2f} ms",
            f"{row['p50_ms']:.0f} ms",
            f"{row['p99_ms']:.0f} ms",
        )
    table.add_section()
    table.add_row("hub ÷ bare", f"{measured.ratio:.2f}", f"at least {measured.at_least}", "", str(measured.ratios))
    table.add_row("hub ÷ limit", f"{measured.ratio_to_limit:.2f}", "", "", "")
    return table


async def _run(url: str, rounds: int, orders: int, at_once: int, folder: Path) -> Measured:
    private, public = generate_key_pair(folder)
    database, drop = _new_database(url)
    try:
        await asyncio.to_thread(migrate, "connectors.stp.migrations", database)
        async with _pretend_stp(folder, public) as stp_url:
            return await measure(database, stp_url, private, rounds=rounds, orders=orders, at_once=at_once)
    finally:
        drop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--orders", type=int, default=300, help="orders of each client in each round")
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    configure_logging("bench", "WARNING")
    with tempfile.TemporaryDirectory(prefix="payhub-bench-") as folder:
        measured = uvloop.run(_run(given.database_url, given.rounds, given.orders, given.at_once, Path(folder)))
    if given.json:
        print(json.dumps(asdict(measured)))
    else:
        Console().print(_table(measured))


if __name__ == "__main__":
    main()
