"""Money that comes in at the pretend STP: it is posted until it is answered `confirmar` or `devolver`."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field

from connectors.stp.fake_book import Book, BookedOrder, Deposit
from connectors.stp.fake_checks import STP, centavos, parsed, pesos
from connectors.stp.fake_companies import Company, Poster
from connectors.stp.settings import StpSimulatorSettings

_MOST_POSTS: Final = 20
_RETURN: Final = 0
"""`tipoPago` of an order of ours that comes back."""


class Office(Protocol):
    """What deposits need of the simulator."""

    book: Book

    @property
    def company(self) -> Company: ...

    @property
    def repeat_every(self) -> float: ...

    def moment(self) -> float: ...

    def today(self) -> int: ...

    async def posted(self, poster: Poster, body: str) -> tuple[int | None, str]: ...


class Arrival(BaseModel):
    """What the control API says of money that comes in. The sender's bank chooses key and texts as it likes."""

    model_config = ConfigDict(extra="forbid")

    monto: Decimal = Field(gt=0, max_digits=19, decimal_places=2)
    cuentaBeneficiario: str  # noqa: N815
    claveRastreo: str = ""  # noqa: N815
    empresa: str = ""
    institucionOrdenante: int = 40012  # noqa: N815
    fechaOperacion: int | None = None  # noqa: N815
    times: int = Field(default=1, ge=1, le=50)
    """How many times it is posted although it was answered rightly."""
    report: bool = True
    """Whether it is posted at all; what is not stands only in the book."""
    form: str = Field(default="new", pattern="^(new|old)$")
    """`old`: names begin with a capital, and the id is called `Clave`."""
    omit: tuple[str, ...] = ()
    """Fields that are left out of the post."""
    fields: dict[str, Any] = {}
    """Any other field of the post, or another value than it would have."""


class Deposits:
    """Takes money in, posts it, and does with it what the answer says."""

    def __init__(self, office: Office, companies: Mapping[str, Company], settings: StpSimulatorSettings) -> None:
        self._office = office
        self._companies = companies
        self._returned_when_unanswered = settings.unanswered_deposit == "return"
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take_up(self) -> None:
        """Post again what was not answered before a restart."""
        for deposit_id in self._office.book.open_deposits():
            self._start(deposit_id)

    def arrive(self, given: Mapping[str, Any]) -> int:
        """Take money in; its id. Raises `ValueError` for what is no arrival, `KeyError` for an unknown company."""
        arrival = Arrival.model_validate(given)
        company = self._companies[arrival.empresa or self._office.company.empresa]
        clave = arrival.claveRastreo or f"BBVA-{secrets.token_hex(6)}/01"
        fields = {
            "empresa": company.empresa,
            "claveRastreo": clave,
            "monto": str(arrival.monto),
            "institucionOrdenante": arrival.institucionOrdenante,
            "institucionBeneficiaria": int(STP),
            "nombreOrdenante": "PAGADOR DE PRUEBA",
            "tipoCuentaOrdenante": 40,
            "cuentaOrdenante": "012180001183597198",
            "rfcCurpOrdenante": "ND",
            "nombreBeneficiario": "CLIENTE DE PRUEBA",
            "tipoCuentaBeneficiario": 40,
            "cuentaBeneficiario": arrival.cuentaBeneficiario,
            "rfcCurpBeneficiario": "ND",
            "conceptoPago": "DEPOSITO",
            "referenciaNumerica": 1,
            "tipoPago": 1,
        } | arrival.fields
        post = {"times": arrival.times, "form": arrival.form, "omit": list(arrival.omit)}
        return self._take_in(fields, arrival.fechaOperacion or self._office.today(), post, told=arrival.report)

    def come_back(self, order: BookedOrder) -> int:
        """Show a returned order of ours once more, as incoming: our own key, hardly a name."""
        fields = {
            "empresa": order.empresa,
            "claveRastreo": order.clave,
            "claveRastreoDevolucion": f"DEV{order.id}",
            "monto": pesos(order.centavos),
            "institucionOrdenante": order.fields.get("institucionContraparte"),
            "institucionBeneficiaria": int(STP),
            "cuentaBeneficiario": order.fields.get("cuentaOrdenante"),
            "tipoPago": _RETURN,
        }
        return self._take_in(fields, self._office.today(), {"times": 1, "form": "new", "omit": []}, told=True)

    def _take_in(self, fields: Mapping[str, Any], day: int, post: Mapping[str, Any], *, told: bool) -> int:
        at, amount = self._office.moment(), centavos(str(fields["monto"]))
        deposit_id = self._office.book.add_incoming(
            fields=fields, fecha_operacion=day, centavos=amount, at=at, post=post, done=not told
        )
        if told:
            self._start(deposit_id)
        else:
            self._end(deposit_id, "CCO", None)
        return deposit_id

    def _start(self, deposit_id: int) -> None:
        task = asyncio.get_running_loop().create_task(self._tell(deposit_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, deposit_id: int) -> None:
        deposit = self._office.book.incoming(deposit_id)
        if deposit is None:
            return
        times = int(deposit.post["times"])
        body, company = _body(deposit), self._companies[deposit.order.empresa]
        right, attempts = 0, deposit.attempts
        while right < times and attempts < _MOST_POSTS * times:
            attempts += 1
            status, answer = await self._office.posted(company.deposits, body)
            self._office.book.told(deposit_id, self._office.moment(), body, status, answer)
            verdict = _verdict(status, answer)
            if verdict is not None:
                right += 1
                if right == 1:
                    self._end(deposit_id, *verdict)
            elif attempts < _MOST_POSTS * times:
                await asyncio.sleep(min(self._office.repeat_every * attempts, 60))
        if not right:
            self._end(deposit_id, *(("D", 0) if self._returned_when_unanswered else ("CCO", None)))

    def _end(self, deposit_id: int, estado: str, causa: int | None) -> None:
        """Credited or sent back. What comes back of our own orders is on the company's account already."""
        deposit = self._office.book.incoming(deposit_id)
        if deposit is None or deposit.order.estado != "R":
            return
        if estado == "CCO" and deposit.order.fields.get("tipoPago") == _RETURN:
            estado = "LQ"
        if estado == "CCO":
            self._companies[deposit.order.empresa].balance += deposit.order.centavos
        self._office.book.close_incoming(deposit_id, estado, causa, self._office.moment())


def _verdict(status: int | None, answer: str) -> tuple[str, int | None] | None:
    """What an answer says: credited, sent back with a cause, or nothing that STP understands."""
    found = parsed(answer.encode()) or {}
    if status == 200 and found.get("mensaje") == "confirmar":
        return "CCO", None
    if status == 400 and found.get("mensaje") == "devolver":
        causa = found.get("id")
        return "D", causa if isinstance(causa, int) else 0
    return None


def _body(deposit: Deposit) -> str:
    """What is posted: without what is to be left out, an amount as a number, in the form that was asked for."""
    order, post = deposit.order, deposit.post
    body: dict[str, Any] = {
        "id": order.id,
        "fechaOperacion": order.fecha_operacion,
        **order.fields,
        "tsLiquidacion": str(int(order.captured_at * 1000)),
    }
    body = {name: value for name, value in body.items() if name not in post["omit"] and value is not None}
    if post["form"] == "old":
        body = {"Clave" if name == "id" else name[0].upper() + name[1:]: value for name, value in body.items()}
    amount = "Monto" if post["form"] == "old" else "monto"
    text = json.dumps(body)
    return text.replace(f'"{amount}": "{order.fields["monto"]}"', f'"{amount}": {order.fields["monto"]}')
