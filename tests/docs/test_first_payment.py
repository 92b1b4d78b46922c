"""The README's first payment, made as a reader would make it."""

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
def test_the_readmes_first_payment_settles_in_processes_of_at_most_120_mb(data_dir: Path):
    block = next(
        block for block in re.findall(r"```sh\n(.*?)```", Path("README.md").read_text(), re.DOTALL) if "curl" in block
    )
    up, rest = block.split("\n", 1)
    assert up.startswith(".venv/bin/payhub up --detach")
    environment = os.environ | {"PAYHUB_DATA_DIR": str(data_dir)}
    options = ["--free-ports", "--profile", "barebone", "--json", "--bound-to", str(os.getpid())]
    started = subprocess.run(
        [PAYHUB, "up", "--detach", *options], env=environment, check=True, capture_output=True, text=True
    )
    channel = json.loads(started.stdout)["channel"]
    seed_and_pay, ask_and_leave = rest.split("curl -s http://127.0.0.1:8100/channel/txnState", 1)
    ask, _, leave = ("curl -s http://127.0.0.1:8100/channel/txnState" + ask_and_leave).partition("\n.venv")

    def run(script: str) -> str:
        script = script.replace(".venv/bin/payhub", PAYHUB).replace("http://127.0.0.1:8100", channel)
        return subprocess.run(
            ["bash", "-euc", script], env=environment, check=True, capture_output=True, text=True
        ).stdout

    token = "TOKEN=$(.venv/bin/payhub token --role channel --tenant acme)\n"
    assert "transactionId" in run(seed_and_pay)
    end = time.monotonic() + 60
    while '"COMMITTED"' not in (told := run(token + ask)) and time.monotonic() < end:
        time.sleep(0.5)
    assert '"COMMITTED"' in told
    parts = json.loads(run(".venv/bin/payhub status --json"))["parts"]
    ours = {
        part["name"]: part["memory_bytes"] / 2**20 for part in parts if part["name"].startswith(("serve-", "work-"))
    }
    assert len(ours) == 7
    assert {name: megabytes for name, megabytes in ours.items() if megabytes > 120} == {}
    assert "The book is sound." in run(".venv" + leave)
