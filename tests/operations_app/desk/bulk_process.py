"""A worker of bulk operations as a process of its own, so that it can be killed. Arguments: database URL, seconds."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence

from hub.statements import Statements, open_statements
from operations_app.bulk.model import Item, ItemRefused, Standing
from operations_app.bulk.runner import BulkRunner
from operations_app.bulk.store import BulkStore
from operations_app.journal import Journal
from operations_app.settings import APP_ROLE

TABLE = "CREATE TABLE public.made (key text PRIMARY KEY, payment_id text, approved_by text[], calls int DEFAULT 1)"


class MadeInTable:
    """Single actions that are rows of a table: one per idempotency key, as the real ones are.

    The amount's last digit says what becomes of a payment: 1 is refused, 2 fails afterwards.
    """

    def __init__(self, owner: Statements) -> None:
        self._owner = owner

    async def _digit(self, payment_id: str) -> int:
        rows = await self._owner.rows(
            "SELECT amount %% 10 FROM channel.payment WHERE id = %(p)s::uuid", {"p": payment_id}
        )
        return int(rows[0][0])

    async def check(self, item: Item) -> None:
        if await self._digit(item.payment_id) == 1:
            raise ItemRefused("not-stuck", "It is not stuck.")

    async def make(self, item: Item) -> str:
        await self.check(item)
        await self._owner.rows(
            "INSERT INTO public.made (key, payment_id, approved_by) VALUES (%(k)s, %(p)s, %(a)s) "
            "ON CONFLICT (key) DO UPDATE SET calls = made.calls + 1",
            {"k": item.idempotency_key, "p": item.payment_id, "a": list(item.approved_by)},
        )
        return item.idempotency_key

    async def find(self, item: Item) -> str | None:
        rows = await self._owner.rows("SELECT key FROM public.made WHERE key = %(k)s", {"k": item.idempotency_key})
        return str(rows[0][0]) if rows else None

    async def standings(self, _: str, action_ids: Sequence[str]) -> Mapping[str, Standing]:
        found = {}
        for one in action_ids:
            rows = await self._owner.rows("SELECT payment_id FROM public.made WHERE key = %(k)s", {"k": one})
            fails = await self._digit(rows[0][0]) == 2
            found[one] = Standing(confirmed=not fails, code="not-seen" if fails else None)
        return found


async def main(url: str, seconds: float) -> None:
    async with open_statements(url, 4, role=APP_ROLE) as database, open_statements(url, 4) as owner:
        runner = BulkRunner(BulkStore(database, lease=1.0), Journal(database), MadeInTable(owner))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not await runner.step():
                await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
