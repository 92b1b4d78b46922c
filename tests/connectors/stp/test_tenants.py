"""Each tenant's company, account and key."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from connectors.stp.dispatch import Profiles
from connectors.stp.model import StpConfigurationError
from connectors.stp.settings import StpSettings
from connectors.stp.signature import Checker
from connectors.stp.tenants import profiles
from hub.settings import SettingsError, read
from hub.testing import Completed, Failed, run
from hub.transfer import TenantId

GREEN = {"company": "GREEN", "payer_account": "646180110400000007", "private_key_file": "green.pem"}
BLUE = {"company": "BLUE", "payer_account": "646180157000000004", "private_key_file": "blue.pem"}


@pytest.fixture(scope="module")
def keys() -> dict[str, rsa.RSAPrivateKey]:
    return {name: rsa.generate_private_key(65537, 2048) for name in ("green", "blue")}


@pytest.fixture
def folder(tmp_path, keys, monkeypatch):
    def pem(key, *secret):
        encryption = serialization.BestAvailableEncryption(*secret) if secret else serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    (tmp_path / "green.pem").write_bytes(b"Bag Attributes\n    friendlyName: green\n" + pem(keys["green"], b"clave"))
    (tmp_path / "green.pass").write_text("clave\n")
    (tmp_path / "blue.pem").write_bytes(pem(keys["blue"]))
    monkeypatch.setenv("PAYHUB_STP_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PAYHUB_STP_TENANTS_FILE", str(tmp_path / "tenants.json"))
    return tmp_path


def _write(folder, content):
    (folder / "tenants.json").write_text(json.dumps(content))


def _checker(key):
    return Checker.from_pem(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )  # fmt: skip


def test_each_tenant_signs_with_its_own_key_for_its_own_company(folder, keys):  # H16
    green = {**GREEN, "private_key_passphrase_file": "green.pass", "tracking_prefix": "GB",
             "constants": {"prioridad": 1, "usuario": "verde"}, "latitude": "19.4", "longitude": "-99.1"}  # fmt: skip
    _write(folder, {"greenbank": green, "bluebank": BLUE})
    known = profiles(read(StpSettings))
    one, other = known.of(TenantId("greenbank")), known.of(TenantId("bluebank"))
    assert (one.sender.company, one.sender.payer_account) == ("GREEN", "646180110400000007")
    assert (other.sender.company, other.sender.payer_account) == ("BLUE", "646180157000000004")
    assert (one.tracking_prefix, other.tracking_prefix) == ("GB", "PH")
    assert one.unsigned == (("latitud", "19.4"), ("longitud", "-99.1"))
    assert dict(one.sender.constants) == {"prioridad": 1, "usuario": "verde"}
    assert _checker(keys["green"]).matches("x", one.signer.sign("x"))
    assert _checker(keys["blue"]).matches("x", other.signer.sign("x"))
    with pytest.raises(StpConfigurationError, match="redbank has no company"):
        known.of(TenantId("redbank"))


def test_the_settings_serve_those_whom_the_file_does_not_name(folder, monkeypatch, key_files):
    _write(folder, {"bluebank": BLUE})
    monkeypatch.setenv("PAYHUB_STP_COMPANY", "SINGLE")
    monkeypatch.setenv("PAYHUB_STP_PAYER_ACCOUNT", "646180110400000007")
    monkeypatch.setenv("PAYHUB_STP_PRIVATE_KEY_FILE", str(key_files[0]))
    assert profiles(read(StpSettings)).of(TenantId("bluebank")).sender.company == "BLUE"
    assert profiles(read(StpSettings)).of(TenantId("redbank")).sender.company == "SINGLE"
    monkeypatch.setenv("PAYHUB_STP_TENANT_ID", "greenbank")
    assert profiles(read(StpSettings)).of(TenantId("greenbank")).sender.company == "SINGLE"
    with pytest.raises(StpConfigurationError):
        profiles(read(StpSettings)).of(TenantId("redbank"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"bluebank": {**BLUE, "payer_account": "646180110400000008"}}, "/bluebank/payer_account: .*check digit"),
        ({"bluebank": {**BLUE, "company": "A" * 16}}, "/bluebank/company: .*15"),
        ({"bluebank": {**BLUE, "firm": "A"}}, "/bluebank/firm"),
        ({"bluebank": {**BLUE, "constants": {"monto": "1.00"}}}, "/bluebank/constants: .*monto is none of"),
        ({"bluebank": {**BLUE, "constants": {"tipoPago": 13}}}, "/bluebank/constants: .*tipoPago: .*type of payment"),
        ({"bluebank": {**BLUE, "private_key_file": "none.pem"}}, "/bluebank/private_key_file: .*No such file"),
        ({"bluebank": {**BLUE, "private_key_passphrase_file": "none"}}, "passphrase_file: No such file"),
        ({"greenbank": GREEN}, "/greenbank/private_key_file: .*give its passphrase"),
        ([], "tenants.json: "),
    ],
)
def test_a_mistake_in_the_file_is_named_by_tenant_and_field(folder, content, said):
    _write(folder, content)
    with pytest.raises(SettingsError, match=f"PAYHUB_STP_TENANTS_FILE: .*{said}"):
        profiles(read(StpSettings))


def test_a_file_that_is_not_there_or_not_json_is_named(folder):
    with pytest.raises(SettingsError, match="No such file"):
        profiles(read(StpSettings))
    (folder / "tenants.json").write_text("{")
    with pytest.raises(SettingsError, match="is not JSON"):
        profiles(read(StpSettings))


@pytest.mark.parametrize(
    ("constants", "said"), [('{"empresa": "X"}', "empresa is none of"), ('{"topologia": "X"}', "T or V")]
)
def test_constants_that_an_order_cannot_carry_are_refused(monkeypatch, key_files, constants, said):
    for name, value in {
        "BASE_URL": "http://127.0.0.1:1", "COMPANY": "T", "PAYER_ACCOUNT": "646180110400000007",
        "PRIVATE_KEY_FILE": key_files[0], "CONSTANTS": constants,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"PAYHUB_STP_{name}", str(value))
    with pytest.raises(SettingsError, match=f"PAYHUB_STP_CONSTANTS: .*{said}"):
        profiles(read(StpSettings))


async def test_two_tenants_pay_under_their_own_companies_side_by_side(rail, folder, keys):  # H16
    first = rail.simulator.companies[rail.settings.company]
    accounts = {name: entry["payer_account"] for name, entry in (("green", GREEN), ("blue", BLUE))}
    for name, account in accounts.items():
        company = replace(first, empresa=name.upper(), checker=_checker(keys[name]), accounts={account}, consults=[])
        rail.simulator.companies[company.empresa] = company
    green = {**GREEN, "private_key_passphrase_file": "green.pass", "tracking_prefix": "GB"}
    _write(folder, {"greenbank": green, "bluebank": BLUE})
    rail.worker._profiles = rail.dispatch._profiles = profiles(read(StpSettings))
    jobs = [rail.job(tenant_id=TenantId(f"{name}bank")) for name in ("green", "blue") * 3]
    for sent in await asyncio.gather(*(rail.worker.send_order(job) for job in jobs)):
        assert sent.order_state == "ACCEPTED"
    for job in jobs:
        stored = await rail.order(job)
        [order] = rail.simulator.book.orders(stored.tracking_key)
        name = job.tenant_id.removesuffix("bank")
        assert (order.empresa, order.fields["cuentaOrdenante"]) == (name.upper(), accounts[name])
        assert stored.tracking_key.startswith("GB" if name == "green" else "PH")
    for company in ("GREEN", "BLUE"):  # closed by nobody else; their posters are the first company's
        del rail.simulator.companies[company]


async def test_a_tenant_that_was_added_later_pays_once_its_job_is_retried(rail):
    """Without a company its payment waits as an incident: nothing was claimed and nothing was sent."""
    job = rail.job()
    known, rail.worker._profiles = rail.worker._profiles, Profiles()
    ending = await run(rail.worker, job)
    assert isinstance(ending, Failed)
    assert ending.incident
    assert await rail.orders.find(job.payment_id) is None
    rail.worker._profiles = known
    assert isinstance(await run(rail.worker, job), Completed)
    assert len(rail.at_stp(job)) == 1
