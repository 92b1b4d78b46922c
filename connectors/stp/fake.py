"""A pretend STP over real HTTP, as nasty as the real one: `payhub serve stp-simulator`. Never for production.

It rebuilds the signed string from the JSON it is sent and verifies the signature with the company's public key; it
checks an order in STP's order of checks; its book is a file; it posts callbacks until they are answered
`{"mensaje":"recibido"}`, and incoming money until it is answered `confirmar` or `devolver`. What happens to an order is
chosen by a rule of the control API, by chance when faults are switched on, or by the cents of its amount
(`fake_scenarios`).

    PUT  /speiws/rest/ordenPago/registra      an order
    PUT  /speiws/rest/ordenPago/retornaOrden  give back what came in
    PUT  /speiws/rest/cuentaModule/fisica     an account; also moral, fisicas, morales; DELETE removes one
    POST /efws/API/consultaOrden              what became of an order; also V2/conciliacion, consultaSaldoCuenta
    POST /speiws/rest/ordenPago/consOrdenesFech   the older consults; also consOrdEnvRastreo, consSaldoEnvRec
    GET  /control/orders                      the book; also /control/callbacks, /control/attempts, /control/deposits,
                                              /control/deposit-posts, /control/accounts, /control/balance
    POST /control/rules                       {"match": {"conceptoPago": "X"}, "do": "cancel", "uses": 1}; DELETE clears
    POST /control/faults                      {"seed": 1, "orders": {"lose-answer": 0.05}, "callbacks": {"lost": 0.1}}
    POST /control/orders/{id}/state           {"estado": "D", "causa": 1}: now, and posted; "as_deposit": also comes in
    POST /control/deposits                    {"claveRastreo": "X", "monto": "10.00", "cuentaBeneficiario": "..."}
    POST /control/clock                       {"now": "2026-11-20T17:59:00-06:00"} or {"advance_seconds": 60}
    POST /control/mode                        {"consult_only": true, "inquiry_limit": 0, "down": false, "page_size": 5}

The string that is signed, the checks and the words of answers are written down here once more on purpose, from the same
sources as the connector: a simulator that shared the connector's code would agree with its mistakes.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from connectors.stp.fake_book import BookedOrder, Deposit
from connectors.stp.fake_checks import parsed, pesos
from connectors.stp.fake_consults import ConsultAnswer
from connectors.stp.fake_scenarios import Faults, Rule, Step
from connectors.stp.fake_simulator import Simulator

__all__ = ["Simulator", "SimulatorApp", "build_simulator_app"]

_ORDERS: Final = "/speiws/rest/ordenPago/"
_REGISTER: Final = f"{_ORDERS}registra"
_ACCOUNTS: Final = "/speiws/rest/cuentaModule/"
_EFWS: Final = "/efws/API/"
_AMOUNT: Final = re.compile(r'"(monto|saldo|cargosPendientes)": "(-?[0-9.]+)"')
"""What is a JSON number in the answers to newer consults."""

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
                ("PUT", f"{_ORDERS}retornaOrden", self._give_back),
                ("PUT", f"{_ACCOUNTS}(?P<kind>fisica|moral)", self._register_account),
                ("PUT", f"{_ACCOUNTS}(?P<kind>fisica|morale)s", self._register_accounts),
                ("DELETE", f"{_ACCOUNTS}(?P<kind>fisica|moral)", self._remove_account),
                ("POST", f"{_EFWS}consultaOrden", self._consult(simulator.consults.order)),
                ("POST", f"{_EFWS}V2/conciliacion", self._consult(simulator.consults.conciliation)),
                ("POST", f"{_EFWS}consultaSaldoCuenta", self._consult(simulator.consults.balance)),
                ("POST", f"{_ORDERS}consOrdenesFech", self._consult(simulator.consults.orders_of_day)),
                ("POST", f"{_ORDERS}consOrdEnvRastreo", self._consult(simulator.consults.sent_order)),
                ("POST", f"{_ORDERS}consSaldoEnvRec", self._consult(simulator.consults.sums)),
                ("GET", r"/health/(live|ready)", self._health),
                ("GET", r"/control/orders", self._orders),
                ("GET", r"/control/attempts", self._attempts),
                ("GET", r"/control/callbacks", self._callbacks),
                ("GET", r"/control/deposits", self._deposits),
                ("POST", r"/control/deposits", self._deposit),
                ("GET", r"/control/deposit-posts", self._deposit_posts),
                ("GET", r"/control/accounts", self._registered),
                ("GET", r"/control/balance", self._balance),
                ("POST", r"/control/faults", self._faults),
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
        if scope["path"].startswith(_EFWS) and await self._goes_wrong(receive, send):
            return
        status, answer = await self._routed(scope, body)
        raw = json.dumps(answer, default=str)
        if scope["path"].startswith(_EFWS):
            raw = _AMOUNT.sub(r'"\1": \2', raw)
        await _answer(send, status, raw.encode())

    async def _goes_wrong(self, receive: Receive, send: Send) -> bool:
        """Whether chance spoils this consult; the spoilt answer has then been given."""
        fault = self.simulator.faults.consult()
        match fault:
            case None:
                return False
            case "lost":
                await _lose(receive, send)
            case "garbage":
                await _answer(send, 200, b"<<<")
            case "limit":
                await _answer(send, 400, b'{"estado":3,"mensaje":"Limite de consultas excedido"}')
            case "500":
                await _answer(send, 500, b"<html>nginx</html>", b"text/html")
        return True

    async def _register(self, body: bytes, receive: Receive, send: Send) -> None:
        order = parsed(body)
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
            given = parsed(body) if body else {}
            if given is None:
                return 400, {"error": "the body is no JSON object"}
            asked = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
            try:
                return await handler(given, asked | found.groupdict())
            except (ValidationError, KeyError, ValueError, TypeError) as error:
                return 422, {"error": str(error)}
        return 404, {"error": "there is nothing at this address"}

    @staticmethod
    def _consult(answer: Callable[[Mapping[str, Any]], ConsultAnswer]) -> _Handler:
        async def handler(given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
            return answer(given)

        return handler

    async def _give_back(self, given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
        return 200, self.simulator.give_back(given)

    async def _register_account(self, given: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        return 200, self.simulator.registry.register(asked["kind"], given)

    async def _register_accounts(self, given: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        kind = asked["kind"].removesuffix("e")
        batch = given.get("cuentasFisicas" if kind == "fisica" else "cuentasMorales")
        return 200, self.simulator.registry.register_all(kind, batch)

    async def _remove_account(self, given: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        return 200, self.simulator.registry.remove(asked["kind"], given)

    async def _deposit(self, given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
        return 202, {"id": self.simulator.deposits.arrive(given)}

    async def _deposits(self, _: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        found = self.simulator.book.deposits(asked.get("claveRastreo"))
        return 200, {"deposits": [_listed_deposit(deposit) for deposit in found]}

    async def _deposit_posts(self, _: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        deposit = asked.get("deposit")
        return 200, {"posts": self.simulator.book.deposit_posts(int(deposit) if deposit else None)}

    async def _registered(self, _: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        return 200, {"accounts": self.simulator.book.accounts(self._company(asked))}

    async def _balance(self, _: dict[str, Any], asked: Mapping[str, str]) -> tuple[int, Any]:
        company = self.simulator.companies[self._company(asked)]
        return 200, {"empresa": company.empresa, "centavos": company.balance, "saldo": pesos(company.balance)}

    def _company(self, asked: Mapping[str, str]) -> str:
        return asked.get("empresa") or self.simulator.company.empresa

    async def _faults(self, given: dict[str, Any], _: Mapping[str, str]) -> tuple[int, Any]:
        faults = Faults.model_validate(given)
        faults.known()
        self.simulator.faults = faults
        return 200, given

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
        as_deposit = bool(given.pop("as_deposit", False))
        found = self.simulator.force(int(asked["order"]), Step.model_validate(given), as_deposit=as_deposit)
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
        self.simulator.consults.page_size = int(given.get("page_size", self.simulator.consults.page_size))
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


def _listed(order: BookedOrder) -> dict[str, Any]:
    """An order as the control API lists it: what is compared with a ledger."""
    return {
        "id": order.id,
        "empresa": order.empresa,
        "claveRastreo": order.clave,
        "fechaOperacion": order.fecha_operacion,
        "monto": pesos(order.centavos),
        "centavos": order.centavos,
        "cuentaOrdenante": order.fields.get("cuentaOrdenante"),
        "cuentaBeneficiario": order.fields.get("cuentaBeneficiario"),
        "conceptoPago": order.fields.get("conceptoPago"),
        "estado": order.estado,
        "causaDevolucion": order.causa,
    }


def _listed_deposit(deposit: Deposit) -> dict[str, Any]:
    return _listed(deposit.order) | {
        "institucionOrdenante": deposit.order.fields.get("institucionOrdenante"),
        "tipoPago": deposit.order.fields.get("tipoPago"),
        "posts": deposit.attempts,
    }
