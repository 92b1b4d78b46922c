"""How the parts of the hub are, and how far the views are behind. Readable by whoever may see payments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import httpx
from fastapi import APIRouter, Depends, Request
from prometheus_client.parser import text_string_to_metric_families

from hub.api import Caller
from hub.errors import Unavailable
from operations_app.access import allowed
from operations_app.views import AUDIT, EVERYBODY, TRANSFERS, Views
from operations_app.wire import Moment, Shown

router = APIRouter(tags=["health"])
"""Included under `/api/v1`."""

Reader = Annotated[Caller, Depends(allowed("transfers:read"))]

_PATIENCE: Final = 2.0
"""Seconds for one part's answer."""

_KEPT: Final = 2.0
"""Seconds for which an answer is given again: many who look ask every part once."""


class PartShown(Shown):
    """A process of the hub, or a server it needs."""

    name: str
    state: str
    """`ready`, `not-ready` or `away`."""
    detail: str | None = None
    """Which of its own checks fail."""


class LagShown(Shown):
    """How far an exporter, and so a view, is behind the engine."""

    view: str
    records: int
    seconds: float
    waiting: bool
    """Elasticsearch is away or too busy."""
    dead_letters: int
    """Records that can never be shown; they lie in the dead-letter topic."""


class ViewShown(Shown):
    """When a view last changed, whoever's payment it was."""

    view: str
    changed_at: str | None


class HealthShown(Shown):
    """How the hub is."""

    at: Moment
    state: str
    """`ready` when every part is."""
    parts: Sequence[PartShown]
    servers: Sequence[PartShown]
    lag: Sequence[LagShown]
    views: Sequence[ViewShown]


@router.get("/health")
async def health(request: Request, _: Reader) -> HealthShown:
    """Every part of the hub as it says of itself, the servers, and the lag of the views."""
    looked: _Looked | None = getattr(request.app.state, "health", None)
    if looked is None:
        looked = request.app.state.health = _Looked(request)
    return await looked.shown()


class _Looked:
    """Looks at the parts, once for everybody who asks within two seconds."""

    def __init__(self, request: Request) -> None:
        state = request.app.state
        self._parts: Mapping[str, str] = state.settings.parts
        self._views: Views = state.views
        self._probes: Mapping[str, Callable[[], Awaitable[None]]] = {
            "postgresql": state.database.ping,
            "ledger": state.ledger.ping,
            "elasticsearch": self._views.ping,
        }
        if state.engine is not None and hasattr(state.engine, "ping"):
            self._probes = {**self._probes, "zeebe": state.engine.ping}
        self._lock = asyncio.Lock()
        self._last: HealthShown | None = None
        self._at = 0.0

    async def shown(self) -> HealthShown:
        async with self._lock:
            if self._last is None or time.monotonic() - self._at > _KEPT:
                self._last, self._at = await self._look(), time.monotonic()
            return self._last

    async def _look(self) -> HealthShown:
        async with httpx.AsyncClient(timeout=_PATIENCE, follow_redirects=False) as client:
            parts, servers, lags, views = await asyncio.gather(
                asyncio.gather(*(_part(client, name, url) for name, url in sorted(self._parts.items()))),
                asyncio.gather(*(_server(name, probe) for name, probe in self._probes.items())),
                asyncio.gather(*(_lag(client, name, url) for name, url in sorted(self._parts.items()))),
                asyncio.gather(*(self._changed(family) for family in (TRANSFERS, AUDIT))),
            )
        return HealthShown(
            at=datetime.now(UTC),
            state="ready" if all(one.state == "ready" for one in (*parts, *servers)) else "not-ready",
            parts=parts,
            servers=servers,
            lag=[lag for lag in lags if lag is not None],
            views=views,
        )

    async def _changed(self, family: str) -> ViewShown:
        field = "@timestamp" if family == AUDIT else "updatedAt"
        try:
            found = await self._views.aggregate(family, EVERYBODY, {"last": {"max": {"field": field}}})
        except Unavailable:
            return ViewShown(view=family, changed_at=None)
        return ViewShown(view=family, changed_at=found["last"].get("value_as_string"))


async def _part(client: httpx.AsyncClient, name: str, url: str) -> PartShown:
    try:
        answer = await client.get(f"{url.rstrip('/')}/health/ready")
    except httpx.HTTPError as error:
        return PartShown(name=name, state="away", detail=type(error).__name__)
    if answer.is_success:
        return PartShown(name=name, state="ready")
    try:
        checks = answer.json()["checks"]
        failing = "; ".join(f"{check}: {found}" for check, found in sorted(checks.items()) if found != "ok")
    except (ValueError, KeyError, AttributeError):
        failing = str(answer.status_code)
    return PartShown(name=name, state="not-ready", detail=failing)


async def _server(name: str, probe: Callable[[], Awaitable[None]]) -> PartShown:
    try:
        async with asyncio.timeout(_PATIENCE):
            await probe()
    except TimeoutError:
        return PartShown(name=name, state="away", detail=f"no answer in {_PATIENCE:g} s")
    except Exception as error:  # noqa: BLE001 (a probe may fail in any way)
        return PartShown(name=name, state="away", detail=type(error).__name__)
    return PartShown(name=name, state="ready")


async def _lag(client: httpx.AsyncClient, name: str, url: str) -> LagShown | None:
    """What an exporter's metrics say; nothing for whatever is no exporter, or is away."""
    if not name.startswith("export-"):
        return None
    try:
        answer = await client.get(f"{url.rstrip('/')}/metrics")
        answer.raise_for_status()
        found: dict[str, list[float]] = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:  # one per Kafka partition, where it is told apart
                found.setdefault(sample.name, []).append(sample.value)
    except (httpx.HTTPError, ValueError):
        return None
    return LagShown(
        view=name.removeprefix("export-"),
        records=int(sum(found.get("payhub_export_lag_records", ()))),
        seconds=round(max(found.get("payhub_export_lag_seconds", [0.0])), 3),
        waiting=any(found.get("payhub_export_waiting", ())),
        dead_letters=int(sum(found.get("payhub_export_dead_letters_total", ()))),
    )
