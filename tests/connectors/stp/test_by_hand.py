"""`payhub stp accounts` and `payhub stp return`, as a person types them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from hub.migrations import migrate
from hub.statements import open_statements

PAYHUB = str(Path(sys.executable).with_name("payhub"))
PERSON = {
    "cuenta": "646180110400000010", "rfcCurp": "GODE561231GR8", "nombre": "José", "apellidoPaterno": "Núñez",
    "fechaNacimiento": "19561231",
}  # fmt: skip


@pytest.fixture
def payhub(rail, tmp_path):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAYHUB_")},
        "PAYHUB_DATABASE_URL": rail.database_url,
        "PAYHUB_STP_BASE_URL": rail.settings.base_url,
        "PAYHUB_STP_COMPANY": rail.settings.company,
        "PAYHUB_STP_PAYER_ACCOUNT": rail.settings.payer_account,
        "PAYHUB_STP_PRIVATE_KEY_FILE": str(rail.settings.private_key_file),
    }

    async def run(*words):
        process = await asyncio.create_subprocess_exec(
            PAYHUB, "stp", *words, "--tenant", "greenbank", "--json",
            env=environment, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await process.communicate()
        assert b"Traceback" not in errors
        return process.returncode, json.loads(out)

    return run


async def test_accounts_are_registered_and_removed_by_hand(payhub, tmp_path):
    (tmp_path / "accounts.json").write_text(json.dumps([PERSON]))
    done = {"accounts": [{"account": "***0010", "result": "done", "detail": None}]}
    assert await payhub("accounts", "register", "accounts.json") == (0, done)
    assert await payhub("accounts", "remove", "accounts.json") == (0, done)
    code, answer = await payhub("accounts", "remove", "accounts.json")
    assert (code, answer["accounts"][0]["result"]) == (1, "refused")
    code, answer = await payhub("accounts", "register", "accounts.json", "--kind", "moral")
    assert (code, "/0/fechaConstitucion" in answer["error"]) == (1, True)


async def test_a_deposit_is_given_back_by_hand_once_and_the_log_tells(payhub, rail):  # H6
    await asyncio.to_thread(migrate, "operations_app.migrations", rail.database_url)
    given = {"claveRastreo": "BBVA-77/01", "monto": "12.50", "cuentaBeneficiario": "646180110400000007"}
    deposit = rail.simulator.deposits.arrive({**given, "report": False})
    arrived = rail.simulator.book.incoming(deposit).order
    day = f"{arrived.fecha_operacion}"
    words = (
        "return", "deposit-1", "--amount", "12.50", "--sender", str(arrived.fields["institucionOrdenante"]), "--key",
        "BBVA-77/01", "--date", f"{day[:4]}-{day[4:6]}-{day[6:]}",
    )  # fmt: skip
    code, answer = await payhub(*words)
    assert (code, answer["payment_id"]) == (0, "deposit-1")
    assert await payhub(*words) == (0, answer)
    assert len(rail.simulator.book.orders(answer["return_tracking_key"])) == 1
    code, answer = await payhub("return", "deposit-2", *words[2:])
    assert (code, "gives this deposit back" in answer["error"]) == (1, True)
    async with open_statements(rail.database_url, 1) as database:
        told = await database.rows("SELECT tenant_id, payment_id, action, outcome FROM operations.act ORDER BY seq")
    outcomes = [("deposit-1", "asked"), ("deposit-1", "done")] * 2 + [("deposit-2", "asked"), ("deposit-2", "failed")]
    assert told == [("greenbank", payment, "deposit.return", outcome) for payment, outcome in outcomes]


async def test_the_balance_at_stp_is_asked_by_hand_and_counts_as_a_question(payhub, rail):
    code, answer = await payhub("balance")
    assert (code, answer["currency"]) == (0, "MXN")
    before = float(answer["balance"])
    rail.simulator.deposits.arrive({"claveRastreo": "ABONO-9", "monto": "12.50", "report": False,
                                    "cuentaBeneficiario": "646180110400000007"})  # fmt: skip
    code, answer = await payhub("balance")
    assert (code, float(answer["balance"])) == (0, before + 12.5)
    code, answer = await payhub("balance", "--date", "soon")
    assert (code, "--date" in answer["error"]) == (1, True)
