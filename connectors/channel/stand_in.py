"""Standing in for the account system (H8): while it is away, payments go on being accepted, up to limits per tenant.

Accepting needs no account system; what waits for it is bounded here. A loop looks at one page that says whether the
account system can be used: the readiness of the connector that talks to it, or a page of the bank's. While it cannot,
each acceptance takes its tenant's lock, so that no two pass a limit together, and its payment joins the queue. It
leaves the queue when it has an outcome. While the account system is there, accepting is what it always was.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import httpx
from prometheus_client import Counter, Gauge

from connectors.channel.settings import ChannelSettings
from connectors.channel.store import Acceptance, Known
from hub.errors import Unavailable
from hub.money import MAX_MINOR, Money
from hub.statements import Statements
from hub.telemetry import logger
from hub.transfer import PaymentId, TenantId

AWAY_AT: Final = 9
"""Points at which the account system counts as away: a plain no is three, silence one, since a busy page is silent too.
A yes ends it at once."""

_NO: Final = 3
_SILENCE: Final = 1
_ANSWER_WITHIN: Final = 3.0
_OPEN_BEFORE: Final = 600.0  # seconds: payments accepted in this time before, and still open, are in the queue too
_ENGINE: Final = "engine"  # the readiness check that says nothing of the account system

_ACCEPT: Final = """
    SELECT refused, id, hash FROM channel.accept_standing_in(%(id)s, %(tenant_id)s, %(key)s, %(request_hash)s,
        %(client_ref_id)s, %(amount)s, %(currency)s, %(payer)s::jsonb, %(payee)s::jsonb, %(concept)s,
        %(reference_number)s, %(callback_url)s, %(lease)s, %(payments)s)
"""
# Gathering and sweeping touch several rows of counts each, so one runs at a time.
_GATHER: Final = """
    WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(7202))
    INSERT INTO channel.stand_in_payment (payment_id, tenant_id, currency, amount, since)
    SELECT id, tenant_id, currency, amount, accepted_at FROM channel.payment
    WHERE id >= %(since)s AND outcome IS NULL AND EXISTS (SELECT FROM turn)
    ON CONFLICT DO NOTHING
"""
_SWEEP: Final = """
    WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(7202))
    DELETE FROM channel.stand_in_payment AS q USING channel.payment AS p
    WHERE p.id = q.payment_id AND p.outcome IS NOT NULL AND EXISTS (SELECT FROM turn)
"""
_STANDING: Final = """
    SELECT t.id, coalesce(t.stand_in_payments, %(payments)s), t.stand_in_amounts,
        (SELECT min(q.since) FROM channel.stand_in_payment q WHERE q.tenant_id = t.id),
        (SELECT jsonb_object_agg(u.currency, jsonb_build_array(u.payments, u.amount)) FROM channel.stand_in_use u
         WHERE u.tenant_id = t.id)
    FROM channel.tenant t WHERE %(tenant_id)s::text IS NULL OR t.id = %(tenant_id)s
"""

_away = Gauge("payhub_channel_account_system_away", "1 while the account system is away, as this process sees it.")
_payments = Gauge("payhub_channel_stand_in_payments", "Payments that wait for the account system.", ("tenant",))
_amount = Gauge("payhub_channel_stand_in_amount", "Their sum in minor units.", ("tenant", "currency"))
_oldest = Gauge("payhub_channel_stand_in_oldest_seconds", "Age of the oldest of them.", ("tenant",))
_most = Gauge("payhub_channel_stand_in_limit_payments", "How many may wait.", ("tenant",))
_refused = Counter("payhub_channel_stand_in_refused", "Payments refused because a limit was reached.", ("limit",))

log = logger(__name__)


class LimitReached(Exception):
    """Nothing was stored, because `limit` is reached: `each`, `payments` or `together`."""

    def __init__(self, limit: str) -> None:
        self.limit = limit
        super().__init__(limit)


@dataclass(frozen=True, slots=True)
class AmountLimit:
    """What may wait in one currency; `None`: any."""

    each: Money | None
    together: Money | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant's limits and what waits."""

    tenant_id: TenantId
    most: int
    amounts: Mapping[str, AmountLimit]
    payments: int
    sums: Mapping[str, Money]
    oldest: datetime | None

    def body(self, away_since: datetime | None, watched: bool) -> dict[str, Any]:
        """The answer to `GET /channel/stand-in`."""
        age = None if self.oldest is None else max(0, round((datetime.now(UTC) - self.oldest).total_seconds()))
        return {
            "accountSystem": "away" if away_since else "reachable" if watched else "not watched",
            "awaySince": _timestamp(away_since),
            "limits": {
                "payments": self.most,
                "amounts": [
                    {
                        "currency": currency,
                        "each": limit.each.decimal() if limit.each else None,
                        "together": limit.together.decimal() if limit.together else None,
                    }
                    for currency, limit in sorted(self.amounts.items())
                ],
            },
            "waiting": {
                "payments": self.payments,
                "amounts": [
                    {"currency": one, "amount": sum_.decimal()} for one, sum_ in sorted(self.sums.items()) if sum_.minor
                ],
                "oldestAcceptedAt": _timestamp(self.oldest),
                "oldestAgeSeconds": age,
            },
        }


class StandIn:
    """One per process that accepts payments. `run` is the loop that looks."""

    def __init__(self, statements: Statements, http: httpx.AsyncClient, settings: ChannelSettings) -> None:
        self._statements, self._http, self._settings = statements, http, settings
        self._url = settings.account_system_url
        self._points = AWAY_AT if self._url else 0  # not seen yet counts as away: limits hold from the first request
        self._since: datetime | None = datetime.now(UTC) if self._url else None
        self._gather = False
        self._queue = True

    @property
    def watched(self) -> bool:
        return self._url is not None

    @property
    def away_since(self) -> datetime | None:
        """Since when the account system is away; nothing while it is there, or when nobody says where to look."""
        return self._since

    async def accept(self, acceptance: Acceptance, lease: float) -> Known | None:
        """`ChannelStore.accept` within the tenant's limits. Raises `LimitReached`, in which case nothing was stored."""
        parameters = {**acceptance.row(lease), "payments": self._settings.stand_in_payments}
        [(refused, payment_id, request_hash)] = await self._statements.rows(_ACCEPT, parameters)
        if refused is not None:
            _refused.labels(refused).inc()
            raise LimitReached(refused)
        self._queue = True
        return None if request_hash is None else Known(PaymentId(payment_id), bytes(request_hash))

    async def standing(self, tenant_id: TenantId) -> Standing:
        """How one tenant stands. Raises `LookupError`."""
        found = await self._standings(tenant_id)
        if not found:
            raise LookupError(tenant_id)
        return found[0]

    async def run(self) -> None:
        """Until cancelled: look, let what has ended leave the queue, and show how long it is."""
        while True:
            if self._url is not None:
                self._noted(await self._look(self._url))
            try:
                await self._keep()
            except Unavailable as error:
                log.warning("stand-in.database-away", cause=str(error))
            await asyncio.sleep(self._settings.account_system_look_every)

    def _noted(self, points: int) -> None:
        before, self._points = self._points, self._points + points if points else 0
        if not points and self._since is not None:
            if before > AWAY_AT:
                log.info("stand-in.account-system-back", away_since=_timestamp(self._since))
            self._since = None
        elif before < AWAY_AT <= self._points:
            log.warning("stand-in.account-system-away")
            self._since = datetime.now(UTC)
        # Twice, because requests may be on their way when it is noticed.
        if self._points >= AWAY_AT and before < AWAY_AT + _NO:
            self._gather = True
        _away.set(self._since is not None)

    async def _look(self, url: str) -> int:
        """What a look is worth: nothing when the account system can be used."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                answer = await self._http.get(url)
        except (httpx.TimeoutException, TimeoutError):
            return _SILENCE
        except httpx.HTTPError:
            return _NO
        return 0 if answer.is_success else _worth(answer)

    async def _keep(self) -> None:
        if self._gather:
            await self._statements.rows(_GATHER, {"since": first_id(time.time() - _OPEN_BEFORE)})
            self._gather, self._queue = False, True
        if self._queue or self._since is not None:
            await self._statements.rows(_SWEEP)
            standings = await self._standings(None)
            for standing in standings:
                _show(standing)
            self._queue = any(standing.payments for standing in standings)

    async def _standings(self, tenant_id: TenantId | None) -> list[Standing]:
        found = await self._statements.rows(
            _STANDING, {"tenant_id": tenant_id, "payments": self._settings.stand_in_payments}
        )
        return [_standing(row) for row in found]


def first_id(at: float) -> UUID:
    """The smallest payment id given at that time or later: ids begin with their milliseconds (RFC 9562)."""
    return UUID(int=int(at * 1000) << 80)


@asynccontextmanager
async def open_stand_in(statements: Statements, settings: ChannelSettings) -> AsyncIterator[StandIn]:
    """With an HTTP client of its own, closed on leaving."""
    async with httpx.AsyncClient(timeout=_ANSWER_WITHIN, trust_env=False) as http:
        yield StandIn(statements, http, settings)


def _worth(answer: httpx.Response) -> int:
    """What a page is worth that is not content. Of ours we know which check failed; the engine's is none of this."""
    try:
        checks = json.loads(answer.content)["checks"]
        failed = [str(said) for name, said in checks.items() if said != "ok" and name != _ENGINE]
    except (ValueError, KeyError, TypeError, AttributeError):
        return _NO
    if checks and not failed:
        return 0
    return _SILENCE if failed and all(said.startswith("no answer") for said in failed) else _NO


def _show(standing: Standing) -> None:
    _payments.labels(standing.tenant_id).set(standing.payments)
    _most.labels(standing.tenant_id).set(standing.most)
    for currency, sum_ in standing.sums.items():
        _amount.labels(standing.tenant_id, currency).set(sum_.minor)
    age = 0.0 if standing.oldest is None else (datetime.now(UTC) - standing.oldest).total_seconds()
    _oldest.labels(standing.tenant_id).set(max(0.0, age))


def _standing(row: Any) -> Standing:
    tenant_id, most, limits, oldest, used = row
    used = used or {}
    return Standing(
        tenant_id=TenantId(tenant_id),
        most=most,
        amounts={
            currency: AmountLimit(_money(limit.get("each"), currency), _money(limit.get("together"), currency))
            for currency, limit in limits.items()
        },
        payments=sum(payments for payments, _ in used.values()),
        sums={currency: Money(min(int(amount), MAX_MINOR), currency) for currency, (_, amount) in used.items()},
        oldest=oldest,
    )


def _money(minor: int | None, currency: str) -> Money | None:
    return None if minor is None else Money(minor, currency)


def _timestamp(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
