"""The pretend STP itself: takes orders in or refuses them, lets happen what will happen to them, and tells of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from connectors.stp.calendar import operation_date
from connectors.stp.fake_accounts import Registry, give_back
from connectors.stp.fake_book import MONEY_IS_HERE, Book, BookedOrder, Due
from connectors.stp.fake_checks import FIELDS, Refused, centavos, check, joined, number_of, parsed, printed
from connectors.stp.fake_companies import Company, Poster, companies
from connectors.stp.fake_consults import Consults
from connectors.stp.fake_deposits import Deposits
from connectors.stp.fake_scenarios import BY_CENTS, SETTLES, Faults, Rule, Scenario, Step
from connectors.stp.settings import StpSimulatorSettings

_RECEIVED: Final = "recibido"
_MOST_POSTS: Final = 20
_WORDS: Final = {
    "A": {"LQ": "LIQUIDACION", "D": "DEVOLUCION", "CN": "CANCELACION"},
    "B": {"LQ": "Success", "D": "Refund", "CN": "Cancel"},
}


class Simulator:
    """A book, a clock, rules, chance, and something that posts callbacks."""

    def __init__(self, settings: StpSimulatorSettings, book: Book) -> None:
        self._settings = settings
        self._tasks: set[asyncio.Task[None]] = set()
        self.book = book
        self.companies = companies(settings)
        self.rules: list[Rule] = []
        self.faults = Faults()
        self.clock_offset = 0.0
        self.consult_only = False
        self.down = False
        self.inquiry_limit: int | None = None
        self.registry = Registry(book, self.companies)
        self.consults = Consults(
            self, self.companies, per_hour=settings.consults_per_hour, page_size=settings.page_size
        )
        self.deposits = Deposits(self, self.companies, settings)
        for company in self.companies.values():
            gone, came = (book.sums(company.empresa, None, incoming=incoming)[1] for incoming in (False, True))
            company.balance = company.opening_balance - gone + came

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: StpSimulatorSettings) -> AsyncIterator[Simulator]:
        """Open the book, take up what was left to do, and stop everything on leaving."""
        simulator = cls(settings, Book(settings.book_file))
        for due in simulator.book.open_steps():
            simulator._start(due)
        simulator.deposits.take_up()
        try:
            yield simulator
        finally:
            await simulator.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.deposits.close()
        for company in self.companies.values():
            company.close()
        self.book.close()

    @property
    def company(self) -> Company:
        """The company that the settings themselves name."""
        return self.companies[self._settings.company]

    @property
    def repeat_every(self) -> float:
        return self._settings.repeat_every

    def moment(self) -> float:
        """Now on the simulator's clock, in seconds since the epoch."""
        return time.time() + self.clock_offset

    def today(self) -> int:
        return number_of(operation_date(datetime.fromtimestamp(self.moment(), UTC)))

    # --- Orders -----------------------------------------------------------------------------------------------------

    async def register(self, order: Mapping[str, Any]) -> tuple[Scenario, int, dict[str, Any]]:
        """Take an order in or refuse it: the scenario that applies, the HTTP status, the answer."""
        fields = {name: printed(name, order.get(name)) for name in FIELDS}
        clave, scenario = fields["claveRastreo"], SETTLES
        try:
            company = self._signer(fields, order.get("firma"))
            check(
                fields,
                payer_accounts=company.accounts,
                today=self.today(),
                stp_to_stp=self._settings.stp_to_stp,
            )
            today = int(fields["fechaOperacion"] or self.today())
            if self._is_taken(company, clave, today):
                raise _already(clave, today, fields["institucionContraparte"])
            scenario = self._scenario(fields)
            if self.consult_only:
                raise Refused(-30, "Plataforma en modo de consulta")  # noqa: TRY301
            if scenario.refuse is not None and not (scenario.refuse == -1 and scenario.registers):
                raise Refused(scenario.refuse, scenario.text)  # noqa: TRY301
        except Refused as no:
            self.book.add_attempt(clave, self.moment(), str(no.number))
            return scenario, 200, no.answer()
        if not scenario.registers:
            self.book.add_attempt(clave, self.moment(), "not registered")
            return scenario, 200, _no_response()
        order_id, first = self._take_in(company, order, fields, scenario, today)
        if scenario.callback_first and first is not None:
            await self._run(first)
        elif first is not None:
            self._start(first)
        if scenario.refuse is not None:
            return scenario, 200, _already(clave, today, fields["institucionContraparte"]).answer()
        shown: int | str = str(order_id) if scenario.answer == "id-as-text" else order_id
        answer = _no_response() if scenario.answer == "no-response" else {"resultado": {"id": shown}}
        return scenario, 200, answer

    def give_back(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Send back what came in, as retornaOrden does: the answer's body."""
        try:
            return give_back(self.book, self.companies, given, today=self.today(), at=self.moment())
        except Refused as no:
            return no.answer()

    def _take_in(
        self,
        company: Company,
        order: Mapping[str, Any],
        fields: Mapping[str, str],
        scenario: Scenario,
        today: int,
    ) -> tuple[int, Due | None]:
        """Write the order down; start all that will happen to it but the first step, which is returned."""
        at, amount = self.moment(), centavos(fields["monto"])
        kept = {name: order[name] for name in FIELDS if order.get(name) is not None}
        steps = scenario.steps if amount <= company.balance else (Step(estado="CN"),)
        company.balance -= amount
        delay = time.time() + self._settings.settle_after
        order_id, dues = self.book.add(
            fields=kept,
            fecha_operacion=today,
            centavos=amount,
            at=at,
            visible_from=at + scenario.hidden_for,
            steps=[(delay + step.after, step.model_dump_json(exclude_defaults=True)) for step in steps],
            came_to="accepted",
        )
        for due in dues[1:]:
            self._start(due)
        return order_id, dues[0] if dues else None

    def _signer(self, fields: Mapping[str, str], firma: object) -> Company:
        """The company whose signature this is. Raises `Refused`."""
        company = self.companies.get(fields["empresa"])
        if company is None:
            raise Refused(0, "Firma invalida No entity found for query")
        if not company.signed(joined(*fields.values()), firma):
            raise Refused(0, "Error validando la firma")
        return company

    def _is_taken(self, company: Company, clave: str, day: int) -> bool:
        if self._settings.key_again:
            return self.book.is_taken(company.empresa, clave, day)
        return any(order.empresa == company.empresa for order in self.book.orders(clave))

    def _scenario(self, fields: Mapping[str, str]) -> Scenario:
        for rule in self.rules:
            if rule.applies(fields):
                if rule.uses is not None:
                    rule.uses -= 1
                    if not rule.uses:
                        self.rules.remove(rule)
                return self._still(rule.scenario(), fields["claveRastreo"])
        drawn = self.faults.order()
        if drawn is not None:
            return self._still(drawn, fields["claveRastreo"])
        if not self._settings.by_cents:
            return SETTLES
        return self._still(BY_CENTS.get(centavos(fields["monto"]) % 100, SETTLES), fields["claveRastreo"])

    def _still(self, scenario: Scenario, clave: str) -> Scenario:
        """The scenario, unless this order has met it often enough."""
        if scenario.times is not None and self.book.attempts_of(clave) >= scenario.times:
            return SETTLES
        return scenario

    # --- What happens to an order -----------------------------------------------------------------------------------

    def _start(self, due: Due) -> None:
        task = asyncio.get_running_loop().create_task(self._run(due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, due: Due) -> None:
        """Wait for a step's time, move the order, post it until it is answered rightly."""
        wait = due.due - time.time()
        if wait > 0:
            await asyncio.sleep(wait)
        step = Step.model_validate_json(due.step)
        order = self.book.order(due.order_id)
        if order is None:
            return
        overtaken = order.estado == "D" and step.estado == "LQ"  # told late; what it tells of came first
        if step.key is None and order.estado != step.estado and not overtaken:
            self._move(order, step)
        if not step.report:
            self.book.done(due)
            return
        body = self._callback(order, step)
        right = 0
        while right < step.times and due.attempts < _MOST_POSTS * step.times:
            due = replace(due, attempts=due.attempts + 1)
            status, answer = await self.posted(self.companies[order.empresa].status, body)
            understood = status == 200 and _said(answer) == _RECEIVED
            right += understood
            last = right >= step.times or due.attempts >= _MOST_POSTS * step.times
            self.book.posted(due, self.moment(), body, status, answer, done=last)
            if not understood and not last:
                await asyncio.sleep(min(self.repeat_every * due.attempts, 60))

    async def posted(self, poster: Poster, body: str) -> tuple[int | None, str]:
        """Post, unless chance has something against it."""
        fault = self.faults.callback()
        if fault == "lost":
            return None, "lost on the way"
        if fault == "late":
            await asyncio.sleep(self.faults.wait())
        status, answer = await poster.post(body)
        if fault == "twice":
            status, answer = await poster.post(body)
        return (None, "lost on the way back") if fault == "unheard" else (status, answer)

    def _move(self, order: BookedOrder, step: Step) -> None:
        """The order's new state, and what it does to the company's money."""
        self.book.move(order.id, step.estado, step.causa, self.moment() if step.estado == "LQ" else None)
        was_here, is_here = order.estado in MONEY_IS_HERE, step.estado in MONEY_IS_HERE
        self.companies[order.empresa].balance += order.centavos * (is_here - was_here)

    def _callback(self, order: BookedOrder, step: Step) -> str:
        """The body of a callback in the configured dialect."""
        dialect, word = self.companies[order.empresa].dialect, step.word or step.estado
        order_id = order.id + 900_000_000 if step.key else order.id
        shown: int | str = str(order_id) if step.id_as_text or dialect == "B" else order_id
        settled = 0 if step.estado == "CN" else int(self.moment() * 1000)
        body: dict[str, Any]
        if dialect == "A":
            body = {"id": shown, "Estado": _WORDS["A"].get(word, word), "Detalle": step.causa or ""}
        elif dialect == "B":
            body = {
                "id": shown,
                "empresa": order.empresa,
                "folioOrigen": step.key or order.fields.get("folioOrigen") or order.clave,
                "estado": _WORDS["B"].get(word, word),
                "causaDevolucion": "" if step.causa is None else str(step.causa),
                "tsLiquidacion": str(settled),
            }
        else:
            body = {
                "id": shown,
                "empresa": order.empresa,
                "claveRastreo": step.key or order.clave,
                "estado": word,
                "causaDevolucion": step.causa,
                "tsLiquidacion": settled,
            }
        return json.dumps(body)

    # --- Control ----------------------------------------------------------------------------------------------------

    def force(self, order_id: int, step: Step, *, as_deposit: bool = False) -> bool:
        """Let something happen to an order now. False when there is no such order.

        `as_deposit`: its money is shown a second time, as an incoming order under our own key.
        """
        order = self.book.order(order_id)
        if order is None:
            return False
        self._start(self.book.add_step(order_id, time.time() + step.after, step.model_dump_json(exclude_defaults=True)))
        if as_deposit:
            self.deposits.come_back(order)
        return True


def _already(clave: str, day: int, institution: str) -> Refused:
    text = f"La clave de rastreo {{{clave}}} para la fecha {{{day}}} de la institucion {{{institution}}} ya existe"
    return Refused(-1, text)


def _no_response() -> dict[str, Any]:
    return {"resultado": {"id": 0, "descripcionError": "No se recibió respuesta del servicio"}}


def _said(answer: str) -> object:
    found = parsed(answer.encode())
    return None if found is None else found.get("mensaje")
