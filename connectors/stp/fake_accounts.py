"""The pretend STP's other writes: accounts registered and removed, one or a hundred at once, and money given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from connectors.stp.fake_book import Book
from connectors.stp.fake_checks import Refused, centavos, joined, matches, pesos, printed
from connectors.stp.fake_companies import Company

_MOST: Final = 100
_MANDATORY: Final = {
    "fisica": ("nombre", "apellidoPaterno", "paisNacimiento", "fechaNacimiento"),
    "moral": ("nombre", "pais", "fechaConstitucion"),
}
_IN_REVIEW: Final = {"descripcion": "Cuenta en revisión.", "id": 0}
_GIVEN_BACK: Final = 17
"""`tipoPago` of money given back."""


class Registry:
    """Accounts of the companies' customers. Its numbers mean other things than those of orders."""

    def __init__(self, book: Book, companies: Mapping[str, Company]) -> None:
        self._book = book
        self._companies = companies
        for company in companies.values():
            company.accounts |= {account["cuenta"] for account in book.accounts(company.empresa)}

    def register(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """PUT of one account, `fisica` or `moral`."""
        company = self._signer(given)
        if company is None or not matches("[0-9]{18}", printed("", given.get("cuenta"))):
            return {"descripcion": "Firma invalida", "id": 1}
        missing = next((name for name in _MANDATORY[kind] if not printed("", given.get(name)).strip()), None)
        if missing is not None:
            return {"descripcion": f"Campo obligatorio: {missing}", "id": 5}
        if not self._book.add_account(company.empresa, str(given["cuenta"]), kind, given):
            return {"descripcion": "Cuenta duplicada", "id": 3}
        company.accounts.add(str(given["cuenta"]))
        return dict(_IN_REVIEW)

    def register_all(self, kind: str, batch: object) -> Any:
        """PUT of up to a hundred, each with a signature of its own; the answers stand in the same order."""
        if not isinstance(batch, list) or len(batch) > _MOST:
            return {"descripcion": "Más de 100 cuentas", "id": 2}
        return [self.register(kind, one) if isinstance(one, dict) else {"descripcion": "", "id": 1} for one in batch]

    def remove(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """DELETE of one account."""
        company = self._signer(given)
        if company is None or not self._book.remove_account(company.empresa, str(given.get("cuenta")), kind):
            return {"descripcion": "Cuenta o firma invalida", "id": 1}
        company.accounts.discard(str(given["cuenta"]))
        return {"descripcion": "", "id": 0}

    def _signer(self, given: Mapping[str, Any]) -> Company | None:
        empresa, cuenta, rfc = (printed("", given.get(name)) for name in ("empresa", "cuenta", "rfcCurp"))
        company = self._companies.get(empresa)
        return company if company and company.signed(joined(empresa, cuenta, rfc), given.get("firma")) else None


def give_back(
    book: Book, companies: Mapping[str, Company], given: Mapping[str, Any], *, today: int, at: float
) -> dict[str, Any]:
    """retornaOrden: send money back that came in. Raises `Refused`: 0 for the signature, -1 for an unknown order."""
    names = (
        "fechaOperacion", "institucionOperante", "claveRastreo", "monto", "digitoIdentificadorBeneficiario",
        "claveRastreoDevolucion", "medioEntrega",
    )  # fmt: skip
    values = {name: printed(name, given.get(name)) for name in names}
    company = companies.get(printed("", given.get("empresa")))
    if company is None or not company.signed(joined(*values.values()), given.get("firma")):
        raise Refused(0, "Error validando la firma")
    clave, back = values["claveRastreo"], values["claveRastreoDevolucion"]
    came_in = next(
        (
            deposit.order
            for deposit in book.deposits(clave)
            if deposit.order.empresa == company.empresa
            and str(deposit.order.fecha_operacion) == values["fechaOperacion"]
            and str(deposit.order.fields.get("institucionOrdenante")) == values["institucionOperante"]
            and deposit.order.centavos == centavos(values["monto"])
            and deposit.order.estado == "CCO"
        ),
        None,
    )
    if came_in is None or not back or back == clave:
        raise Refused(-1, "No se encontró la orden")
    if book.is_taken(company.empresa, back, today):
        raise Refused(-2, "Orden duplicada")
    fields = {
        "empresa": company.empresa,
        "claveRastreo": back,
        "monto": pesos(came_in.centavos),
        "tipoPago": _GIVEN_BACK,
        "institucionContraparte": came_in.fields.get("institucionOrdenante"),
        "institucionOperante": came_in.fields.get("institucionBeneficiaria"),
        "cuentaOrdenante": came_in.fields.get("cuentaBeneficiario"),
        "cuentaBeneficiario": came_in.fields.get("cuentaOrdenante"),
        "nombreBeneficiario": came_in.fields.get("nombreOrdenante"),
        "claveRastreoDevolucion": clave,
    }
    order_id, _ = book.add(
        fields=fields, fecha_operacion=today, centavos=came_in.centavos, at=at, visible_from=at, steps=[],
        came_to="accepted",
    )  # fmt: skip
    book.move(order_id, "LQ", None, at)
    book.close_incoming(came_in.id, "D", None, None)
    company.balance -= came_in.centavos
    return {"resultado": {"id": order_id}}
