"""Carries out bulk operations: any number of runners share them, and any of them may die at any point.

    lease items → make each one's action under its own key → look at the actions until they are confirmed → completed

An item whose runner died is taken by another when its lease ends, and made under the same key: the action that exists
already is found, so each item is acted on once.
"""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import Counter

from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.telemetry import logger
from operations_app.bulk.expiry import let_expire
from operations_app.bulk.model import BulkState, Item, ItemRefused, ItemState, SingleActions
from operations_app.bulk.store import BulkStore
from operations_app.journal import Act, Journal

AT_ONCE: Final = 16
"""Items that one runner has in hand at most."""

LOOK_AGAIN: Final = 1.0
"""Seconds between two looks at an action that is not confirmed yet."""

_PUT_OFF: Final = 5.0  # seconds

_items = Counter("payhub_operations_bulk_items", "Items of bulk operations by what became of them.", ("state",))

log = logger(__name__)


class BulkRunner:
    """Does what is due, step by step."""

    def __init__(self, store: BulkStore, journal: Journal, actions: SingleActions) -> None:
        self._store = store
        self._journal = journal
        self._actions = actions

    async def step(self) -> int:
        """Begin what may begin, look at what was begun, complete what is done; how many items moved.

        Raises `Unavailable` when the database is away.
        """
        leased = await self._store.lease(AT_ONCE)
        if leased:
            await asyncio.gather(*(self._begin(item) for item in leased))
        looked = await self._look()
        if leased is None and not looked:
            await self._tidy()
            await let_expire(self._store, self._journal)
        while await self._complete():
            pass
        return len(leased or ()) + looked

    async def _begin(self, item: Item) -> None:
        failpoint("operations.bulk.before-action")
        try:
            if item.dry_run:
                await self._actions.check(item)
                await self._made(item, ItemState.DONE)
                return
            action = await self._actions.make(item)
        except ItemRefused as refused:
            await self._made(item, ItemState.FAILED, code=refused.code, detail=refused.detail)
            return
        except Unavailable as error:
            log.warning("bulk.item-put-off", bulk_id=item.bulk_id, position=item.position, cause=str(error))
            await self._store.put_off(item, _PUT_OFF)
            return
        except Exception as error:  # noqa: BLE001 (one item that we cannot handle must not hold up the rest)
            log.error("bulk.item-failed", bulk_id=item.bulk_id, position=item.position, error=type(error).__name__)  # noqa: TRY400
            await self._made(
                item, ItemState.FAILED, code="internal", detail="A defect on our side; it has been logged."
            )
            return
        failpoint("operations.bulk.after-action")
        await self._made(item, ItemState.SENT, action=action)

    async def _made(self, item: Item, state: ItemState, **more: str | None) -> None:
        await self._store.made(item, state, **more)
        _items.labels(state).inc()

    async def _look(self) -> int:
        moved = 0
        for tenant, actions in (await self._store.sent(200, LOOK_AGAIN)).items():
            for action, standing in (await self._actions.standings(tenant, actions)).items():
                if standing.confirmed is None:
                    continue
                state = ItemState.DONE if standing.confirmed else ItemState.FAILED
                await self._store.stands(tenant, action, state, standing.code, standing.detail)
                _items.labels(state).inc()
                moved += 1
        return moved

    async def _tidy(self) -> None:
        """Follow what somebody was making when the operation was cancelled; what was not begun never is."""
        for item in await self._store.left(AT_ONCE):
            action = None if item.dry_run else await self._actions.find(item)
            await self._made(item, ItemState.SENT if action else ItemState.CANCELLED, action=action)

    async def _complete(self) -> bool:
        async with self._store.database.connection() as connection, connection.transaction():
            found = await self._store.complete(connection)
            if found is None:
                return False
            bulk_id, tenant = found
            await self._store.move(connection, bulk_id, BulkState.COMPLETED)
            bulk = await self._store.lock(connection, tenant, bulk_id)
            act = Act(
                tenant_id=tenant,
                actor="payhub",
                roles=(),
                action="bulk.complete",
                target=f"bulk:{bulk_id}",
                after=None if bulk is None else {"state": bulk.state, "items": dict(bulk.counts)},
                outcome="done",
            )
            await self._journal.append(act, connection)
        return True
