"""The wiring, opened as the processes open it."""

from __future__ import annotations

import socket

import httpx
import pytest

from connectors.stp.connector import CONNECTOR
from hub.settings import SettingsError
from hub.testing import Completed, FakeEngine, run

SECRET = "a-secret-for-callbacks-in-tests"


@pytest.fixture
def environment(monkeypatch, migrated_url, key_files, tmp_path):
    private, public = key_files
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name, value in {
        "DATABASE_URL": migrated_url,
        "STP_BASE_URL": f"http://127.0.0.1:{port}",
        "STP_COMPANY": "PAYHUB",
        "STP_PAYER_ACCOUNT": "646180110400000007",
        "STP_PRIVATE_KEY_FILE": private,
        "STP_CALLBACK_SECRET": SECRET,
        "STP_SIMULATOR_PAYER_ACCOUNT": "646180110400000007",
        "STP_SIMULATOR_PUBLIC_KEY_FILE": public,
        "STP_SIMULATOR_BOOK_FILE": tmp_path / "book.sqlite",
        "STP_SIMULATOR_CALLBACK_URL": "http://127.0.0.1:1/stp/order-status",
        "STP_SIMULATOR_CALLBACK_SECRET": SECRET,
    }.items():
        monkeypatch.setenv(f"PAYHUB_{name}", str(value))
    return monkeypatch


async def test_the_worker_is_opened_with_its_sweep_and_its_probe(environment):
    async with CONNECTOR.open_work(FakeEngine()) as work:
        assert [type(worker) for worker in work.workers] == list(CONNECTOR.worker_classes)
        assert len(work.loops) == 3
        await work.probes["database"]()


@pytest.mark.parametrize("name", ["stp-callbacks", "stp-simulator"])
async def test_each_service_is_alive_once_it_is_open(environment, name):
    async with (
        CONNECTOR.services[name](FakeEngine()) as service,
        httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://here") as http,
    ):
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 200


async def test_a_missing_setting_is_named_before_anything_is_opened(environment):
    environment.delenv("PAYHUB_STP_COMPANY")
    with pytest.raises(SettingsError, match="PAYHUB_STP_COMPANY: is not set"):
        async with CONNECTOR.open_work(FakeEngine()):
            pass


async def test_the_parts_work_together(environment, rail):
    """One order through the connector's own wiring, against the rail's pretend STP."""
    environment.setenv("PAYHUB_STP_BASE_URL", rail.simulator_url)
    environment.setenv("PAYHUB_STP_COMPANY", rail.settings.company)
    async with CONNECTOR.open_work(FakeEngine()) as work:
        assert isinstance(await run(work.workers, rail.job()), Completed)


async def test_the_simulator_does_not_stand_beside_the_real_stp(environment):
    environment.setenv("PAYHUB_STP_BASE_URL", "https://prod.stpmex.com")
    with pytest.raises(SettingsError, match=r"prod\.stpmex\.com"):
        async with CONNECTOR.services["stp-simulator"](FakeEngine()):
            pass
