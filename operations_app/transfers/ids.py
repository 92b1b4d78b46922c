"""Whose id is this? Payments go by many names: our own, the channel's, the engine's, the scheme's."""

from __future__ import annotations

import asyncio
from typing import Final, LiteralString
from uuid import UUID

from hub.statements import Statements
from operations_app.views import INCIDENTS, STEPS, TRANSFERS, Views
from operations_app.wire import Shown

_BY_CORRELATION: Final = (
    "SELECT id::text FROM channel.payment WHERE tenant_id = %(tenant)s AND idempotency_key = %(id)s"
)
_BY_TRACKING: Final = (
    "SELECT payment_id FROM stp.stp_order WHERE tenant_id = %(tenant)s AND tracking_key = %(id)s "
    "UNION SELECT payment_id FROM stp.deposit WHERE tenant_id = %(tenant)s AND tracking_key = %(id)s"
)
_ACCEPTED: Final = "SELECT id::text FROM channel.payment WHERE tenant_id = %(tenant)s AND id = %(id)s"
_MOST: Final = 20


class Match(Shown):
    """A payment that goes by an id."""

    kind: str
    """`paymentId`, `correlationId`, `trackingKey`, `processInstanceKey`, `elementInstanceKey` or `incidentKey`."""
    payment_id: str


class Ids:
    """Finds payments by exact ids of any kind. Raises `Unavailable`."""

    def __init__(self, database: Statements, views: Views) -> None:
        self._database = database
        self._views = views

    async def by_correlation(self, tenant: str, correlation: str) -> list[str]:
        """The payment that the channel handed in under this correlation id: one or none."""
        return await self._rows(_BY_CORRELATION, tenant, correlation)

    async def matches(self, tenant: str, id_: str) -> list[Match]:
        """Every payment of this tenant that goes by this id, each once."""
        told = await asyncio.gather(
            self._own(tenant, id_),
            self.by_correlation(tenant, id_),
            self._rows(_BY_TRACKING, tenant, id_),
            self._keyed(tenant, id_),
        )
        kinds = ("paymentId", "correlationId", "trackingKey")
        found = [Match(kind=kind, payment_id=one) for kind, ids in zip(kinds, told[:3], strict=True) for one in ids]
        return list({one.payment_id: one for one in reversed([*found, *told[3]])}.values())[::-1]

    async def _own(self, tenant: str, id_: str) -> list[str]:
        if await self._views.get(TRANSFERS, id_, tenant) is not None:
            return [id_]
        try:
            wanted = str(UUID(id_))
        except ValueError:
            return []
        return await self._rows(_ACCEPTED, tenant, wanted)

    async def _keyed(self, tenant: str, id_: str) -> list[Match]:
        """By a key of the engine."""
        if not (id_.isascii() and id_.isdigit()):
            return []
        families = ((TRANSFERS, "instanceKeys"), (STEPS, "elementInstanceKey"), (INCIDENTS, "incidentKey"))
        pages = await asyncio.gather(
            *(
                self._views.search(
                    family,
                    tenant,
                    filters=[{"term": {field: id_}}],
                    sort=[{"paymentId": "asc"}],
                    size=_MOST,
                    fields=["paymentId"],
                    count=False,
                )
                for family, field in families
            )
        )
        kinds = ("processInstanceKey", "elementInstanceKey", "incidentKey")
        return [
            Match(kind=kind, payment_id=hit.body["paymentId"])
            for kind, page in zip(kinds, pages, strict=True)
            for hit in page.hits
            if hit.body.get("paymentId")
        ]

    async def _rows(self, statement: LiteralString, tenant: str, id_: str) -> list[str]:
        if "\x00" in id_:
            return []
        rows = await self._database.rows(statement, {"tenant": tenant, "id": id_})
        return [row[0] for row in rows]
