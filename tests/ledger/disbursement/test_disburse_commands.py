"""`payhub disburse ...`: what it says, what it does, and an exit code that tells the truth."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hub.cli import app
from ledger.disbursement.model import Frequency
from ledger.disbursement.runs import Runs
from tests.ledger.disbursement.test_import import CREDITS, SIGNED, STORE, STORES
from tests.ledger.disbursement.test_options import option, shop

With = Callable[[Callable[[Any], Awaitable[Any]]], Any]


@pytest.fixture
def inside(stores_url, open_lender, monkeypatch) -> With:
    """Runs a coroutine with a lender of its own, which the commands find too."""
    monkeypatch.setenv("PAYHUB_DATABASE_URL", stores_url)
    monkeypatch.setenv("PAYHUB_LEDGER_DATABASE_URL", stores_url)

    def run_inside(what: Callable[[Any], Awaitable[Any]]) -> Any:
        async def opened() -> Any:
            async with open_lender(stores_url) as lender:
                return await what(lender)

        return asyncio.run(opened())

    return run_inside


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["disburse", *map(str, words)])


async def _three_stores(lender):
    await lender.store("due")
    await lender.delivered("c1", "500.00", store="due")
    await lender.store("low", minimum="600.00")
    await lender.delivered("c2", "500.00", store="low")
    await lender.store("hourly", frequency="HOURLY")
    return lender.name


def test_a_dry_run_explains_each_store_and_changes_nothing(inside):
    tenant = inside(_three_stores)
    told = run("run", "--frequency", "daily", "--tenant", tenant, "--dry-run")
    assert told.exit_code == 0
    assert f"{tenant} due: PAY: 1 pending updates make a transfer of 500.00 MXN" in told.stdout
    assert "low: BELOW_MINIMUM: 1 pending updates sum to 500.00 MXN, not more than the minimum of 600.00" in told.stdout
    assert "hourly" not in told.stdout
    answer = json.loads(run("run", "--frequency", "daily", "--tenant", tenant, "--dry-run", "--json").stdout)
    assert (answer["would_be_paid"], answer["total"], len(answer["stores"])) == (1, "500.00", 2)
    assert inside(lambda lender: Runs(lender.statements).search(tenant)) == []


def test_a_run_is_asked_for_through_the_outbox(inside):  # L26
    tenant = inside(_three_stores)
    (asked,) = json.loads(run("run", "--frequency", "daily", "--tenant", tenant, "--json").stdout)["runs"]
    (made,) = inside(lambda lender: Runs(lender.statements).search(tenant))
    assert (made.id, made.frequency) == (asked["run"], Frequency.DAILY)
    assert made.requested_by.startswith("cli:")


def test_what_cannot_be_run_exits_with_one(inside):
    tenant = inside(_three_stores)
    for words in (("--frequency", "yearly"), ("--frequency", "weekly", "--tenant", tenant)):
        refused = run("run", *words, "--json")
        assert (refused.exit_code, "error" in json.loads(refused.stdout)) == (1, True)
    assert run("recalculate", "--month", "2026-13").exit_code == 1


def test_files_are_imported_or_refused_whole(inside, tmp_path):
    async def ready(lender):
        await shop(lender, option("o1"))
        return lender.name

    tenant = inside(ready)
    stores, credits_ = tmp_path / "stores.csv", tmp_path / "credits.csv"
    stores.write_text("\n".join([STORES, STORE.format("s7", "Ñandú")]), encoding="utf-8")
    done = run("import", "stores", stores, "--tenant", tenant, "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"added": 1, "same": 0})
    credits_.write_text("\n".join([CREDITS, f"c1,s1,500.00,{SIGNED},o1,"]), encoding="utf-8")
    assert "1 credits were added" in run("import", "credits", credits_, "--tenant", tenant).stdout
    assert (
        "0 credits were added, 1 were there already." in run("import", "credits", credits_, "--tenant", tenant).stdout
    )
    credits_.write_text("\n".join([CREDITS, f"c2,s1,five,{SIGNED},o1,"]), encoding="utf-8")
    refused = run("import", "credits", credits_, "--tenant", tenant, "--json")
    (fault,) = json.loads(refused.stdout)["faults"]
    assert (refused.exit_code, fault["line"], fault["column"]) == (1, 2, "amount")
    assert run("import", "credits", tmp_path / "none.csv", "--tenant", tenant).exit_code == 1


def test_the_months_rates_and_the_proof_of_balances(inside):  # L50
    async def ready(lender):
        await shop(lender, option("follows", merchant_commission=600, auto_update=True))
        await lender.delivered("c1", "500.00")
        return lender.name

    tenant = inside(ready)
    done = run("recalculate", "--month", "2026-03", "--tenant", tenant, "--json")
    (told,) = json.loads(done.stdout)["recalculated"]
    assert (done.exit_code, told["month"], told["without_standard"]) == (0, "2026-03", 1)
    proved = run("verify", "--json")
    assert proved.exit_code == 0, proved.stdout
