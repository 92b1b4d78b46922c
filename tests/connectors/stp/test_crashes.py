"""A process that dies at any of its named points, and the one that comes after it: one order at STP, one outcome."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from connectors.stp.deposit_store import deposit_id
from connectors.stp.fake_companies import Poster
from connectors.stp.wire import read_deposit
from hub.testing import Completed, Failed, run

SECRET = "a-secret-for-callbacks-in-tests"

WORKER = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from connectors.stp.client import open_stp
from connectors.stp.connector import profiles
from connectors.stp.dispatch import Dispatch, Rules
from connectors.stp.model import SendOrder
from connectors.stp.orders import OrderStore
from connectors.stp.settings import StpSettings
from connectors.stp.worker import StpWorker, Timers
from datetime import datetime
from hub.statements import open_statements
from hub.settings import DatabaseSettings, read

async def main():
    settings, job = read(StpSettings), SendOrder.model_validate_json(sys.argv[1])
    moment = datetime.fromisoformat(sys.argv[2])
    known, rules = profiles(settings), Rules(True, timedelta(0), timedelta(0))
    async with open_statements(read(DatabaseSettings).url) as database, open_stp(settings) as stp:
        orders = OrderStore(database)
        worker = StpWorker(orders=orders, dispatch=Dispatch(orders, stp, known, rules, lambda: moment), profiles=known,
                           institutions=settings.known_institutions(), clock=lambda: moment,
                           timers=Timers(timedelta(seconds=30), timedelta(hours=1)))
        await worker.send_order(job)

asyncio.run(main())
"""

POINTS = [
    "stp.send-order.before-claim",
    "stp.send-order.after-claim",
    "stp.register.before-http",
    "stp.register.after-http",
    "stp.send-order.before-record",
    "stp.send-order.after-record",
]


async def _worker_that_dies(rail, job, point):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAYHUB_")},
        "PAYHUB_FAILPOINT": point,
        "PAYHUB_DATABASE_URL": rail.database_url,
        "PAYHUB_STP_BASE_URL": rail.settings.base_url,
        "PAYHUB_STP_COMPANY": rail.settings.company,
        "PAYHUB_STP_PAYER_ACCOUNT": rail.settings.payer_account,
        "PAYHUB_STP_PRIVATE_KEY_FILE": str(rail.settings.private_key_file),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, job.model_dump_json(), rail.clock().isoformat(),
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


@pytest.mark.parametrize("point", POINTS)
async def test_an_accepted_order_exists_once_wherever_the_worker_died(rail, eventually, point):
    job = rail.job()
    await _worker_that_dies(rail, job, point)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert len(rail.at_stp(job)) == 1
    assert rail.sends(job) == 1
    rail.advance(timedelta(seconds=6))

    async def told():
        # The inquiry may have seen the settlement before its callback came: then the sweep is who tells it.
        await rail.callbacks.sweep()
        return rail.engine.told(job.payment_id)

    await eventually(told)


@pytest.mark.parametrize("point", POINTS)
async def test_a_refused_order_is_refused_wherever_the_worker_died(rail, point):  # L44
    job = rail.job()
    await rail.rule(job, "refuse")
    await _worker_that_dies(rail, job, point)
    ending = await run(rail.worker, job)
    if isinstance(ending, Completed):  # a refusal of bytes that were sent before is verified first
        assert ending.variables["order_state"] == "UNKNOWN"
        ending = await run(rail.worker, rail.ask(job))
    assert not isinstance(ending, Failed)
    assert ending.variables["outcome"] == "REJECTED"
    assert ending.variables["reason_detail"] == "STP -20: the amount is not valid"
    assert rail.at_stp(job) == []


CALLBACKS = """
import asyncio, socket, sys
from pathlib import Path
from connectors.stp.api import build_callbacks_app
from connectors.stp.callbacks import Callbacks
from connectors.stp.deposit_store import DepositStore
from connectors.stp.deposits import Deposits
from connectors.stp.orders import OrderStore
from connectors.stp.settings import StpCallbackSettings
from hub.api import serve
from hub.statements import open_statements
from hub.messages import Published
from hub.settings import DatabaseSettings, read

class Engine:
    async def publish(self, message):
        with Path(sys.argv[2]).open("a") as told:
            said = getattr(message, "outcome", message.message_name)
            told.write(f"{message.payment_id} {said} {message.message_id}\\n")
        return Published.NEW

async def main():
    async with open_statements(read(DatabaseSettings).url) as database:
        orders, engine = OrderStore(database), Engine()
        callbacks = Callbacks(orders, engine)
        deposits = Deposits(DepositStore(database), orders, callbacks, engine, tenant="greenbank")
        app = build_callbacks_app(read(StpCallbackSettings), callbacks, deposits)
        await serve(app, "127.0.0.1", int(sys.argv[1]))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "point",
    [
        "stp.order-status.before-store",
        "stp.order-status.after-store",
        "stp.order-status.after-commit",
        "stp.order-status.after-publish",
    ],
)
async def test_a_status_is_told_under_one_id_wherever_the_callbacks_process_died(rail, tmp_path, eventually, point):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    told = tmp_path / "told"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAYHUB_")},
        "PAYHUB_FAILPOINT": point,
        "PAYHUB_FAILPOINT_ONCE": str(tmp_path),
        "PAYHUB_DATABASE_URL": rail.database_url,
        "PAYHUB_STP_CALLBACK_SECRET": SECRET,
    }

    async def start():
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", CALLBACKS, str(port), str(told), env=environment, stderr=asyncio.subprocess.DEVNULL
        )

    object.__setattr__(rail.simulator._settings, "repeat_every", 0.3)  # a process may take its time to come back
    rail.simulator.company.status = Poster(f"http://127.0.0.1:{port}/stp/order-status", SECRET)
    first = await start()
    job = rail.job()
    await rail.worker.send_order(job)
    assert await asyncio.wait_for(first.wait(), 30) == -signal.SIGKILL
    second = await start()
    try:
        await eventually(lambda: any(row["status"] == 200 for row in rail.simulator.book.callbacks()), 30)
        rail.clock.set(datetime.now(UTC) + timedelta(hours=1))
        await rail.callbacks.sweep()
        heard = {tuple(line.split()) for line in told.read_text().splitlines()} if told.exists() else set()
        heard |= {(said.payment_id, said.outcome, said.message_id) for said in rail.engine.told(job.payment_id)}
        assert [outcome for payment, outcome, _ in heard if payment == job.payment_id] == ["SETTLED"]
    finally:
        second.terminate()
        await second.wait()


@pytest.mark.parametrize(
    "point",
    [
        "stp.deposit.before-store",
        "stp.deposit.after-store",
        "stp.deposit.after-commit",
        "stp.deposit.after-publish",
        "stp.deposit.after-return",
    ],
)
async def test_money_that_came_in_is_told_under_one_id_wherever_the_callbacks_process_died(rail, tmp_path, point):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    told = tmp_path / "told"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAYHUB_")},
        "PAYHUB_FAILPOINT": point,
        "PAYHUB_FAILPOINT_ONCE": str(tmp_path),
        "PAYHUB_DATABASE_URL": rail.database_url,
        "PAYHUB_STP_CALLBACK_SECRET": SECRET,
        "PAYHUB_STP_DEPOSIT_ANSWER_WITHIN": "0.2",
    }
    body = {"id": 71, "fechaOperacion": 20261118, "institucionOrdenante": 40012, "claveRastreo": f"D {point}",
            "monto": 12.5, "cuentaBeneficiario": "646180157000000017", "tipoPago": 1}  # fmt: skip
    payment_id = deposit_id(read_deposit(json.dumps(body).encode()))
    if point.endswith("after-return"):
        job = rail.job()
        await rail.rule(job, "silent")
        await rail.worker.send_order(job)
        payment_id = job.payment_id
        body |= {"claveRastreo": rail.key(job), "monto": job.amount / 100, "tipoPago": 0}

    async def answered(process):
        """What STP is answered, which repeats until it is."""
        while process.returncode is None:
            with contextlib.suppress(httpx.HTTPError):
                url = f"http://127.0.0.1:{port}/stp/deposits"
                return await rail.http.post(url, json=body, headers={"X-STP-Secret": SECRET})
            await asyncio.sleep(0.1)
        return None

    command = (sys.executable, "-c", CALLBACKS, str(port), str(told))
    first = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.DEVNULL)
    assert await asyncio.wait_for(answered(first), 30) is None
    assert await asyncio.wait_for(first.wait(), 30) == -signal.SIGKILL
    second = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.DEVNULL)
    try:
        answer = await asyncio.wait_for(answered(second), 30)
        assert (answer.status_code, answer.json()) == (200, {"mensaje": "confirmar"})
    finally:
        second.terminate()
        await second.wait()
    rail.clock.set(datetime.now(UTC) + timedelta(hours=1))
    await rail.callbacks.sweep()
    await rail.deposits.sweep()
    heard = {tuple(line.split()) for line in told.read_text().splitlines()} if told.exists() else set()
    mine = [message for message in rail.engine.messages if message.payment_id == payment_id]
    heard |= {(m.payment_id, str(getattr(m, "outcome", m.message_name)), m.message_id) for m in mine}
    expected = "RETURNED" if point.endswith("after-return") else "stp.deposit-arrived"
    assert [said for payment, said, _ in heard if payment == payment_id] == [expected]
