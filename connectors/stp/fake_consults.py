"""What the pretend STP answers when it is asked, with the oddities of the real one.

HTTP 400 for "nothing found", a limit per hour, pages whose total lags behind on the current day, lists that end in
null, a balance as text with two decimals. Each question is signed over its own joined string, and verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from connectors.stp.fake_book import Book, BookedOrder
from connectors.stp.fake_checks import STP, joined, matches, of_order, pesos, printed
from connectors.stp.fake_companies import Company

ConsultAnswer = tuple[int, dict[str, Any]]

_BAD: Final = (400, {"estado": 2, "mensaje": "Peticion invalida"})
_LIMIT: Final = (400, {"estado": 3, "mensaje": "Limite de consultas excedido"})
_NOTHING: Final = (400, {"estado": 6, "mensaje": "No se encontraron datos relacionados"})
_FUTURE: Final = (400, {"estado": 8, "mensaje": "Fecha de operacion futura"})
_OWN_BOOK: Final = {"LQ": "TLQ", "CN": "TCL", "D": "TD", "L": "TL", "C": "TC", "A": "TA", "CCO": "TLQ"}
"""What the states of an order between two accounts at STP are called."""
_HOUR: Final = 3600.0


class Office(Protocol):
    """What consults need of the simulator."""

    book: Book
    inquiry_limit: int | None
    """Consults that are still answered, whoever asks; all when none."""

    def moment(self) -> float: ...

    def today(self) -> int: ...


class Consults:
    """Answers questions about the book. Each method takes the body as it came and returns HTTP status and body."""

    def __init__(
        self, office: Office, companies: Mapping[str, Company], *, per_hour: int | None, page_size: int
    ) -> None:
        self._office = office
        self._companies = companies
        self._per_hour = per_hour
        self.page_size = page_size

    def order(self, asked: Mapping[str, Any]) -> ConsultAnswer:
        """efws consultaOrden: one order by its key."""
        empresa, clave, kind, day = _texts(asked, "empresa", "claveRastreo", "tipoOrden", "fechaOperacion")
        company = self._asker(asked, joined(empresa, clave, kind, day))
        if company is None or kind not in {"E", "R"} or not _is_day(day):
            return _BAD
        if refused := self._limited(company) or self._future(day):
            return refused
        since, until = (int(day), int(day)) if day else (self._office.today(), 99_999_999)
        order = self._office.book.found(
            empresa, clave, since=since, until=until, at=self._office.moment(), incoming=kind == "R"
        )
        if order is None:
            return _NOTHING
        return 200, {"estado": 0, "mensaje": "Datos consultados correctamente", "respuesta": shown(order)}

    def conciliation(self, asked: Mapping[str, Any]) -> ConsultAnswer:
        """efws V2/conciliacion: a page of a date's orders, sent (E) or received (R). The page is not signed."""
        empresa, kind, day = _texts(asked, "empresa", "tipoOrden", "fechaOperacion")
        company = self._asker(asked, joined(empresa, kind, day))
        page = asked.get("page", 0)
        if company is None or kind not in {"E", "R"} or not _is_day(day) or not isinstance(page, int) or page < 0:
            return _BAD
        if refused := self._limited(company) or self._future(day):
            return refused
        today = self._office.today()
        orders, total = self._office.book.page(
            empresa,
            int(day) if day else today,
            at=self._office.moment(),
            incoming=kind == "R",
            number=page,
            size=self.page_size,
        )
        if not total:
            return _NOTHING[0], _NOTHING[1] | {"datos": [], "total": 0}
        if not day or int(day) == today:
            total = max(0, total - 1)  # the set moves while it is counted
        lines = [shown(order) for order in orders]
        return 200, {"estado": 0, "mensaje": "Datos consultados correctamente", "datos": lines, "total": total}

    def balance(self, asked: Mapping[str, Any]) -> ConsultAnswer:
        """efws consultaSaldoCuenta: what is on an account, and what is being sent from it."""
        empresa, account, day = _texts(asked, "empresa", "cuentaOrdenante", "fecha")
        company = self._asker(asked, joined(empresa, account, day))
        if company is None or account not in company.accounts or not _is_day(day):
            return _BAD
        if refused := self._limited(company):
            return refused
        pending = self._office.book.pending(empresa)
        found = {"cargosPendientes": pesos(pending), "saldo": pesos(company.balance + pending)}
        return 200, {"estado": 0, "mensaje": "Datos consultados correctamente", "respuesta": found}

    # --- The older consults, which answer 200 always

    def orders_of_day(self, asked: Mapping[str, Any]) -> ConsultAnswer:
        """consOrdenesFech: every order of a date in one list, whose last element is null."""
        company, day = self._of_old(asked), printed("", asked.get("fechaOperacion"))
        kind = asked.get("estado")
        if company is None or kind not in {"E", "R"} or not _is_day(day):
            return _old(0, "Error validando la firma")
        orders, total = self._office.book.page(
            company.empresa,
            int(day) if day else self._office.today(),
            at=self._office.moment(),
            incoming=kind == "R",
            number=0,
            size=1_000_000,
        )
        if not total:
            return _old(-100, "No se encontraron ordenes")
        return 200, {"resultado": {"id": 1, "lst": [*(shown(order) for order in orders), None]}}

    def sent_order(self, asked: Mapping[str, Any]) -> ConsultAnswer:
        """consOrdEnvRastreo: one sent order by its key."""
        company, day = self._of_old(asked), printed("", asked.get("fechaOperacion"))
        if company is None or not _is_day(day):
            return _old(0, "Error validando la firma")
        since, until = (int(day), int(day)) if day else (self._office.today(), 99_999_999)
        clave = printed("", asked.get("claveRastreo"))
        found = self._office.book.found(company.empresa, clave, since=since, until=until, at=self._office.moment())
        if found is None:
            return _old(-100, "No se encontraron ordenes")
        return 200, {"resultado": {"id": 1, "ordenPago": shown(found)}}

    def sums(self, asked: Mapping[str, Any]) -> ConsultAnswer:
        """consSaldoEnvRec: how much went out and came in on a date."""
        company = self._of_old(asked)
        if company is None:
            return _old(0, "Error validando la firma")
        day = asked.get("fechaOperacion")
        sums = []
        for kind, incoming in (("E", False), ("R", True)):
            number, amount = self._office.book.sums(
                company.empresa, int(day) if day else self._office.today(), incoming=incoming
            )
            sums.append({"montoTotal": pesos(amount), "tipoOperacion": kind, "totalOperaciones": number})
        return 200, {"resultado": {"id": 1, "saldos": [*sums, None]}}

    # ---

    def _asker(self, asked: Mapping[str, Any], signed: str) -> Company | None:
        company = self._companies.get(printed("", asked.get("empresa")))
        return company if company is not None and company.signed(signed, asked.get("firma")) else None

    def _of_old(self, asked: Mapping[str, Any]) -> Company | None:
        names = ("empresa", "fechaOperacion", "claveRastreo", "institucionOperante")
        return self._asker(asked, of_order({name: asked.get(name) for name in names}))

    def _limited(self, company: Company) -> ConsultAnswer | None:
        """Count a question, or refuse it."""
        office, now = self._office, self._office.moment()
        if office.inquiry_limit is not None:
            if office.inquiry_limit <= 0:
                return _LIMIT
            office.inquiry_limit -= 1
        if self._per_hour is not None:
            company.consults[:] = [at for at in company.consults if now - at < _HOUR]
            if len(company.consults) >= self._per_hour:
                return _LIMIT
            company.consults.append(now)
        return None

    def _future(self, day: str) -> ConsultAnswer | None:
        return _FUTURE if day and int(day) > self._office.today() else None


def shown(order: BookedOrder) -> dict[str, Any]:
    """An order as consults show it."""
    fields = order.fields
    own_book = STP in {str(fields.get("institucionContraparte")), str(fields.get("institucionOrdenante"))}
    settled = order.estado in {"LQ", "CCO"}
    sealed = settled and not own_book
    bad_seal = order.centavos % 100 == 8
    other_name = order.centavos % 100 == 7
    name = fields.get("nombreBeneficiario")
    return {
        "idEF": order.id,
        "claveRastreo": order.clave,
        "claveRastreoDevolucion": fields.get("claveRastreoDevolucion"),
        "conceptoPago": fields.get("conceptoPago"),
        "cuentaBeneficiario": fields.get("cuentaBeneficiario"),
        "cuentaOrdenante": fields.get("cuentaOrdenante"),
        "empresa": order.empresa,
        "estado": _OWN_BOOK.get(order.estado, order.estado) if own_book else order.estado,
        "fechaOperacion": order.fecha_operacion,
        "institucionContraparte": fields.get("institucionContraparte", fields.get("institucionOrdenante")),
        "institucionOperante": fields.get("institucionOperante", fields.get("institucionBeneficiaria")),
        "monto": pesos(order.centavos),
        "nombreBeneficiario": name,
        "nombreOrdenante": fields.get("nombreOrdenante"),
        "referenciaNumerica": fields.get("referenciaNumerica"),
        "causaDevolucion": order.causa,
        "tipoPago": fields.get("tipoPago"),
        "topologia": "V",
        "tsCaptura": int(order.captured_at * 1000),
        "tsLiquidacion": None if order.settled_at is None else int(order.settled_at * 1000),
        "tsEntrega": 4524 if settled else None,
        "sello": None if not sealed else ("SELLO|FALSO" if bad_seal else f"SIMULADO{order.id}"),
        "urlCEP": f"https://cep.simulado.example/{order.id}" if sealed else None,
        "nombreCep": None if not sealed else ("OTRA PERSONA" if other_name else name),
        "rfcCep": fields.get("rfcCurpBeneficiario") if sealed else None,
    }


def _texts(asked: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(printed("", asked.get(name)) for name in names)


def _is_day(text: str) -> bool:
    return not text or matches("[0-9]{8}", text)


def _old(number: int, text: str) -> ConsultAnswer:
    return 200, {"resultado": {"id": number, "descripcionError": text}}
