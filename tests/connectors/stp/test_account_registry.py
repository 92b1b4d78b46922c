"""Accounts of customers at STP: what is sent, and what the answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connectors.stp.account_registry import (
    AccountFileError,
    AccountRegistry,
    CompanyAccount,
    PersonAccount,
    Registered,
    Registration,
    plain,
    read_accounts,
    read_registered,
)
from connectors.stp.accounts import is_clabe
from connectors.stp.transport import NoReply, NotSent
from hub.errors import Unavailable, Uncertain
from hub.transfer import TenantId

PERSON: dict[str, Any] = {
    "cuenta": "646180110400000010", "rfcCurp": "GODE561231GR8", "nombre": "José-María", "apellidoPaterno": "Núñez",
    "fechaNacimiento": "19561231", "calle": "Av. Insurgentes, Sur", "email": "jose.maria@example.com", "cp": "06600",
}  # fmt: skip
COMPANY: dict[str, Any] = {
    "cuenta": "646180110400000010", "rfcCurp": "ABC680524P76", "nombre": "Abarrotes del Centro, S.A. de C.V.",
    "fechaConstitucion": 19680524,
}  # fmt: skip


def _clabes(count):
    digits = (f"6461801104{number:07d}" for number in range(1000, 1000 + count))
    return [next(each + str(last) for last in range(10) if is_clabe(each + str(last))) for each in digits]


@pytest.fixture
def registry(rail):
    profile = rail.worker._profiles.of(TenantId("greenbank"))
    return AccountRegistry(rail.stp, profile.sender.company, profile.signer)


def _known(rail):
    return {account["cuenta"] for account in rail.simulator.book.accounts(rail.settings.company)}


async def test_an_account_is_registered_once_and_removed(rail, registry):
    for account in (PersonAccount(**PERSON), CompanyAccount(**COMPANY)):
        assert await registry.register([account]) == [Registered(Registration.DONE)]
        [again] = await registry.register([account])
        assert (again.result, again.error_id) == (Registration.ALREADY_THERE, 3)
        assert account.cuenta in _known(rail)
        assert (await registry.remove(account)).result is Registration.DONE
        assert account.cuenta not in _known(rail)
        assert (await registry.remove(account)).result is Registration.REFUSED


async def test_many_accounts_go_in_batches_of_a_hundred_each_signed(rail, registry, monkeypatch):
    calls = []
    command = rail.stp.command

    async def counting(operation, method, path, body):
        calls.append((path, len(json.loads(body).get("cuentasFisicas", [None]))))
        return await command(operation, method, path, body)

    monkeypatch.setattr(rail.stp, "command", counting)
    accounts = [PersonAccount(**PERSON | {"cuenta": clabe}) for clabe in _clabes(201)]
    answers = await registry.register(accounts)
    assert [answer.result for answer in answers] == [Registration.DONE] * 201
    module = "/speiws/rest/cuentaModule/"
    assert calls == [(f"{module}fisicas", 100), (f"{module}fisicas", 100), (f"{module}fisica", 1)]
    assert {account.cuenta for account in accounts} <= _known(rail)


async def test_a_call_that_broke_says_whether_it_left(registry, monkeypatch, rail):
    def breaking(error):
        async def breaks(*_, **__):
            raise error

        return breaks

    for error, kind in ((NotSent("x"), Unavailable), (NoReply("x"), Uncertain)):
        monkeypatch.setattr(rail.stp, "command", breaking(error))
        with pytest.raises(kind):
            await registry.register([PersonAccount(**PERSON)])
        with pytest.raises(kind):
            await registry.remove(PersonAccount(**PERSON))


def test_text_is_capital_ascii_without_dashes_commas_and_stops():
    person = PersonAccount(**PERSON)
    assert (person.nombre, person.apellidoPaterno, person.calle) == ("JOSE MARIA", "NUNEZ", "AV INSURGENTES SUR")
    assert person.email == "jose.maria@example.com"
    assert plain("S.A. de C.V.") == "S A DE C V"
    assert plain("|...|") is None


def test_what_is_signed_is_company_account_and_tax_id():
    assert PersonAccount(**PERSON).joined("TAMIZI") == "||TAMIZI|646180110400000010|GODE561231GR8||"
    sent = CompanyAccount(**COMPANY).members("TAMIZI", "s")
    assert sent == {
        "empresa": "TAMIZI", "cuenta": "646180110400000010", "rfcCurp": "ABC680524P76", "pais": 187,
        "nombre": "ABARROTES DEL CENTRO S A DE C V", "fechaConstitucion": "19680524", "firma": "s",
    }  # fmt: skip
    assert "110400" not in repr(PersonAccount(**PERSON))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cuenta": "646180110400000011"}, "/1/cuenta: .*check digit"),
        ({"rfcCurp": "X"}, "/1/rfcCurp: .*RFC or a CURP"),
        ({"nombre": "😀"}, "/1/nombre"),
        ({"nombre": "x" * 51}, "/1/nombre: .*50"),
        ({"fechaNacimiento": "19561331"}, "/1/fechaNacimiento: .*yyyymmdd"),
        ({"fechaNacimiento": True}, "/1/fechaNacimiento: .*yyyymmdd"),
        ({"genero": "X"}, "/1/genero"),
        ({"entidadFederativa": 33}, "/1/entidadFederativa"),
        ({"actividadEconomica": 27}, "/1/actividadEconomica"),
        ({"cp": "660"}, "/1/cp"),
        ({"numeroInterior": "123456"}, "/1/numeroInterior"),
        ({"alias": "x"}, "/1/alias"),
    ],
)
def test_a_field_that_stp_would_refuse_is_named(changes, said):
    with pytest.raises(AccountFileError, match=said):
        read_accounts(json.dumps([PERSON, PERSON | changes]), "fisica")


def test_a_file_holds_one_account_or_a_list():
    assert read_accounts(json.dumps(COMPANY), "moral") == read_accounts(json.dumps([COMPANY]), "moral")
    for text, said in (("{", "not JSON"), ("[1]", "/0: must be a JSON object"), ("[" * 100_000, "not JSON")):
        with pytest.raises(AccountFileError, match=said):
            read_accounts(text, "moral")


@pytest.mark.parametrize(
    ("kind", "number", "result"),
    [("fisica", 0, "done"), ("fisica", 3, "already-there"), ("moral", 0, "done"), ("moral", 3, "already-there")]
    + [("fisica", number, "refused") for number in (1, 2, 4, 5, 6, 7, 9, 7564945, -1)]
    + [("moral", number, "refused") for number in (1, 2, 4, 5, 6, 7, 8, 9, 7564945, -1)],
)
def test_every_number_but_zero_is_a_no_whatever_its_length(kind, number, result):
    """The rule of orders, by which a long number is a yes, does not hold here."""
    for shown in (number, str(number)):
        [answer] = read_registered(kind, 200, json.dumps({"id": shown, "descripcion": "x"}).encode(), 1)
        assert answer.result == result


@pytest.mark.parametrize(
    ("status", "body", "count", "results"),
    [
        (200, b'[{"id":0},{"id":3},{"id":1}]', 3, ["done", "already-there", "refused"]),
        (200, b'[{"id":0}]', 2, ["unknown", "unknown"]),
        (200, b'{"id":0}', 2, ["unknown", "unknown"]),
        (200, b'{"id":2}', 2, ["refused", "refused"]),
        (200, b'{"resultado":{"id":7564945}}', 1, ["done"]),
        (200, b'{"resultado":{"id":-1,"descripcionError":"x"}}', 1, ["unknown"]),
        (200, b'{"descripcion":"x"}', 1, ["unknown"]),
        (200, b'{"id":true}', 1, ["unknown"]),
        (200, b"null", 1, ["unknown"]),
        (200, b"<html>", 1, ["unknown"]),
        (500, b'{"id":0}', 1, ["unknown"]),
    ],
)
def test_what_cannot_be_read_is_unknown(status, body, count, results):
    assert [answer.result for answer in read_registered("fisica", status, body, count)] == results
