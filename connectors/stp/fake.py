"""A pretend STP over real HTTP, as nasty as the real one: `payhub serve stp-simulator`. Never for production.

It rebuilds the signed string from the JSON it is sent and verifies the signature with the company's public key; it
checks an order in STP's order of checks; its book is a file; it posts callbacks until they are answered
`{"mensaje":"recibido"}`. What happens to an order is chosen by a rule of the control API or by the cents of its amount
(`fake_scenarios`).

    PUT  /speiws/rest/ordenPago/registra      an order
    POST /efws/API/consultaOrden              what became of it
    GET  /control/orders                      the book; also /control/callbacks, /control/attempts
    POST /control/rules                       {"match": {"conceptoPago": "X"}, "do": "cancel", "uses": 1}; DELETE clears
    POST /control/orders/{id}/state           {"estado": "D", "causa": 1}: now, and posted
    POST /control/clock                       {"now": "2026-11-20T17:59:00-06:00"} or {"advance_seconds": 60}
    POST /control/mode                        {"consult_only": true, "inquiry_limit": 0, "down": false}

The string that is signed, the checks and the words of answers are written down here once more on purpose, from the same
sources as the connector: a simulator that shared the connector's code would agree with its mistakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from clabe import BANKS, compute_control_digit
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from connectors.stp.calendar import is_banking_day, operation_date
from connectors.stp.fake_book import Book, BookedOrder, Due
from connectors.stp.fake_scenarios import BY_CENTS, SETTLES, Rule, Scenario, Step
from connectors.stp.settings import StpSimulatorSettings
from connectors.stp.signature import Checker
from hub.telemetry import logger

_FIELDS: Final = (
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
_LENGTHS: Final = {"40": (18,), "3": (15, 16), "10": (10,)}
_INSTITUTIONS: Final = frozenset(int(code) for code in BANKS.values()) | {846, 2001}
_REGISTER: Final = "/speiws/rest/ordenPago/registra"
_INQUIRE: Final = "/efws/API/consultaOrden"
_AMOUNT: Final = re.compile(r'"monto": "([0-9.]+)"')  # in an inquiry's answer it is a JSON number
_RECEIVED: Final = "recibido"
_MOST_POSTS: Final = 20
_MEANS: Final = frozenset({"", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"})
_WORDS: Final = {
    "A": {"LQ": "LIQUIDACION", "D": "DEVOLUCION", "CN": "CANCELACION"},
    "B": {"LQ": "Success", "D": "Refund", "CN": "Cancel"},
}

log = logger(__name__)


class _Refused(Exception):
    """STP's no."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text = number, text
        super().__init__(f"{number} {text}")


class Simulator:
    """One company's STP: a book, a clock, rules, and something that posts callbacks."""

    def __init__(self, settings: StpSimulatorSettings, book: Book, checker: Checker) -> None:
        self._settings = settings
        self._checker = checker
        self._poster = _Poster(settings.callback_url, settings.callback_secret.get_secret_value())
        self._tasks: set[asyncio.Task[None]] = set()
        self.book = book
        self.rules: list[Rule] = []
        self.clock_offset = 0.0
        self.consult_only = False
        self.down = False
        self.inquiry_limit: int | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: StpSimulatorSettings) -> AsyncIterator[Simulator]:
        """Open the book, take up what was left to do, and stop everything on leaving."""
        simulator = cls(settings, Book(settings.book_file), Checker.from_pem(settings.public_key_file.read_bytes()))
        for due in simulator.book.open_steps():
            simulator._start(due)
        try:
            yield simulator
        finally:
            await simulator.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._poster.close()
        self.book.close()

    def moment(self) -> float:
        """Now on the simulator's clock, in seconds since the epoch."""
        return time.time() + self.clock_offset

    def today(self) -> int:
        return _number(operation_date(datetime.fromtimestamp(self.moment(), UTC)))

    # --- Orders -----------------------------------------------------------------------------------------------------

    async def register(self, order: Mapping[str, Any]) -> tuple[Scenario, int, dict[str, Any]]:
        """Take an order in or refuse it: the scenario that applies, the HTTP status, the answer."""
        fields = {name: _printed(name, order.get(name)) for name in _FIELDS}
        clave, scenario = fields["claveRastreo"], SETTLES
        try:
            self._verify(fields, order.get("firma"))
            self._check(fields)
            today = int(fields["fechaOperacion"] or self.today())
            if self.book.is_taken(fields["empresa"], clave, today):
                raise _already(clave, today, fields["institucionContraparte"])
            scenario = self._scenario(fields)
            if self.consult_only:
                raise _Refused(-30, "Plataforma en modo de consulta")  # noqa: TRY301
            if scenario.refuse is not None and not (scenario.refuse == -1 and scenario.registers):
                raise _Refused(scenario.refuse, scenario.text)  # noqa: TRY301
        except _Refused as no:
            self.book.add_attempt(clave, self.moment(), str(no.number))
            return scenario, 200, {"resultado": {"id": no.number, "descripcionError": no.text}}
        if not scenario.registers:
            self.book.add_attempt(clave, self.moment(), "not registered")
            return scenario, 200, _no_response()
        order_id, first = self._take_in(order, fields, scenario, today)
        if scenario.callback_first and first is not None:
            await self._run(first)
        elif first is not None:
            self._start(first)
        if scenario.refuse is not None:
            taken = _already(clave, today, fields["institucionContraparte"])
            return scenario, 200, {"resultado": {"id": taken.number, "descripcionError": taken.text}}
        shown: int | str = str(order_id) if scenario.answer == "id-as-text" else order_id
        answer = _no_response() if scenario.answer == "no-response" else {"resultado": {"id": shown}}
        return scenario, 200, answer

    def _take_in(
        self, order: Mapping[str, Any], fields: Mapping[str, str], scenario: Scenario, today: int
    ) -> tuple[int, Due | None]:
        """Write the order down; start all that will happen to it but the first step, which is returned."""
        at = self.moment()
        kept = {name: order[name] for name in _FIELDS if order.get(name) is not None}
        delay = time.time() + self._settings.settle_after
        order_id, dues = self.book.add(
            fields=kept,
            fecha_operacion=today,
            centavos=_centavos(fields["monto"]),
            at=at,
            visible_from=at + scenario.hidden_for,
            steps=[(delay + step.after, step.model_dump_json(exclude_defaults=True)) for step in scenario.steps],
            came_to="accepted",
        )
        for due in dues[1:]:
            self._start(due)
        return order_id, dues[0] if dues else None

    def _verify(self, fields: Mapping[str, str], firma: object) -> None:
        if fields["empresa"] != self._settings.company:
            raise _Refused(0, "Firma invalida No entity found for query")
        joined = f"||{'|'.join(fields.values())}||"
        if not isinstance(firma, str) or not self._checker.matches(joined, firma):
            raise _Refused(0, "Error validando la firma")

    def _check(self, fields: Mapping[str, str]) -> None:
        """STP's checks, in its order; the first that fails is the answer."""
        for name in _MANDATORY:
            if not fields[name].strip():
                raise _Refused(0, f"El campo &lt;{name}&gt; es obligatorio")
        checks: tuple[tuple[bool, int, str], ...] = (
            (bool(fields["cuentaOrdenante"]), -200, "Rechazada por PLD"),
            (fields["cuentaOrdenante"] == self._settings.payer_account, -7, "La cuenta no existe"),
            (_is_institution(fields["institucionContraparte"]), -9, "La institucion contraparte es invalida"),
            (fields["tipoCuentaBeneficiario"] in _LENGTHS, -11, "El tipo de cuenta es invalido"),
            (_length_fits(fields), -23 if fields["tipoCuentaBeneficiario"] == "40" else -11, "Longitud de la cuenta"),
            (_check_digit_fits(fields), -21, "Digito verificador invalido"),
            (_prefix_fits(fields), -22, "La CLABE no coincide con la institucion"),
            (fields["cuentaBeneficiario"] != fields["cuentaOrdenante"], -24, "Cuentas iguales"),
            (0 < _centavos(fields["monto"]) < 10**19, -20, "El monto es invalido"),
            (_matches("[A-Za-z0-9]+", fields["claveRastreo"]), -34, "Caracteres invalidos en la clave de rastreo"),
            (len(fields["claveRastreo"]) <= 30, -26, "La clave de rastreo es invalida"),
            (_matches("[1-9][0-9]{0,6}", fields["referenciaNumerica"]), -34, "Referencia numerica invalida"),
            (_matches("[0-9]|[12][0-9]|3[0-6]", fields["tipoPago"]), -13, "El tipo de pago es invalido"),
            (fields["medioEntrega"] in _MEANS, -10, "El medio de entrega es invalido"),
            (self._date_fits(fields["fechaOperacion"]), -16, "La fecha de operacion es invalida"),
        )
        for fits, number, text in checks:
            if not fits:
                raise _Refused(number, text)

    def _date_fits(self, text: str) -> bool:
        if not text:
            return True
        try:
            day = datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 (a date has no zone)
        except ValueError:
            return False
        return is_banking_day(day) and int(text) >= self.today()

    def _scenario(self, fields: Mapping[str, str]) -> Scenario:
        for rule in self.rules:
            if rule.applies(fields):
                if rule.uses is not None:
                    rule.uses -= 1
                    if not rule.uses:
                        self.rules.remove(rule)
                return self._still(rule.scenario(), fields["claveRastreo"])
        if not self._settings.by_cents:
            return SETTLES
        return self._still(BY_CENTS.get(_centavos(fields["monto"]) % 100, SETTLES), fields["claveRastreo"])

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
            self.book.move(order.id, step.estado, step.causa, self.moment() if step.estado == "LQ" else None)
        if not step.report:
            self.book.done(due)
            return
        body = self._callback(order, step)
        right = 0
        while right < step.times and due.attempts < _MOST_POSTS * step.times:
            due = replace(due, attempts=due.attempts + 1)
            status, answer = await self._poster.post(body)
            understood = status == 200 and _said(answer) == _RECEIVED
            right += understood
            last = right >= step.times or due.attempts >= _MOST_POSTS * step.times
            self.book.posted(due, self.moment(), body, status, answer, done=last)
            if not understood and not last:
                await asyncio.sleep(min(self._settings.repeat_every * due.attempts, 60))

    def _callback(self, order: BookedOrder, step: Step) -> str:
        """The body of a callback in the configured dialect."""
        dialect, word = self._settings.dialect, step.word or step.estado
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

    # --- Inquiries --------------------------------------------------------------------------------------------------

    def inquire(self, asked: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """What consultaOrden answers: the HTTP status and the body."""
        empresa, clave = _printed("", asked.get("empresa")), _printed("", asked.get("claveRastreo"))
        kind, day = _printed("", asked.get("tipoOrden")), _printed("", asked.get("fechaOperacion"))
        firma = asked.get("firma")
        joined = f"||{empresa}|{clave}|{kind}|{day}||"
        known = empresa == self._settings.company and isinstance(firma, str) and self._checker.matches(joined, firma)
        if not known or kind not in {"E", "R"} or (day and not _matches("[0-9]{8}", day)):
            return 400, {"estado": 2, "mensaje": "Peticion invalida"}
        if self.inquiry_limit is not None:
            if self.inquiry_limit <= 0:
                return 400, {"estado": 3, "mensaje": "Limite de consultas excedido"}
            self.inquiry_limit -= 1
        today = self.today()
        if day and int(day) > today:
            return 400, {"estado": 8, "mensaje": "Fecha de operacion futura"}
        since, until = (int(day), int(day)) if day else (today, 99_999_999)
        order = None
        if kind == "E":
            order = self.book.found(empresa, clave, since=since, until=until, at=self.moment())
        if order is None:
            return 400, {"estado": 6, "mensaje": "No se encontraron datos relacionados"}
        return 200, {"estado": 0, "mensaje": "Datos consultados correctamente", "respuesta": _shown(order)}

    # --- Control ----------------------------------------------------------------------------------------------------

    def force(self, order_id: int, step: Step) -> bool:
        """Let something happen to an order now. False when there is no such order."""
        if self.book.order(order_id) is None:
            return False
        self._start(self.book.add_step(order_id, time.time() + step.after, step.model_dump_json(exclude_defaults=True)))
        return True


class _Poster:
    """Posts JSON over connections that are kept open. A tenth of the work of a full client: it shares the machine's two
    cores with everything that is measured against it."""

    def __init__(self, url: str, secret: str, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._tls = parts.hostname or "", parts.port, parts.scheme == "https"
        self._head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"X-STP-Secret: {secret}\r\nContent-Length: "
        )
        self._timeout = timeout
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._turns = asyncio.Semaphore(16)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def post(self, body: str) -> tuple[int | None, str]:
        """The status and the answer, or no status and why."""
        raw = body.encode()
        request = f"{self._head}{len(raw)}\r\n\r\n".encode() + raw
        try:
            async with self._turns, asyncio.timeout(self._timeout):
                while self._idle:
                    reader, writer = self._idle.pop()
                    with contextlib.suppress(OSError, EOFError):
                        return await self._exchange(reader, writer, request)
                    writer.close()
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
                return await self._exchange(reader, writer, request)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            return None, type(error).__name__

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, str]:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: *([0-9]+)", head)
        body = await reader.readexactly(int(length.group(1))) if length else b""
        if length is None or "connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(" ", 2)[1]), body.decode(errors="replace")


# --- HTTP -----------------------------------------------------------------------------------------------------------

_Handler = Callable[[dict[str, Any], Mapping[str, str]], Awaitable[tuple[int, Any]]]


class SimulatorApp(FastAPI):
    """An application like any other from outside. Inside it is bare ASGI, because it shares the machine with what is
    measured, and because losing an answer takes hold of the connection itself."""

    def __init__(self, simulator: Simulator) -> None:
        super().__init__(title="STP simulator", openapi_url=None)
        self.simulator = simulator
        self._routes: tuple[tuple[str, re.Pattern[str], _Handler], ...] = tuple(
            (method, re.compile(path), handler)
            for method, path, handler in (
                ("POST", _INQUIRE, self._inquire),
                ("GET", r"/health/(live|ready)", self._health),
                ("GET", r"/control/orders", self._orders),
                ("GET", r"/control/attempts", self._attempts),
                ("GET", r"/control/callbacks", self._callbacks),
                ("GET", r"/control/rules", self._rules),
                ("POST", r"/control/rules", self._add_rule),
                ("DELETE", r"/control/rules", self._clear_rules),
                ("POST", r"/control/orders/(?P<order>[0-9]+)/state", self._force),
                ("POST", r"/control/clock", self._clock),
                ("POST", r"/control/mode", self._mode),
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        body = await _body(receive)
        if scope["method"] == "PUT" and scope["path"] == _REGISTER:
            await self._register(body, receive, send)
            return
        status, answer = await self._routed(scope, body)
        raw = json.dumps(answer, default=str)
        if scope["path"] == _INQUIRE:
            raw = _AMOUNT.sub(r'"monto": \1', raw)
        await _answer(send, status, raw.encode())

    async def _register(self, body: bytes, receive: Receive, send: Send) -> None:
        order = _parsed(body)
        if self.simulator.down:
            await _answer(send, 502, b"<html>502 Bad Gateway</html>", b"text/html")
            return
        if order is None:
            await _answer(send, 400, b'{"resultado":{"id":0,"descripcionError":"Bad Request"}}')
            return
        scenario, status, answer = await self.simulator.register(order)
        raw = json.dumps(answer).encode()
        match scenario.answer:
            case "lost":
                await _lose(receive, send)
            case "500" | "502" | "403" as code:
                await _answer(send, int(code), b"<html>nginx</html>", b"text/html")
            case "truncated":
                await _answer(send, status, raw[:-9])
            case "garbage":
                await _answer(send, status, b"\x00\xff<<<")
            case "slow":
                await asyncio.sleep(scenario.slow_by)
                await _answer(send, status, raw)
            case "normal" | "no-response" | "id-as-text":
                await _answer(send, status, raw)

    async def _routed(self, scope: Scope, body: bytes) -> tuple[int, Any]:
        for method, path, handler in self._routes:
            found = path.fullmatch(scope["path"])
            if found is None or method != scope["method"]:
                continue
            given = _parsed(body) if body else {}
            if given is None:
                return 400, {"error": "the body is no JSON object"}
            asked = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
            try:
                return await handler(given, asked | found.groupdict())
            except (ValidationError, KeyError, ValueError, TypeError) as error:
                return 422, {"error": str(error)}
        return 404, {"error": "there is nothing at this address"}

    async def _inquire(self, given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
        return self.simulator.inquire(given)

    async def _health(self, _: dict[str, Any], __: Mapping[str, str]) -> tuple[int, Any]:
        return 200, {"status": "ready"}

    async def _orders(self, _: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        orders = self.simulator.book.orders(asked.get("claveRastreo"))
        return 200, {"orders": [_listed(order) for order in orders]}

    async def _attempts(self, _: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        return 200, {"attempts": self.simulator.book.attempts(asked.get("claveRastreo"))}

    async def _callbacks(self, _: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        order = asked.get("order")
        return 200, {"callbacks": self.simulator.book.callbacks(int(order) if order else None)}

    async def _rules(self, _: dict[str, Any], __: Mapping[str, str]) -> tuple[int, Any]:
        return 200, {"rules": [rule.model_dump() for rule in self.simulator.rules]}

    async def _add_rule(self, given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
        rule = Rule.model_validate(given)
        rule.scenario()
        self.simulator.rules.insert(0, rule)
        return 200, {"rules": len(self.simulator.rules)}

    async def _clear_rules(self, _: dict[str, Any], __: Mapping[str, str]) -> tuple[int, Any]:
        self.simulator.rules.clear()
        return 200, {"rules": 0}

    async def _force(self, given: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        found = self.simulator.force(int(asked["order"]), Step.model_validate(given))
        return (200, {}) if found else (404, {"error": "no such order"})

    async def _clock(self, given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
        if "now" in given:
            self.simulator.clock_offset = datetime.fromisoformat(given["now"]).timestamp() - time.time()
        else:
            self.simulator.clock_offset += float(given["advance_seconds"])
        return 200, {"now": self.simulator.moment(), "fechaOperacion": self.simulator.today()}

    async def _mode(self, given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
        self.simulator.consult_only = bool(given.get("consult_only", self.simulator.consult_only))
        self.simulator.down = bool(given.get("down", self.simulator.down))
        limit = given.get("inquiry_limit", self.simulator.inquiry_limit)
        self.simulator.inquiry_limit = None if limit is None else int(limit)
        return 200, {}


def build_simulator_app(simulator: Simulator) -> SimulatorApp:
    """The application that `payhub serve stp-simulator` serves."""
    return SimulatorApp(simulator)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _answer(send: Send, status: int, body: bytes, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lose(receive: Receive, send: Send) -> None:
    """Close the connection without an answer. ASGI has no word for it, so the server's connection is taken hold of."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
        await receive()  # until the server knows that the connection has gone
        return
    # Another server than uvicorn: an answer that breaks off in the middle.
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"999")]})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
    raise ConnectionResetError


# --- STP's words ----------------------------------------------------------------------------------------------------


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _printed(name: str, value: Any) -> str:
    """A value as it stands in the signed string."""
    if value is None:
        return ""
    if name in {"monto", "iva"}:
        try:
            return f"{Decimal(str(value)):.2f}"
        except InvalidOperation:
            return str(value)
    return str(value)


def _centavos(amount: str) -> int:
    try:
        return int(Decimal(amount) * 100)
    except (InvalidOperation, ValueError, OverflowError):
        return -1


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII) is not None


def _is_institution(text: str) -> bool:
    return _matches("[0-9]{3,5}", text) and int(text) in _INSTITUTIONS


def _length_fits(fields: Mapping[str, str]) -> bool:
    account = fields["cuentaBeneficiario"]
    return _matches("[0-9]+", account) and len(account) in _LENGTHS.get(fields["tipoCuentaBeneficiario"], ())


def _check_digit_fits(fields: Mapping[str, str]) -> bool:
    account = fields["cuentaBeneficiario"]
    if fields["tipoCuentaBeneficiario"] != "40":
        return True
    return _matches("[0-9]{18}", account) and bool(compute_control_digit(account[:17]) == account[17])


def _prefix_fits(fields: Mapping[str, str]) -> bool:
    if fields["tipoCuentaBeneficiario"] != "40":
        return True
    institution = fields["institucionContraparte"]
    return institution[-3:].rjust(3, "0") == fields["cuentaBeneficiario"][:3]


def _already(clave: str, day: int, institution: str) -> _Refused:
    text = f"La clave de rastreo {{{clave}}} para la fecha {{{day}}} de la institucion {{{institution}}} ya existe"
    return _Refused(-1, text)


def _no_response() -> dict[str, Any]:
    return {"resultado": {"id": 0, "descripcionError": "No se recibió respuesta del servicio"}}


def _said(answer: str) -> object:
    found = _parsed(answer.encode())
    return None if found is None else found.get("mensaje")


def _shown(order: BookedOrder) -> dict[str, Any]:
    """An order as consultaOrden shows it."""
    fields = order.fields
    return {
        "idEF": order.id,
        "claveRastreo": order.clave,
        "conceptoPago": fields.get("conceptoPago"),
        "cuentaBeneficiario": fields.get("cuentaBeneficiario"),
        "cuentaOrdenante": fields.get("cuentaOrdenante"),
        "empresa": order.empresa,
        "estado": order.estado,
        "fechaOperacion": order.fecha_operacion,
        "institucionContraparte": fields.get("institucionContraparte"),
        "institucionOperante": fields.get("institucionOperante"),
        "monto": _pesos(order.centavos),
        "nombreBeneficiario": fields.get("nombreBeneficiario"),
        "nombreOrdenante": fields.get("nombreOrdenante"),
        "referenciaNumerica": fields.get("referenciaNumerica"),
        "causaDevolucion": order.causa,
        "tipoPago": fields.get("tipoPago"),
        "tsCaptura": int(order.captured_at * 1000),
        "tsLiquidacion": None if order.settled_at is None else int(order.settled_at * 1000),
        "sello": None if order.settled_at is None else "SIMULADO",
    }


def _listed(order: BookedOrder) -> dict[str, Any]:
    """An order as the control API lists it: what is compared with a ledger."""
    return {
        "id": order.id,
        "empresa": order.empresa,
        "claveRastreo": order.clave,
        "fechaOperacion": order.fecha_operacion,
        "monto": _pesos(order.centavos),
        "centavos": order.centavos,
        "cuentaOrdenante": order.fields.get("cuentaOrdenante"),
        "cuentaBeneficiario": order.fields.get("cuentaBeneficiario"),
        "conceptoPago": order.fields.get("conceptoPago"),
        "estado": order.estado,
        "causaDevolucion": order.causa,
    }


def _pesos(centavos: int) -> str:
    return f"{centavos // 100}.{centavos % 100:02d}"


def _number(day: date) -> int:
    return int(day.strftime("%Y%m%d"))
