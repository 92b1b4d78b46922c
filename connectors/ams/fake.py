"""A pretend Fineract over real HTTP: `payhub serve fineract-simulator`. Never for production.

It has the interoperation API, the two routes of savings accounts and the one of clients that a payment hub needs, below
`/fineract-provider/api/v1`, with Fineract's error bodies, dates and oddities (`fake_accounts`). It forgets everything
when it ends.

    POST /control/accounts   {"tenant": "acme", "accounts": [...], "fees": [...]}: as in the seed file
    POST /control/rules      {"match": {"operation": "PREPARE"}, "do": "lose-answer", "uses": 1}; DELETE clears
    GET  /control/requests   what was asked, oldest first: operation, tenant, transfer code, what came of it

What a rule may do: `lose-answer` (done, and no answer), `lose-request` (not done, and no answer), `error` (500, not
done), `error-after` (502, done), `conflict` (409, not done), `garbage` (done, and an answer nobody can read), `slow`
(done after `seconds`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from connectors.ams.fake_accounts import Broken, Charge, No, Tenant
from connectors.ams.settings import FineractSimulatorSettings

ROOT: Final = "/fineract-provider/api/v1/"

_ACTIONS: Final = ("PREPARE", "CREATE", "RELEASE")
_AMOUNT: Final = re.compile(r'"<(-?[0-9.]+)>"')  # amounts are JSON numbers with six decimals
_STATUS: Final = {"open": ("ACTIVE", "NONE"), "closed": ("CLOSED", "NONE"), "frozen": ("ACTIVE", "BLOCK_DEBIT")}
_BLOCKED: Final = {"credits": "BLOCK_CREDIT", "all": "BLOCK"}
_TYPES: Final = {"CLABE": "BBAN"}

_ID: Final = r"([^/]+)"
_ROUTES: Final = tuple(
    (method, re.compile(path), operation)
    for method, path, operation in (
        ("GET", "interoperation/health", "health"),
        ("GET", f"interoperation/parties/{_ID}/{_ID}", "party"),
        ("GET", f"interoperation/accounts/{_ID}", "account"),
        ("GET", f"interoperation/accounts/{_ID}/transactions", "transactions"),
        ("GET", f"interoperation/transactions/{_ID}/transfers/{_ID}", "get-transfer"),
        ("POST", "interoperation/quotes", "quote"),
        ("POST", "interoperation/transfers", "transfer"),
        ("GET", f"savingsaccounts/external-id/{_ID}", "savings"),
        ("POST", "savingsaccounts/([0-9]+)/transactions/([0-9]+)", "undo"),
        ("GET", "clients/([0-9]+)", "client"),
    )
)
_PARTY_TYPES: Final = frozenset(
    {"MSISDN", "EMAIL", "PERSONAL_ID", "BUSINESS", "DEVICE", "ACCOUNT_ID", "IBAN", "ALIAS", "BBAN"}
)


class FineractSimulator:
    """The tenants of one Fineract, and the rules by which it misbehaves."""

    def __init__(self, settings: FineractSimulatorSettings) -> None:
        credentials = f"{settings.user}:{settings.password.get_secret_value()}".encode()
        self.authorization = "Basic " + base64.b64encode(credentials).decode()
        self.tenants: dict[str, Tenant] = {}
        self.rules: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.down = False
        if settings.seed_file is not None:
            for tenant in json.loads(settings.seed_file.read_text(encoding="utf-8"))["tenants"]:
                self.open(tenant["id"], tenant.get("accounts", ()), tenant.get("fees", ()))

    def open(self, tenant: str, accounts: Any, fees: Any = ()) -> None:
        """Open accounts as the seed file says them. Its tariff becomes each account's withdrawal charges; bands and
        bounds are lost, since Fineract has none."""
        of = self.tenants.setdefault(tenant, Tenant())
        for account in accounts:
            status, sub_status = _STATUS[account.get("status", "open")]
            of.open(
                account["id"],
                account["currency"],
                holder=account.get("holder_name"),
                balance=account.get("opening_balance", "0"),
                status=status,
                sub_status=_BLOCKED.get(account.get("blocked", ""), sub_status),
                identifiers=tuple(
                    (_TYPES.get(one["type"], one["type"]), one["value"]) for one in account.get("identifiers", ())
                ),
                charges=tuple(
                    charge for fee in fees if fee["currency"] == account["currency"] for charge in _charges(fee)
                ),
            )

    def rule(self, operation: str, code: str | None) -> dict[str, Any]:
        """What is to go wrong with this request; empty when nothing is."""
        for rule in self.rules:
            match = rule.get("match", {})
            if match.get("operation", operation) == operation and match.get("transferCode", code) == code:
                if "uses" in rule:
                    rule["uses"] -= 1
                    if rule["uses"] <= 0:
                        self.rules.remove(rule)
                return rule
        return {}

    def do(self, tenant: Tenant, operation: str, parts: tuple[str, ...], asked: Mapping[str, str], body: Any) -> Any:
        """Raises `No` and `Broken`."""
        done: dict[str, Callable[[], Any]] = {
            "health": lambda: "OK",
            "party": lambda: _party(tenant, *parts),
            "account": lambda: tenant.shown(tenant.account(*parts)),
            "transactions": lambda: _transactions(tenant, parts[0], asked),
            "get-transfer": lambda: None,  # Fineract keeps nothing that could be told here
            "quote": lambda: {**_accepted(body), "quoteCode": body["quoteCode"], "fspFee": _fee(tenant, body)},
            "client": lambda: {"id": int(*parts), "displayName": tenant.clients[int(*parts)], "active": True},
            "savings": lambda: _savings(tenant, parts[0], asked),
            "undo": lambda: tenant.undo(*(int(part) for part in parts)),
            "PREPARE": lambda: _transferred(tenant.prepare, body),
            "CREATE": lambda: _transferred(tenant.create, body),
            "RELEASE": lambda: _transferred(tenant.release, body),
        }
        if operation not in done:
            raise No(404, "error.msg.resource.not.found", "no such route")
        return done[operation]()


def _party(tenant: Tenant, id_type: str, value: str) -> Any:
    if id_type not in _PARTY_TYPES:
        raise No(404, "error.msg.resource.not.found", "no such type")
    return {"accountId": tenant.party(id_type, value).external_id}


def _transactions(tenant: Tenant, account: str, asked: Mapping[str, str]) -> Any:
    debit, credit = asked.get("debit", "true") == "true", asked.get("credit", "false") == "true"
    return tenant.listed(tenant.account(account), debit=debit, credit=credit)


def _savings(tenant: Tenant, account: str, asked: Mapping[str, str]) -> Any:
    return tenant.savings(tenant.account(account), transactions=asked.get("associations") in ("transactions", "all"))


def _transferred(action: Callable[[Any], None], body: Any) -> Any:
    action(body)
    return {**_accepted(body), "transferCode": body["transferCode"], "completedTimestamp": "2026-11-21T07:00:00+0000"}


def _fee(tenant: Tenant, body: Any) -> dict[str, Any]:
    return {"amount": tenant.quote(body), "currency": body["amount"]["currency"]}


class SimulatorApp(FastAPI):
    """The routes of Fineract, of the control API and of health."""

    simulator: FineractSimulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        body = await _body(receive)
        if scope["path"] in ("/health/live", "/health/ready"):
            await _answer(send, 200, b'{"status":"ready"}')
            return
        if not scope["path"].startswith(ROOT):
            await _answer(send, *self._control(scope["method"], scope["path"], body))
            return
        status, answer, rule = await self._served(scope, body)
        match rule.get("do"):
            case "lose-answer" | "lose-request":
                await _lose(receive, send)
            case "garbage":
                await _answer(send, 200, b"<html>")
            case "error" | "error-after":
                await _answer(send, 502, b"<html>502 Bad Gateway</html>")
            case _:
                await _answer(send, status, _json(answer))

    async def _served(self, scope: Scope, raw: bytes) -> tuple[int, Any, Mapping[str, Any]]:
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        tenant_id = headers.get("fineract-platform-tenantid", "")
        kept_out = self._kept_out(headers.get("authorization"), tenant_id)
        if kept_out is not None:
            return *kept_out, {}
        path, asked = scope["raw_path"].decode().removeprefix(ROOT), parse_qs(scope["query_string"].decode())
        query = {name: values[-1] for name, values in asked.items()}
        operation, parts = _route(scope["method"], path, query)
        body = json.loads(raw, parse_float=Decimal) if raw else {}
        rule = self.simulator.rule(operation, body.get("transferCode"))
        noted = {"operation": operation, "tenant": tenant_id, "transferCode": body.get("transferCode")}
        self.simulator.requests.append(noted)
        if rule.get("do") == "slow":
            await asyncio.sleep(rule["seconds"])
        if rule.get("do") in ("lose-request", "error", "conflict"):
            noted["came_to"] = "nothing"
            return 409, _error(409, "error.msg.platform.service.conflict", "please try again"), rule
        try:
            answer = self.simulator.do(self.simulator.tenants[tenant_id], operation, parts, query, body)
            noted["came_to"] = "done"
        except No as no:
            noted["came_to"] = no.code
            return no.status, _error(no.status, no.code, no.text), rule
        except (Broken, KeyError):
            noted["came_to"] = "500"
            return 500, {"status": 500, "error": "Internal Server Error"}, rule
        return 200, answer, rule

    def _kept_out(self, authorization: str | None, tenant: str) -> tuple[int, Any] | None:
        if self.simulator.down:
            return 503, {"message": "down"}
        if authorization != self.simulator.authorization:
            return 401, _error(401, "error.msg.not.authenticated", "Unauthenticated. Please login.")
        if tenant not in self.simulator.tenants:
            return 400, {"status": 400, "error": "Bad Request"}
        return None

    def _control(self, method: str, path: str, raw: bytes) -> tuple[int, bytes]:
        simulator, body = self.simulator, json.loads(raw) if raw else {}
        match method, path:
            case "POST", "/control/accounts":
                simulator.open(body["tenant"], body["accounts"], body.get("fees", ()))
            case "POST", "/control/rules":
                simulator.rules.append(body)
            case "DELETE", "/control/rules":
                simulator.rules.clear()
            case "POST", "/control/mode":
                simulator.down = bool(body["down"])
            case "GET", "/control/requests":
                return 200, _json({"requests": simulator.requests})
            case _:
                return 404, b"{}"
        return 200, b"{}"


def build_simulator_app(simulator: FineractSimulator) -> SimulatorApp:
    """The application. Never for production."""
    app = SimulatorApp(openapi_url=None)
    app.simulator = simulator
    return app


def _route(method: str, path: str, query: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    for wanted, shape, operation in _ROUTES:
        found = shape.fullmatch(path)
        if found is not None and method == wanted:
            if operation == "transfer":
                return (query["action"], ()) if query.get("action") in _ACTIONS else ("", ())
            return operation, tuple(unquote(part) for part in found.groups())
    return "", ()


def _charges(fee: Mapping[str, Any]) -> list[Charge]:
    made = [Charge(flat=Decimal(fee.get("fixed", "0"))), Charge(percent=Decimal(fee.get("basis_points", 0)) / 100)]
    return [charge for charge in made if charge.flat or charge.percent]


def _accepted(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"transactionCode": body["transactionCode"], "state": "ACCEPTED"}


def _error(status: int, code: str, text: str) -> dict[str, Any]:
    """An error as Fineract writes it: the reason stands in the first of `errors`."""
    whole = {403: "validation.msg.domain.rule.violation", 404: "error.msg.resource.not.found"}.get(status, code)
    return {
        "developerMessage": "Request was understood but caused a domain rule violation.",
        "httpStatusCode": str(status),
        "defaultUserMessage": "Errors contain reason for domain rule violation.",
        "userMessageGlobalisationCode": whole,
        "errors": [
            {
                "developerMessage": text,
                "defaultUserMessage": text,
                "userMessageGlobalisationCode": code,
                "parameterName": "id",
                "args": [],
            }
        ],
    }


def _json(answer: Any) -> bytes:
    return _AMOUNT.sub(r"\1", json.dumps(answer, default=lambda amount: f"<{amount}>")).encode()


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lose(receive: Receive, send: Send) -> None:
    """Close the connection without an answer. ASGI has no word for it, so the server's connection is taken hold of."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
        await receive()  # until the server knows that the connection has gone
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"999")]})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
    raise ConnectionResetError
