"""Nothing personal and nothing secret reaches the logs, whatever happens to a request."""

from __future__ import annotations

import pytest

from connectors.channel.callbacks import open_callbacks
from hub.telemetry import configure_logging
from hub.transfer import Outcome, Reason

CANARIES = (
    "Canaria Volador",
    "012180001183597198",
    "525511119999",
    "VELU800101AB1",
    "canary-note",
    "canary-correlation",
    "canary-client-reference",
    "dGVzdC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcyE",
)


async def test_canaries_never_reach_the_logs(
    open_channel, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging("test", "DEBUG")
    async with open_channel() as channel, open_callbacks(channel.store, channel.settings) as callbacks:
        channel.start(channel.relay.run)
        channel.start(callbacks.run)
        body = channel.body(
            clientRefId="canary-client-reference",
            payer={
                "partyIdInfo": {"partyIdType": "MSISDN", "partyIdentifier": "525511119999"},
                "name": "Canaria Volador",
            },
            note="canary-note",
            customData=[{"key": "payeeTaxId", "value": "VELU800101AB1"}],
        )
        url = {"X-CallbackURL": "http://127.0.0.1:1/hooks"}
        accepted = await channel.send(body, key="canary-correlation", **url)
        assert accepted.status_code == 202
        await channel.send(body, key="canary-correlation")
        await channel.send({**body, "note": "canary-note-2"}, key="canary-correlation")
        await channel.send({**body, "surprise": "Canaria Volador"})
        await channel.client.get("/channel/txnState/canary-correlation", headers=channel.headers())
        await channel.client.get("/channel/Canaria%20Volador", headers=channel.headers())
        await channel.record(accepted.json()["transactionId"], Outcome.SETTLED, Reason.NONE)
        await channel.until(lambda: "callback.attempt" in _so_far(capfd))
        channel.engine.away = True
        await channel.send(body)

        async def broken(*_: object) -> None:
            raise RuntimeError(f"it broke with {body}")

        monkeypatch.setattr(channel.store, "accept", broken)
        assert (await channel.send(body)).status_code == 500
        await channel.stop()
    logged = _so_far(capfd)
    assert '"route": "/channel/transfer"' in logged
    assert "request.failed" in logged
    assert [canary for canary in CANARIES if canary in logged] == []
    assert channel.token()[:40] not in logged


_seen: list[str] = []


def _so_far(capfd: pytest.CaptureFixture[str]) -> str:
    """Everything that was printed since the test began."""
    out, err = capfd.readouterr()
    _seen.append(out + err)
    return "".join(_seen)


async def test_an_error_answer_repeats_no_value(channel) -> None:
    body = channel.body(
        payee={"partyIdInfo": {"partyIdType": "CLABE", "partyIdentifier": "012180001183597190"}, "name": 7},
        surprise="Canaria Volador",
    )
    answer = await channel.send(body)
    assert answer.status_code == 422
    assert "012180001183597190" not in answer.text
    assert "Canaria" not in answer.text
