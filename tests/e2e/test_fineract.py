"""The whole hub with Apache Fineract, a pretend one, as its account system."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hub.stack.plan import HubProcess
from hub.stack.ports import choose_free
from hub.trial import TrialHub, transfer

pytestmark = [pytest.mark.timeout(300)]

SIMULATOR = "serve-fineract-simulator"


async def test_payments_between_accounts_at_fineract_settle_once_or_are_refused_by_name(
    tmp_path: Path, zeebe_address: str, new_database: Callable[[], str]
):  # H1 H3
    port = choose_free({"fineract": 0})["fineract"]
    root = f"http://127.0.0.1:{port}"
    settings = {
        "PAYHUB_AMS_BACKEND": "fineract",
        "PAYHUB_AMS_FINERACT_BASE_URL": f"{root}/fineract-provider/api/v1",
        "PAYHUB_AMS_FINERACT_USER": "mifos",
        "PAYHUB_AMS_FINERACT_PASSWORD": "password",
        "PAYHUB_AMS_FINERACT_SIMULATOR_SEED_FILE": "examples/seed.json",
    }
    async with TrialHub.open(tmp_path, zeebe_address, new_database(), settings) as hub:
        words = (sys.executable, "-m", "hub.cli", "serve", "fineract-simulator", "--port", str(port))
        hub.processes = {**hub.processes, SIMULATOR: HubProcess(SIMULATOR, words, port, {})}
        needed = (SIMULATOR, "serve-channel", "work-channel", "work-ams")
        for name in needed:
            hub.start(name)
        await asyncio.gather(*(hub.ready(name) for name in needed))

        async def balance(account: str) -> Decimal:
            answer = await hub.http.get(
                f"{root}/fineract-provider/api/v1/interoperation/accounts/{account}",
                auth=("mifos", "password"),
                headers={"Fineract-Platform-TenantId": "acme"},
            )
            assert answer.json()["accountBalance"] == answer.json()["availableBalance"]
            return Decimal(str(answer.json()["accountBalance"]))

        before = await balance("acme-ana"), await balance("acme-bruno")
        for operation in ("PREPARE", "CREATE"):
            rule: dict[str, Any] = {"match": {"operation": operation}, "do": "lose-answer", "uses": 2}
            (await hub.http.post(f"{root}/control/rules", json=rule)).raise_for_status()
        payments = [await hub.pay(transfer("10.00")) for _ in range(3)]
        ended = await hub.until_final(payments)
        assert {one["outcome"] for one in ended.values()} == {"SETTLED"}
        fee = Decimal("3.50")  # what the example's tenant charges
        assert await balance("acme-ana") == before[0] - 3 * (10 + fee)
        assert await balance("acme-bruno") == before[1] + 30

        refused = await hub.pay(transfer("500.00", payer="525511110003"))
        assert (await hub.until(refused, "ABORTED"))["reason"] == "insufficient-funds"
        closed = await hub.pay(transfer("5.00", payee="525511110004"))
        assert (await hub.until(closed, "ABORTED"))["reason"] == "account-closed"
