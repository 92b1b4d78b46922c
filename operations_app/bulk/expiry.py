"""What nobody approved in time: written down as expired once, by whoever notices first."""

from __future__ import annotations

from operations_app.bulk.model import BulkState
from operations_app.bulk.store import BulkStore
from operations_app.journal import Act, Journal

_AT_ONCE = 20


async def let_expire(store: BulkStore, journal: Journal) -> int:
    """End the requests whose time is over, each with its row in the operator log; how many. Raises `Unavailable`."""
    if not await store.overdue():
        return 0
    async with store.database.connection() as connection, connection.transaction():
        expired = await store.lock_overdue(connection, _AT_ONCE)
        for bulk_id, _ in expired:
            await store.move(connection, bulk_id, BulkState.EXPIRED)
        for bulk_id, tenant in expired:
            act = Act(
                tenant_id=tenant,
                actor="payhub",
                roles=(),
                action="bulk.expire",
                target=f"bulk:{bulk_id}",
                before={"state": BulkState.REQUESTED},
                after={"state": BulkState.EXPIRED},
                outcome=BulkState.EXPIRED,
            )
            await journal.append(act, connection)
    return len(expired)
