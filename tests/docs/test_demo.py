"""`make demo ARGS=--exit` as a newcomer runs it, without the installing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PAYHUB = str(Path(sys.executable).with_name("payhub"))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="payhub-demo-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def shows_the_day_of_the_stores(stores: dict[str, Any]) -> None:
    """A late return, a balance below zero, manual confirmations, a cancelled and a returned transfer (L10 to L38)."""
    paid = {name: [status for status, _ in store["transfers"]] for name, store in stores.items()}
    assert paid == {
        "centro": ["REJECTED", "APPLIED"],
        "norte": ["APPLIED", "APPLIED"],
        "sur": ["CANCELLED", "REJECTED", "APPLIED"],
    }
    balances = {name: [after for _, _, after, _ in store["updates"]] for name, store in stores.items()}
    assert balances == {
        "centro": ["1140.00", "1900.00", "0.00", "1900.00", "0.00"],
        "norte": ["285.00", "0.00", "-285.00", "665.00", "0.00"],
        "sur": ["1567.50", "0.00"],
    }
    told = {name: sorted(store["reports"]) for name, store in stores.items()}
    settled = "disbursement.settlement"
    assert told == {
        "centro": ["disbursement.correction", settled, settled],
        "norte": [settled, settled],
        "sur": [settled],
    }


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_the_demo_shows_every_payment_as_announced_and_leaves_no_process(data_dir: Path):
    ran = subprocess.run(
        [PAYHUB, "demo", "--exit", "--json", "--free-ports", "--data-dir", str(data_dir)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    payments = {payment["key"]: payment for payment in told["payments"]}
    assert len(payments) >= 12
    assert [key for key, one in payments.items() if [one["state"], one["reason"]] != one["expected"]] == []
    effects = {key: payments[key]["ledger_effect"] for key in ("on-us", "stp", "refused", "no-funds", "late-return")}
    assert effects["on-us"].startswith("-153.50 MXN")
    assert effects["stp"].startswith("-1203.50 MXN")
    assert effects["refused"] == "hold and void"
    assert effects["no-funds"] == "none"
    assert effects["late-return"] == "taken, then given back"
    assert told["deposit_credited"]
    assert told["stp_book"] == told["ledger_over_stp"] > 0
    shows_the_day_of_the_stores({store["store"]: store for store in told["stores"]})
    left = [
        process.pid for process in psutil.process_iter(["cmdline"]) if str(data_dir) in str(process.info["cmdline"])
    ]
    assert left == []
