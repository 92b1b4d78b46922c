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


def test_a_missing_file_is_named(tmp_path, key_files):
    with pytest.raises(OrderFileError, match=r"none\.json: No such file"):
        sign_file(tmp_path / "none.json", key_files[0])
