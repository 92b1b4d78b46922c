"""The README's first payment, and its questions about stores and payments, asked as a reader would ask them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MOST = {"serve-operations": 160}
"""MB. The operations API carries the clients of engine, PostgreSQL, Kafka and Elasticsearch; all others 120 at most."""

PAYHUB = str(Path(sys.executable).with_name("payhub"))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="payhub-readme-"))
    folder.chmod(0o711)
    yield folder
    subprocess.run([PAYHUB, "down", "--data-dir", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.mark.stack
@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's example is written with curl, which is not here")
@pytest.mark.timeout(400)
def test_the_readmes_commands_work_in_processes_of_bounded_memory(data_dir: Path):
    blocks = re.findall(r"```sh\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    block, stores, operators = (block for block in blocks if "curl" in block)
    up, rest = block.split("\n", 1)
    assert up.startswith(".venv/bin/payhub up --detach")
    environment = os.environ | {"PAYHUB_DATA_DIR": str(data_dir)}
    options = ["--free-ports", "--profile", "minimal", "--json", "--bound-to", str(os.getpid())]
    started = subprocess.run(
        [PAYHUB, "up", "--detach", *options], env=environment, check=True, capture_output=True, text=True
    )
    urls = json.loads(started.stdout)
    seed_and_pay, ask_and_leave = rest.split("curl -s http://127.0.0.1:8100/channel/txnState", 1)
    ask, _, leave = ("curl -s http://127.0.0.1:8100/channel/txnState" + ask_and_leave).partition("\n.venv")

    def run(script: str) -> str:
        script = script.replace(".venv/bin/payhub", PAYHUB)
        for port, service in ((8100, "channel"), (8105, "disbursement"), (8106, "operations")):
            script = script.replace(f"http://127.0.0.1:{port}", urls[service])
        return subprocess.run(
            ["bash", "-euc", script], env=environment, check=True, capture_output=True, text=True
        ).stdout

    token = "TOKEN=$(.venv/bin/payhub token --role channel --tenant acme)\n"
    assert "transactionId" in run(seed_and_pay)
    end = time.monotonic() + 60
    while '"COMMITTED"' not in (told := run(token + ask)) and time.monotonic() < end:
        time.sleep(0.5)
    assert '"COMMITTED"' in told
    assert "NOTHING_PENDING" in run(stores)
    seen = run(operators)
    assert "ledger = views: 1 payments" in seen
    assert "They agree." in seen
    assert "is sound" in seen
    parts = json.loads(run(".venv/bin/payhub status --json"))["parts"]
    ours = {
        part["name"]: part["memory_bytes"] / 2**20
        for part in parts
        if part["name"].startswith(("serve-", "work-", "export-"))
    }
    assert len(ours) == 13
    assert {name: megabytes for name, megabytes in ours.items() if megabytes > MOST.get(name, 120)} == {}
    assert "The book is sound." in run(".venv" + leave)
