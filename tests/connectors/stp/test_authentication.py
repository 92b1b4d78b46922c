"""Who may post callbacks: each check alone and together, before anything is read or kept."""

from __future__ import annotations

import base64
import uuid
from ipaddress import ip_network

import httpx
import pytest
from pydantic import SecretStr

from connectors.stp.api import build_callbacks_app
from connectors.stp.callbacks import Callbacks
from connectors.stp.deposit_store import DepositStore
from connectors.stp.deposits import Deposits
from connectors.stp.orders import OrderStore
from connectors.stp.settings import CallbackCheck, StpCallbackSettings
from connectors.stp.signature import Signer
from hub.settings import SettingsError, read
from hub.statements import open_statements
from hub.testing import FakeEngine

SECRET = {"X-STP-Secret": "a-secret-for-callbacks-in-tests"}
BASIC = {"Authorization": "Basic " + base64.b64encode("stp:contraseña".encode()).decode()}


@pytest.fixture
async def parts(migrated_url):
    """What handles callbacks, on a real inbox and without anybody who posts."""
    async with open_statements(migrated_url) as database:
        orders, engine = OrderStore(database), FakeEngine()
        callbacks = Callbacks(orders, engine)
        yield callbacks, Deposits(DepositStore(database), orders, callbacks, engine), database


@pytest.fixture
def asked(parts, key_files):
    """Posts a body from an address to an application with these checks; its answer and whether the body was kept."""
    private, public = key_files
    signer = Signer.from_file(private)
    callbacks, deposits, database = parts

    async def ask(*checks: str, headers=None, peer="10.8.0.9", path="order-status", sign=None):
        body = b'{"id": 4711, "claveRastreo": "%s", "estado": "LQ"}' % uuid.uuid4().hex[:20].encode()
        settings = StpCallbackSettings(
            callback_checks=frozenset(map(CallbackCheck, checks)),
            callback_secret=SecretStr("a-secret-for-callbacks-in-tests"),
            callback_user="stp",
            callback_password=SecretStr("contraseña"),
            callback_networks=(ip_network("10.8.0.0/16"), ip_network("fd00::/8")),
            callback_public_key_file=public,
        )
        given = httpx.Headers(headers)
        if sign is not None:
            given["X-STP-Signature"] = signer.sign(body.decode() + sign)
        transport = httpx.ASGITransport(build_callbacks_app(settings, callbacks, deposits), client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            answer = await http.post(f"/stp/{path}", content=body, headers=given)
        rows = await database.rows("SELECT count(*) FROM stp.callback WHERE body = %(b)s", {"b": body})
        return answer, rows[0][0] == 1

    return ask


@pytest.mark.parametrize(
    ("checks", "given", "status", "code"),
    [
        (("secret",), {"headers": SECRET}, 200, None),
        (("secret",), {"headers": BASIC}, 401, "secret-missing"),
        (("secret",), {"headers": {"X-STP-Secret": "A-secret-for-callbacks-in-tests"}}, 401, "secret-missing"),
        (("basic",), {"headers": BASIC}, 200, None),
        (("basic",), {"headers": SECRET}, 401, "credentials-missing"),
        (("basic",), {"headers": {"Authorization": "Basic c3RwOmZhbHNl"}}, 401, "credentials-missing"),
        (("basic",), {"headers": {"Authorization": "Basic ###"}}, 401, "credentials-missing"),
        (("basic",), {"headers": {"Authorization": "Bearer c3RwOmNvbnRyYXNl"}}, 401, "credentials-missing"),
        (("signature",), {"sign": ""}, 200, None),
        (("signature",), {"sign": "and more"}, 401, "signature-missing"),
        (("signature",), {"headers": {"X-STP-Signature": "####"}}, 401, "signature-missing"),
        (("signature",), {}, 401, "signature-missing"),
        (("network", "secret"), {"headers": SECRET}, 200, None),
        (("network", "secret"), {"headers": SECRET, "peer": "::ffff:10.8.1.1"}, 200, None),
        (("network", "secret"), {"headers": SECRET, "peer": "fd00::1"}, 200, None),
        (("network", "secret"), {"headers": SECRET, "peer": "10.9.0.1"}, 403, "network-not-allowed"),
        (("network", "secret"), {"headers": SECRET | {"X-Forwarded-For": "10.8.0.9"}, "peer": "192.0.2.1"}, 403,
         "network-not-allowed"),
        (("network", "secret"), {"headers": SECRET, "peer": "a-socket"}, 403, "network-not-allowed"),
        (("network", "secret"), {}, 401, "secret-missing"),
        (("secret", "basic", "network", "signature"), {"headers": SECRET | BASIC, "sign": ""}, 200, None),
        (("secret", "basic", "network", "signature"), {"headers": SECRET, "sign": ""}, 401, "credentials-missing"),
        (("secret", "basic", "network", "signature"), {"headers": SECRET | BASIC}, 401, "signature-missing"),
    ],
)  # fmt: skip
async def test_a_callback_passes_every_check_or_is_neither_read_nor_kept(asked, checks, given, status, code):  # L33
    answer, kept = await asked(*checks, **given)
    assert (answer.status_code, answer.json().get("code"), kept) == (status, code, status == 200)
    if code:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_secret_given_twice_is_none(asked):
    answer, _ = await asked("secret", headers=httpx.Headers([*SECRET.items()] * 2))
    assert answer.status_code == 401


async def test_deposits_pass_the_same_checks(asked):
    answer, kept = await asked("secret", path="deposits")
    assert (answer.status_code, kept) == (401, False)
    answer, kept = await asked("secret", path="deposits", headers=SECRET)
    assert (answer.json()["code"], kept) == ("malformed-deposit", True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "PAYHUB_STP_CALLBACK_SECRET: is not set"),
        ({"CHECKS": '["basic"]', "SECRET": "x", "USER": "stp"}, "PAYHUB_STP_CALLBACK_PASSWORD: is not set"),
        ({"CHECKS": '["secret", "network"]', "SECRET": "x"}, "PAYHUB_STP_CALLBACK_NETWORKS: is not set"),
        ({"CHECKS": '["signature"]'}, "PAYHUB_STP_CALLBACK_PUBLIC_KEY_FILE: is not set"),
        ({"CHECKS": '["signature"]', "PUBLIC_KEY_FILE": "/nowhere.pem"}, "/nowhere.pem: No such file"),
        ({"CHECKS": '["network"]', "NETWORKS": '["10.0.0.0/8"]'}, "must hold secret, basic or signature"),
        ({"CHECKS": "[]"}, "must hold secret, basic or signature"),
        ({"CHECKS": '["hope"]'}, "PAYHUB_STP_CALLBACK_CHECKS"),
        ({"NETWORKS": '["10.0.0.1/8"]', "SECRET": "x"}, "PAYHUB_STP_CALLBACK_NETWORKS"),
    ],
)
async def test_a_check_that_cannot_be_made_stops_the_start_by_its_name(parts, monkeypatch, given, said):
    for name, value in given.items():
        monkeypatch.setenv(f"PAYHUB_STP_CALLBACK_{name}", value)
    with pytest.raises(SettingsError, match=said):
        build_callbacks_app(read(StpCallbackSettings), *parts[:2])
