"""While the account system is away payments are accepted within limits, and nothing else changes (H8)."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import REGISTRY

from connectors.channel.api import new_payment_id
from connectors.channel.store import Acceptance
from connectors.channel.wire import TransferRequest
from hub.transfer import Outcome, Reason


@dataclass
class HealthPage:
    """The page that says whether the account system can be used."""

    url: str
    status: int = 200
    body: bytes = b"{}"
    looks: int = 0


@pytest.fixture
def page() -> Iterator[HealthPage]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.looks += 1
            self.send_response(here.status)
            self.send_header("Content-Length", str(len(here.body)))
            self.end_headers()
            self.wfile.write(here.body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = HealthPage(f"http://127.0.0.1:{server.server_port}/health/ready")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield here
    server.shutdown()
    server.server_close()


AWAY = {"account_system_url": "http://127.0.0.1:1/health/ready"}
"""Nobody is there, so the account system is away from the first request on."""


async def limit(channel: Any, payments: int | None = None, **mxn: int) -> None:
    await channel.store.put_tenant(
        channel.tenant, "A tenant", [], None, stand_in_payments=payments, stand_in_amounts={"MXN": mxn} if mxn else {}
    )


def amount(text: str) -> dict[str, Any]:
    return {"amount": {"amount": text, "currency": "MXN"}}


async def paying(channel: Any, text: str, key: str | None = None) -> Any:
    return await channel.send(channel.body(**amount(text)), key=key)


async def shown(channel: Any) -> dict[str, Any]:
    answer = await channel.client.get("/channel/stand-in", headers=channel.headers())
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def payments_of(channel: Any) -> int:
    [(count,)] = await channel.rows("SELECT count(*) FROM channel.payment WHERE tenant_id = %(t)s", t=channel.tenant)
    return int(count)


async def test_with_the_account_system_away_payments_are_accepted_up_to_a_number(open_channel) -> None:  # H8
    async with open_channel(**AWAY) as channel:
        await limit(channel, payments=3)
        answers = [await channel.send() for _ in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 503, 503]
        problem = answers[-1]
        assert problem.headers["content-type"] == "application/problem+json"
        assert (problem.json()["code"], problem.json()["limit"]) == ("stand-in-limit", "payments")
        assert int(problem.headers["retry-after"]) > 0
        assert await payments_of(channel) == 3


async def test_requests_at_once_cannot_pass_a_limit_together(open_channel) -> None:  # H8
    async with open_channel(**AWAY) as channel:
        await limit(channel, payments=7, together=100_000)
        answers = await asyncio.gather(*(paying(channel, "150.00") for _ in range(24)))
        assert sorted(answer.status_code for answer in answers) == [202] * 6 + [503] * 18
        assert await payments_of(channel) == 6
        assert (await shown(channel))["waiting"]["amounts"] == [{"currency": "MXN", "amount": "900.00"}]


async def test_a_sum_and_a_single_amount_are_limited_per_currency(open_channel) -> None:  # H8
    async with open_channel(**AWAY) as channel:
        await limit(channel, each=50_000, together=60_000)
        assert [(await paying(channel, text)).status_code for text in ("500.01", "500.00", "100.01", "100.00")] == [
            503,
            202,
            503,
            202,
        ]
        too_large = (await paying(channel, "500.01")).json()
        assert too_large["limit"] == "each"
        dollars = channel.body(amount={"amount": "9000.00", "currency": "USD"})
        assert (await channel.send(dollars)).status_code == 202


async def test_the_largest_amounts_there_are_add_up_to_no_error(open_channel) -> None:
    async with open_channel(**AWAY) as channel:
        answers = [await paying(channel, "92233720368547758.07") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 503]


async def test_a_refused_request_uses_no_key_up_and_a_repeat_gets_the_first_answer(open_channel) -> None:
    async with open_channel(**AWAY) as channel:
        await limit(channel, payments=1)
        first = await paying(channel, "10.00", key="a")
        assert (await paying(channel, "10.00", key="b")).status_code == 503
        again = await paying(channel, "10.00", key="a")
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["idempotent-replayed"] == "true"
        assert (await paying(channel, "11.00", key="a")).json()["code"] == "key-reused"
        await limit(channel, payments=2)
        later = await paying(channel, "10.00", key="b")
        assert later.status_code == 202
        assert "idempotent-replayed" not in later.headers


async def test_one_tenants_queue_takes_no_room_of_anothers(open_channel) -> None:  # H16
    async with open_channel(**AWAY) as one, open_channel(**AWAY) as other:
        await limit(one, payments=1)
        await limit(other, payments=1)
        assert [(await each.send()).status_code for each in (one, one, other)] == [202, 503, 202]
        assert (await shown(other))["waiting"]["payments"] == 1


async def test_payments_leave_the_queue_when_they_have_an_outcome(open_channel) -> None:
    async with open_channel(**AWAY, account_system_look_every=0.05) as channel:
        await limit(channel, payments=2)
        payments = [await channel.accepted() for _ in range(2)]
        assert (await channel.send()).status_code == 503
        before = await shown(channel)
        assert before["accountSystem"] == "away"
        assert before["limits"] == {"payments": 2, "amounts": []}
        assert before["waiting"]["payments"] == 2
        assert before["waiting"]["oldestAgeSeconds"] >= 0
        channel.start(channel.stand_in.run)
        await channel.claim(payments[0])
        await channel.record(payments[0], Outcome.SETTLED, Reason.NONE)
        async with asyncio.timeout(10):
            while (await shown(channel))["waiting"]["payments"] > 1:
                await asyncio.sleep(0.02)
        assert (await channel.send()).status_code == 202
        gauge = {"tenant": channel.tenant}
        async with asyncio.timeout(10):
            while REGISTRY.get_sample_value("payhub_channel_stand_in_payments", gauge) != 2:
                await asyncio.sleep(0.02)
        assert REGISTRY.get_sample_value("payhub_channel_stand_in_limit_payments", gauge) == 2
        assert REGISTRY.get_sample_value("payhub_channel_account_system_away") == 1


async def test_what_was_accepted_just_before_is_in_the_queue_too_and_limits_end_with_the_outage(
    open_channel, page: HealthPage
) -> None:  # H8
    async with open_channel(account_system_url=page.url, account_system_look_every=0.05) as channel:
        channel.start(channel.stand_in.run)
        await limit(channel, payments=0)
        await channel.until(lambda: channel.stand_in.away_since is None)
        open_payment, ended = await channel.accepted(), await channel.accepted()
        await channel.claim(ended)
        await channel.record(ended, Outcome.SETTLED, Reason.NONE)
        assert (await shown(channel))["accountSystem"] == "reachable"
        page.status = 503
        await channel.until(lambda: channel.stand_in.away_since is not None)
        assert (await channel.send()).status_code == 503
        async with asyncio.timeout(10):
            while (await shown(channel))["waiting"]["payments"] != 1:
                await asyncio.sleep(0.02)
        page.status = 200
        await channel.until(lambda: channel.stand_in.away_since is None)
        assert (await channel.send()).status_code == 202
        await channel.claim(open_payment)
        await channel.record(open_payment, Outcome.SETTLED, Reason.NONE)
        async with asyncio.timeout(10):
            while (await shown(channel))["waiting"]["payments"]:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("body", "noes"),
    [
        ({"engine": "failed: Unavailable", "ledger": "ok"}, None),
        ({"engine": "ok", "ledger": "failed: Unavailable"}, 3),
        ({"engine": "ok", "ledger": "no answer in 2 s"}, 9),
    ],
)
async def test_a_page_of_ours_says_who_is_away(open_channel, page: HealthPage, body, noes) -> None:
    """The engine is not the account system, and who is silent may be busy."""
    async with open_channel(account_system_url=page.url, account_system_look_every=0.01) as channel:
        channel.start(channel.stand_in.run)
        await channel.until(lambda: channel.stand_in.away_since is None)
        page.looks, page.status, page.body = 0, 503, json.dumps({"checks": body}).encode()
        await channel.until(lambda: page.looks > (noes or 12))
        if noes is None:
            assert channel.stand_in.away_since is None
        else:
            await channel.until(lambda: channel.stand_in.away_since is not None)
            assert noes <= page.looks


async def test_without_a_page_to_look_at_nothing_is_limited(open_channel) -> None:
    async with open_channel() as channel:
        await limit(channel, payments=0)
        assert (await channel.send()).status_code == 202
        assert (await shown(channel))["accountSystem"] == "not watched"


async def test_the_channel_and_operators_may_see_it_and_nobody_else(open_channel) -> None:
    async with open_channel() as channel:
        assert (await channel.client.get("/channel/stand-in")).status_code == 401
        for role, status in (("channel", 200), ("operator", 200), ("auditor", 200), ("teller", 403)):
            token = f"Bearer {channel.token(role=role)}"
            headers = {"Authorization": token, "Platform-TenantId": channel.tenant}
            assert (await channel.client.get("/channel/stand-in", headers=headers)).status_code == status


async def test_a_process_that_has_not_noticed_yet_and_one_that_has_accept_one_key_once(open_channel) -> None:
    async with open_channel(**AWAY) as channel:
        for number in range(8):
            body = TransferRequest.model_validate(channel.body(**amount("1.00")))
            ways = (channel.store.accept, channel.stand_in.accept)
            asked = [
                way(
                    Acceptance(
                        body.accepted(new_payment_id(), channel.tenant), f"k{number}", body.fingerprint(), None, None
                    ),
                    10,
                )
                for way in (*ways, *ways)
            ]
            known = await asyncio.gather(*asked)
            assert known.count(None) == 1
            assert len({one.payment_id for one in known if one is not None}) == 1
        assert await payments_of(channel) == 8
        waiting = (await shown(channel))["waiting"]["payments"]
        [(queued,)] = await channel.rows(
            "SELECT count(*) FROM channel.stand_in_payment WHERE tenant_id = %(t)s", t=channel.tenant
        )
        assert waiting == queued <= 8
