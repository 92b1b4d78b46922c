"""The channel's routes: hand a payment in, ask for it by its id or your own correlation id, and what waits (H8)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, FastAPI, Request
from pydantic_core import to_json
from starlette.responses import Response

from connectors.channel.relay import Relay
from connectors.channel.stand_in import LimitReached, StandIn
from connectors.channel.store import Acceptance, ChannelStore, StillRunning, Tenant
from connectors.channel.wire import Transfer, TransferRequest, state_body, transfer_body
from hub.addresses import allowed
from hub.api import Caller, Problem, Verifier, build_app, read_json, require
from hub.connector import Probe
from hub.failpoint import failpoint
from hub.transfer import PaymentId, TenantId

ROLE: Final = "channel"
"""The role a token needs here."""

_TENANT_KNOWN: Final = 5.0  # seconds for which what we read of a tenant is taken for true
_LONGEST_KEY: Final = 255
_RETRY_LATER: Final = "30"  # seconds

FromChannel = Annotated[Caller, Depends(require(ROLE))]
Watching = Annotated[Caller, Depends(require(ROLE, "operator", "auditor"))]


def new_payment_id() -> PaymentId:
    """A UUID of version 7 (RFC 9562): milliseconds and 74 random bits, so that new rows lie side by side."""
    bits = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return PaymentId(str(UUID(int=bits & ~(0x3 << 62) | 0x2 << 62)))


class Tenants:
    """The tenants, read when needed and kept for a few seconds."""

    def __init__(self, store: ChannelStore) -> None:
        self._store = store
        self._known: dict[TenantId, tuple[Tenant, float]] = {}

    async def of(self, caller: Caller, request: Request) -> Tenant:
        """The caller's tenant. The token says which; the header must agree; the tenant must be one of ours."""
        named = request.headers.get("platform-tenantid")
        if named is None:
            raise _header_problem("Platform-TenantId", "missing", "This needs the header Platform-TenantId.")
        if named != caller.tenant:
            raise Problem(403, "tenant-mismatch", "Platform-TenantId is not the tenant of the token.")
        found, until = self._known.get(caller.tenant, (None, 0.0))
        if found is None or time.monotonic() > until:
            found = await self._store.tenant(caller.tenant)
            if found is None:
                raise Problem(403, "tenant-unknown", "There is no such tenant here.")
            self._known[caller.tenant] = (found, time.monotonic() + _TENANT_KNOWN)
        return found


def build_channel_app(
    store: ChannelStore,
    relay: Relay,
    verifier: Verifier,
    probes: dict[str, Probe] | None = None,
    *,
    stand_in: StandIn | None = None,
    **edge: Any,
) -> FastAPI:
    """The application. Without `stand_in` nothing bounds what waits; `edge` goes to `hub.api.build_app`."""
    app = build_app("channel", verifier=verifier, probes=probes, **edge)
    tenants = Tenants(store)

    @app.post("/channel/transfer", status_code=202, openapi_extra=_BODY)
    async def transfer(request: Request, caller: FromChannel) -> Response:
        """Hand a payment in. The same key and body give the same answer, however often it is sent."""
        tenant = await tenants.of(caller, request)
        key = correlation_id(request.headers.get("x-correlationid"))
        callback_url = _callback_url(request.headers.get("x-callbackurl"), tenant)
        body = await read_json(request, TransferRequest)
        payment = body.accepted(new_payment_id(), tenant.id)
        acceptance = Acceptance(payment, key, body.fingerprint(), body.client_ref_id, callback_url)
        failpoint("channel.accept.before-commit")
        try:
            if stand_in is not None and stand_in.away_since is not None:
                known = await stand_in.accept(acceptance, relay.lease())
            else:
                known = await store.accept(acceptance, relay.lease())
        except LimitReached as reached:
            raise _limit_problem(reached) from None
        except StillRunning:
            detail = "The first request with this X-CorrelationID has not ended yet; ask again."
            raise Problem(409, "still-running", detail, headers={"Retry-After": "1"}) from None
        if known is None:
            failpoint("channel.accept.after-commit")
            relay.hand_over(payment)
            return _accepted(payment.payment_id)
        if known.request_hash != acceptance.request_hash:
            raise Problem(422, "key-reused", "Another request was made with this X-CorrelationID; choose a new one.")
        return _accepted(known.payment_id, replayed=True)

    @app.get("/channel/transfer/{transaction_id}")
    async def by_id(transaction_id: str, request: Request, caller: FromChannel) -> Response:
        """How a payment stands."""
        tenant = await tenants.of(caller, request)
        return _json(transfer_body(_found(await store.find(tenant.id, transaction_id))))

    @app.get("/channel/txnState/{key:path}")
    async def by_key(key: str, request: Request, caller: FromChannel) -> Response:
        """How the payment stands that was handed in under this X-CorrelationID."""
        tenant = await tenants.of(caller, request)
        return _json(state_body(_found(await store.find_by_key(tenant.id, key))))

    if stand_in is not None:
        app.add_api_route("/channel/stand-in", _standing(stand_in, tenants), methods=["GET"])

    return app


def _standing(stand_in: StandIn, tenants: Tenants) -> Callable[..., Awaitable[Response]]:
    async def standing(request: Request, caller: Watching) -> Response:
        """What may wait while the account system is away, and what does: the caller's own."""
        tenant = await tenants.of(caller, request)
        found = await stand_in.standing(tenant.id)
        return _json(to_json({"tenantId": tenant.id, **found.body(stand_in.away_since, stand_in.watched)}))

    return standing


_LIMITS: Final = {
    "each": "this amount is more than a payment may have meanwhile",
    "payments": "as many payments wait as may",
    "together": "the payments that wait would come to more than they may",
}


def _limit_problem(reached: LimitReached) -> Problem:
    """503, not 429: the client did nothing wrong, and the same request will be accepted later. Nothing was stored."""
    detail = f"The account system is away and {_LIMITS[reached.limit]}; send the same request again later."
    return Problem(503, "stand-in-limit", detail, headers={"Retry-After": _RETRY_LATER}, limit=reached.limit)


def correlation_id(given: str | None) -> str:
    """The header `X-CorrelationID`, which is the idempotency key."""
    if given is None or not given.strip():
        raise _header_problem("X-CorrelationID", "missing", "This needs X-CorrelationID, one per payment.")
    if len(given) > _LONGEST_KEY or not (given.isascii() and given.isprintable()):
        detail = f"X-CorrelationID holds up to {_LONGEST_KEY} printable ASCII characters."
        raise _header_problem("X-CorrelationID", "bad-format", detail)
    return given


def _header_problem(header: str, code: str, detail: str) -> Problem:
    status, overall = (400, "header-missing") if code == "missing" else (422, "not-valid")
    return Problem(status, overall, detail, errors=[{"header": header, "code": code, "detail": detail}])


def _callback_url(given: str | None, tenant: Tenant) -> str | None:
    if given is None or allowed(given, tenant.callbacks):
        return given
    raise _header_problem("X-CallbackURL", "not-allowed", "X-CallbackURL is not on the tenant's allow-list.")


def _found(transfer: Transfer | None) -> Transfer:
    """Another tenant's payment and one that never was look the same from outside (H16)."""
    if transfer is None:
        raise Problem(404, "transfer-unknown", "There is no such transfer.")
    return transfer


def _accepted(payment_id: PaymentId, replayed: bool = False) -> Response:
    headers = {"Idempotent-Replayed": "true"} if replayed else None
    return Response(b'{"transactionId":"%s"}' % payment_id.encode(), 202, headers, "application/json")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": TransferRequest.model_json_schema()}}}
}
