"""How the pretend STP reads what it is sent, and what it checks of an order, in STP's own order of checks.

Written down once more on purpose, from the same sources as the connector: a simulator that shared the connector's code
would agree with its mistakes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from clabe import BANKS, compute_control_digit

from connectors.stp.calendar import is_banking_day

FIELDS: Final = (
    "institucionContraparte",
    "empresa",
    "fechaOperacion",
    "folioOrigen",
    "claveRastreo",
    "institucionOperante",
    "monto",
    "tipoPago",
    "tipoCuentaOrdenante",
    "nombreOrdenante",
    "cuentaOrdenante",
    "rfcCurpOrdenante",
    "tipoCuentaBeneficiario",
    "nombreBeneficiario",
    "cuentaBeneficiario",
    "rfcCurpBeneficiario",
    "emailBeneficiario",
    "tipoCuentaBeneficiario2",
    "nombreBeneficiario2",
    "cuentaBeneficiario2",
    "rfcCurpBeneficiario2",
    "conceptoPago",
    "conceptoPago2",
    "claveCatUsuario1",
    "claveCatUsuario2",
    "clavePago",
    "referenciaCobranza",
    "referenciaNumerica",
    "tipoOperacion",
    "topologia",
    "usuario",
    "medioEntrega",
    "prioridad",
    "iva",
)
_MANDATORY: Final = (
    "institucionContraparte",
    "claveRastreo",
    "institucionOperante",
    "monto",
    "tipoPago",
    "nombreBeneficiario",
    "cuentaBeneficiario",
    "tipoCuentaBeneficiario",
    "rfcCurpBeneficiario",
    "conceptoPago",
    "referenciaNumerica",
)
STP: Final = "90646"
_LENGTHS: Final = {"40": (18,), "3": (15, 16), "10": (10,)}
_INSTITUTIONS: Final = frozenset(int(code) for code in BANKS.values()) | {846, 2001}
_MEANS: Final = frozenset({"", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"})


class Refused(Exception):
    """STP's no."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text = number, text
        super().__init__(f"{number} {text}")

    def answer(self) -> dict[str, Any]:
        return {"resultado": {"id": self.number, "descripcionError": self.text}}


def check(fields: Mapping[str, str], *, payer_accounts: Set[str], today: int, stp_to_stp: bool) -> None:
    """STP's checks of an order, in its order. Raises `Refused` for the first that fails."""
    for name in _MANDATORY:
        if not fields[name].strip():
            raise Refused(0, f"El campo &lt;{name}&gt; es obligatorio")
    to_stp = fields["institucionContraparte"] == STP
    checks: tuple[tuple[bool, int, str], ...] = (
        (bool(fields["cuentaOrdenante"]), -200, "Rechazada por PLD"),
        (fields["cuentaOrdenante"] in payer_accounts, -7, "La cuenta no existe"),
        (_is_institution(fields["institucionContraparte"]), -9, "La institucion contraparte es invalida"),
        (fields["tipoCuentaBeneficiario"] in _LENGTHS, -11, "El tipo de cuenta es invalido"),
        (_length_fits(fields), -23 if fields["tipoCuentaBeneficiario"] == "40" else -11, "Longitud de la cuenta"),
        (_check_digit_fits(fields), -21, "Digito verificador invalido"),
        (_prefix_fits(fields), -22, "La CLABE no coincide con la institucion"),
        (fields["cuentaBeneficiario"] != fields["cuentaOrdenante"], -24, "Cuentas iguales"),
        (0 < centavos(fields["monto"]) < 10**19, -20, "El monto es invalido"),
        (matches("[A-Za-z0-9]+", fields["claveRastreo"]), -34, "Caracteres invalidos en la clave de rastreo"),
        (len(fields["claveRastreo"]) <= 30, -26, "La clave de rastreo es invalida"),
        (matches("[1-9][0-9]{0,6}", fields["referenciaNumerica"]), -34, "Referencia numerica invalida"),
        (matches("[0-9]|[12][0-9]|3[0-6]", fields["tipoPago"]), -13, "El tipo de pago es invalido"),
        (fields["medioEntrega"] in _MEANS, -10, "El medio de entrega es invalido"),
        (_date_fits(fields["fechaOperacion"], today), -16, "La fecha de operacion es invalida"),
        (stp_to_stp or not to_stp, -31, "La institucion no es valida para operar con POA"),
    )
    for fits, number, text in checks:
        if not fits:
            raise Refused(number, text)


def parsed(body: bytes) -> dict[str, Any] | None:
    """A JSON object; nothing when it is none. Numbers with a point stay decimal."""
    try:
        found = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def printed(name: str, value: Any) -> str:
    """A value as it stands in the signed string."""
    if value is None:
        return ""
    if name in {"monto", "iva"}:
        try:
            return f"{Decimal(str(value)):.2f}"
        except InvalidOperation:
            return str(value)
    return str(value)


def of_order(values: Mapping[str, Any]) -> str:
    """The string that is signed for an order, and for the older consults: the 34 values joined."""
    return f"||{'|'.join(printed(name, values.get(name)) for name in FIELDS)}||"


def joined(*values: str) -> str:
    """The string that is signed for everything else."""
    return f"||{'|'.join(values)}||"


def centavos(amount: str) -> int:
    """-1 for what is no amount."""
    try:
        return int(Decimal(amount) * 100)
    except (InvalidOperation, ValueError, OverflowError):
        return -1


def pesos(amount: int) -> str:
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // 100}.{abs(amount) % 100:02d}"


def number_of(day: date) -> int:
    """A date as STP writes it, 20261118."""
    return int(day.strftime("%Y%m%d"))


def matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII) is not None


def _is_institution(text: str) -> bool:
    return matches("[0-9]{3,5}", text) and int(text) in _INSTITUTIONS


def _length_fits(fields: Mapping[str, str]) -> bool:
    account = fields["cuentaBeneficiario"]
    return matches("[0-9]+", account) and len(account) in _LENGTHS.get(fields["tipoCuentaBeneficiario"], ())


def _check_digit_fits(fields: Mapping[str, str]) -> bool:
    account = fields["cuentaBeneficiario"]
    if fields["tipoCuentaBeneficiario"] != "40":
        return True
    return matches("[0-9]{18}", account) and bool(compute_control_digit(account[:17]) == account[17])


def _prefix_fits(fields: Mapping[str, str]) -> bool:
    if fields["tipoCuentaBeneficiario"] != "40":
        return True
    institution = fields["institucionContraparte"]
    return institution[-3:].rjust(3, "0") == fields["cuentaBeneficiario"][:3]


def _date_fits(text: str, today: int) -> bool:
    if not text:
        return True
    try:
        day = datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 (a date has no zone)
    except ValueError:
        return False
    return is_banking_day(day) and int(text) >= today
