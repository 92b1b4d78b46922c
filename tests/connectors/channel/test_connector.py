"""The channel as it is put together: what one process accepts, the other one ends and tells."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from connectors.channel.connector import CONNECTOR, open_api, open_work
from connectors.channel.model import AcceptLinkedPayment, ClaimPayment, PaymentAccepted, RecordOutcome
from hub.settings import SettingsError
from hub.testing import Completed, FakeEngine, run
from hub.transfer import Outcome, Reason


async def test_both_processes_together(
    channel, channel_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYHUB_DATABASE_URL", channel_database)
    monkeypatch.setenv("PAYHUB_TOKEN_JWKS_FILE", str(tmp_path / "jwks.json"))
    engine = FakeEngine()
    async with open_api(engine) as service, open_work(engine) as work:
        loops = [asyncio.ensure_future(loop()) for loop in (*service.loops, *work.loops)]
        await asyncio.sleep(0)
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://channel") as client:
            assert (await client.get("/health/ready")).json()["checks"] == {"database": "ok"}
            answer = await client.post(
                "/channel/transfer",
                json=channel.body(),
                headers=channel.headers(**{"X-CallbackURL": "http://127.0.0.1:1/hooks"}),
            )
            await channel.until(lambda: bool(engine.messages))
            [message] = engine.published(PaymentAccepted)
            assert message.payment_id == answer.json()["transactionId"]
            for job in (
                ClaimPayment(payment_id=message.payment_id, tenant_id=message.tenant_id),
                RecordOutcome(
                    payment_id=message.payment_id,
                    tenant_id=message.tenant_id,
                    outcome=Outcome.SETTLED,
                    reason=Reason.NONE,
                ),
            ):
                assert isinstance(await run(work.workers, job), Completed)
            found = await client.get(f"/channel/transfer/{message.payment_id}", headers=channel.headers())
            assert found.json()["transferState"] == "COMMITTED"
        async with asyncio.timeout(5):
            while await channel.rows(
                "SELECT FROM channel.callback WHERE payment_id = %(id)s AND attempts = 0", id=message.payment_id
            ):
                await asyncio.sleep(0.02)
        await asyncio.gather(*(probe() for probe in work.probes.values()))
        assert not any(loop.done() for loop in loops)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def test_missing_settings_are_named_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAYHUB_DATABASE_URL", raising=False)
    with pytest.raises(SettingsError, match="PAYHUB_TOKEN_JWKS_FILE"):
        async with open_api(FakeEngine()):
            pass
    with pytest.raises(SettingsError, match="PAYHUB_DATABASE_URL"):
        async with open_work(FakeEngine()):
            pass


def test_what_the_connector_says_of_itself() -> None:
    assert set(CONNECTOR.jobs) == {ClaimPayment, RecordOutcome, AcceptLinkedPayment}
    assert CONNECTOR.messages == (PaymentAccepted,)
    assert set(CONNECTOR.services) == {"channel"}
