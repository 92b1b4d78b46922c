"""Which body came first under an idempotency key."""

from __future__ import annotations

from typing import Final

from hub.statements import Statements

_KEEP: Final = (
    "INSERT INTO disbursement.request (tenant_id, subject, key, body_hash) "
    "VALUES (%(tenant)s, %(subject)s, %(key)s, %(hash)s) ON CONFLICT DO NOTHING RETURNING key"
)
_FIRST: Final = (
    "SELECT body_hash FROM disbursement.request "
    "WHERE tenant_id = %(tenant)s AND subject = %(subject)s AND key = %(key)s"
)


class Requests:
    """Keys, each belonging to one caller of one tenant."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def first(self, tenant: str, subject: str, key: str, body_hash: bytes) -> bytes | None:
        """The hash of the body that came first under this key; None when this one is the first, which it is then."""
        values = {"tenant": tenant, "subject": subject, "key": key, "hash": body_hash}
        if await self._statements.rows(_KEEP, values):
            return None
        ((found,),) = await self._statements.rows(_FIRST, values)
        return bytes(found)
