"""`payhub stp sign`: the order that a person wrote down, joined and signed."""

from __future__ import annotations

import json

import pytest

from connectors.stp.seal import OrderFileError, sign_file
from connectors.stp.signature import Checker

V1 = {
    "institucionContraparte": 40072, "empresa": "TAMIZI", "claveRastreo": "CR1564969083", "institucionOperante": 90646,
    "monto": 1.2, "tipoPago": 1, "tipoCuentaOrdenante": 40, "cuentaOrdenante": "646180110400000007",
    "tipoCuentaBeneficiario": 40, "nombreBeneficiario": "Ricardo Sanchez", "cuentaBeneficiario": "072691004495711499",
    "rfcCurpBeneficiario": "ND", "conceptoPago": "Prueba", "referenciaNumerica": 5273144, "topologia": "T",
    "medioEntrega": 3, "prioridad": 0,
}  # fmt: skip
JOINED = "||40072|TAMIZI|||CR1564969083|90646|1.20|1|40||646180110400000007||40|Ricardo Sanchez|072691004495711499|ND||||||Prueba||||||5273144||T||3|0|||"  # noqa: E501


def _file(tmp_path, content):
    path = tmp_path / "order.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("changes", [{}, {"monto": "1.20"}, {"prioridad": "0", "tipoPago": "1"}, {"firma": "x"},
                                     {"iva": None}, {"latitud": "19.4", "usuario": ""}])  # fmt: skip
def test_an_order_is_joined_and_signed_as_it_stands(tmp_path, key_files, changes):  # L42
    private, public = key_files
    sealed = sign_file(_file(tmp_path, V1 | changes), private)
    assert sealed["joined"] == JOINED
    assert set(sealed) == {"joined", "signature"}
    assert Checker.from_pem(public.read_bytes()).matches(JOINED, sealed["signature"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (V1 | {"monto": 1.234}, "monto: has more than two decimals"),
        (V1 | {"conceptoPago": "a|b"}, r"conceptoPago: must not hold \|"),
        (V1 | {"conceptopago": "x"}, "conceptopago: is no field of an order; did you mean conceptoPago"),
        (V1 | {"importe": 1}, "importe: is no field of an order"),
        (V1 | {"tipoPago": "uno"}, "tipoPago: must be a whole number"),
        (V1 | {"nombreBeneficiario": "x" * 41}, "nombreBeneficiario: .*at most 40"),
        (V1 | {"referenciaNumerica": 0}, "referenciaNumerica: "),
        ([], "one JSON object"),
        (b"{", "not JSON: .*line 1"),
        (b"\xff", "not UTF-8"),
        (b'{"monto": 1, "monto": 2}', "monto: is given twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"monto": NaN}', "monto: "),
    ],
)
def test_a_file_that_is_no_order_is_refused_by_field(tmp_path, key_files, content, said):
    with pytest.raises(OrderFileError, match=said):
        sign_file(_file(tmp_path, content), key_files[0])


FULL = {
    "institucionContraparte": 40072, "empresa": "TAMIZI", "fechaOperacion": 20261118, "folioOrigen": "F-1",
    "claveRastreo": "CR1", "institucionOperante": 90646, "monto": 1250.5, "tipoPago": 1, "tipoCuentaOrdenante": 40,
    "nombreOrdenante": "Ana", "cuentaOrdenante": "646180110400000007", "rfcCurpOrdenante": "ND",
    "tipoCuentaBeneficiario": 40, "nombreBeneficiario": "Luis Núñez", "cuentaBeneficiario": "072691004495711499",
    "rfcCurpBeneficiario": "GODE561231GR8", "emailBeneficiario": "luis@example.com", "tipoCuentaBeneficiario2": 3,
    "nombreBeneficiario2": "Eva", "cuentaBeneficiario2": "4242424242424242", "rfcCurpBeneficiario2": "ND",
    "conceptoPago": "Renta", "conceptoPago2": "Mayo", "claveCatUsuario1": "U1", "claveCatUsuario2": "U2",
    "clavePago": "P1", "referenciaCobranza": "C1", "referenciaNumerica": 7, "tipoOperacion": 8, "topologia": "T",
    "usuario": "hub", "medioEntrega": 3, "prioridad": 1, "iva": "0", "latitud": "19.4", "longitud": "-99.1",
}  # fmt: skip


def test_all_34_fields_stand_in_stps_order(tmp_path, key_files):  # L42
    shuffled = dict(sorted(FULL.items(), key=lambda item: item[0][::-1]))
    assert sign_file(_file(tmp_path, shuffled), key_files[0])["joined"] == (
        "||40072|TAMIZI|20261118|F-1|CR1|90646|1250.50|1|40|Ana|646180110400000007|ND|40|Luis Núñez|"
        "072691004495711499|GODE561231GR8|luis@example.com|3|Eva|4242424242424242|ND|Renta|Mayo|U1|U2|P1|C1|7|8|T|hub|"
        "3|1|0.00||"
    )


@pytest.mark.parametrize("name", [name for name in FULL if name not in {"latitud", "longitud"}])
def test_a_value_of_the_wrong_kind_is_refused_by_the_name_of_its_field(tmp_path, key_files, name):
    wrong_ones: list[object] = [True, [], {}, "a|b", "\u0007", 1.5 if name not in {"monto", "iva"} else 1.555]
    for wrong in wrong_ones:
        with pytest.raises(OrderFileError, match=rf"order\.json: {name}: "):
            sign_file(_file(tmp_path, FULL | {name: wrong}), key_files[0])


def test_an_encrypted_key_with_text_around_it_signs_too(tmp_path, key_files):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(key_files[0].read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"clave")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (tmp_path / "bag.pem").write_bytes(b"Bag Attributes\n    localKeyID: 01\n" + pem)
    order = _file(tmp_path, FULL)
    assert sign_file(order, tmp_path / "bag.pem", "clave") == sign_file(order, key_files[0])


def test_a_missing_file_is_named(tmp_path, key_files):
    with pytest.raises(OrderFileError, match=r"none\.json: No such file"):
        sign_file(tmp_path / "none.json", key_files[0])
