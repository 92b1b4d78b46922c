"""Personal data, shown to whoever may see it and written down before it leaves.

Views and lists hold masked forms only. What the channel and the scheme named is read from PostgreSQL, in the very
transaction that writes to the operator log who saw which fields of which payment and why. A refusal is written too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from psycopg import AsyncConnection
from pydantic import Field

from connectors.stp.deposits import parties
from hub.api import Caller, Problem, caller, read_json
from hub.statements import Statements
from hub.transfer import IdentifierType, Party
from ledger.disbursement.transfers import Transfers
from operations_app.access import SCOPES, scopes_of
from operations_app.journal import Act, Journal
from operations_app.wire import Asked, Shown, Text, Word

router = APIRouter(tags=["reveal"])
"""Included under `/api/v1`."""

ACTION: Final = "pii.reveal"

_PAYMENT: Final = "SELECT payer, payee FROM channel.payment WHERE id = %(id)s AND tenant_id = %(tenant)s"
_DEPOSIT: Final = (
    "SELECT c.body, d.identifier FROM stp.deposit d JOIN stp.callback c ON c.id = d.callback_id "
    "WHERE d.payment_id = %(id)s::text AND d.tenant_id = %(tenant)s"
)


class PartyField(StrEnum):
    """What can be revealed."""

    PAYER_NAME = "payer.name"
    PAYER_IDENTIFIER = "payer.identifier"
    PAYER_TAX_ID = "payer.taxId"
    PAYEE_NAME = "payee.name"
    PAYEE_IDENTIFIER = "payee.identifier"
    PAYEE_TAX_ID = "payee.taxId"


class Reveal(Asked):
    """Which fields, and why."""

    fields: Annotated[list[PartyField], Field(min_length=1, max_length=len(PartyField))]
    reason_code: Word
    reason: Text


class Revealed(Shown):
    """The fields asked for; one that the payment does not have is null. `act` is the row of the operator log."""

    payment_id: str
    values: Mapping[str, str | None]
    act: str


@router.post("/transfers/{payment_id}/reveal")
async def reveal(payment_id: str, request: Request, who: Annotated[Caller, Depends(caller)]) -> Revealed:
    """The parties of a payment as they are. Needs the scope pii:reveal."""
    journal: Journal = request.app.state.journal
    if "pii:reveal" not in scopes_of(who):
        await journal.append(_act(who, payment_id, outcome="refused"))
        needed = sorted(role for role, scopes in SCOPES.items() if "pii:reveal" in scopes)
        raise Problem(403, "role-missing", f"This needs one of the roles: {', '.join(needed)}.")
    asked = await read_json(request, Reveal)
    fields = sorted(set(asked.fields))
    why = {"reason_code": asked.reason_code, "reason": asked.reason, "after": {"fields": list(fields)}}
    database: Statements = request.app.state.database
    payout = await _payout(request.app.state.ledger, who, payment_id)
    async with database.connection() as connection, connection.transaction():
        found = payout or await _parties(connection, who.tenant, payment_id)
        outcome = "not-found" if found is None else "done"
        seq = await journal.append(_act(who, payment_id, outcome=outcome, **why), connection)
    if found is None:
        raise Problem(404, "not-found", "There is no such payment.")
    values = {field.value: _value(found, field) for field in fields}
    return Revealed(payment_id=payment_id, values=values, act=str(seq))


def _act(who: Caller, payment_id: str, **more: Any) -> Act:
    known = payment_id[:64]
    return Act.by(who, action=ACTION, target=f"transfer:{known}", payment_id=known, **more)


def _value(found: Sequence[Party | None], field: PartyField) -> str | None:
    side, _, name = field.partition(".")
    party = found[0] if side == "payer" else found[1]
    value = None if party is None else getattr(party, "tax_id" if name == "taxId" else name)
    return None if value is None else str(value)


async def _payout(ledger: Statements, who: Caller, payment_id: str) -> tuple[None, Party] | None:
    """Whom a payout pays; whoever pays it is the tenant itself."""
    found = await Transfers(ledger).find(who.tenant, payment_id)
    if found is None:
        return None
    tax_id = found.tax_id or None
    return None, Party(id_type=IdentifierType.CLABE, identifier=found.clabe, name=found.holder_name, tax_id=tax_id)


async def _parties(
    connection: AsyncConnection[Any], tenant: str, payment_id: str
) -> tuple[Party | None, Party | None] | None:
    """Payer and payee of a payment of this tenant, whether a channel handed it in or a scheme told us of it."""
    try:
        wanted = {"id": UUID(payment_id), "tenant": tenant}
    except ValueError:
        return None
    handed_in = await (await connection.execute(_PAYMENT, wanted)).fetchone()
    if handed_in is not None:
        return Party.model_validate(handed_in[0]), Party.model_validate(handed_in[1])
    came_in = await (await connection.execute(_DEPOSIT, wanted)).fetchone()
    return None if came_in is None else parties(bytes(came_in[0]), came_in[1])
