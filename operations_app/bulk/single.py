"""Each item by the way of single actions: the same checks, the same log, the same confirmation by the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hub.transfer import TenantId
from operations_app.actions.model import GIVING_BACK, Kind, ReasonCode, State
from operations_app.actions.possible import Asked, Refused, weigh
from operations_app.actions.service import UNDER_WAY, ActionRefused, Actions, Actor, Request
from operations_app.actions.store import Action
from operations_app.bulk.model import Item, ItemRefused, Standing

_SAID_BEFORE: Final = "already-said"
_DECIDED_BEFORE: Final = "already-decided"
_STRICTER: Final = "The policy asks for more approvals than the list has; ask for it anew."


class ActionsOfBulk:
    """`SingleActions` on the slice of actions."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions

    async def check(self, item: Item) -> None:
        try:
            situation = await self._actions.situation(item.tenant_id, item.payment_id)
        except ActionRefused as refused:
            raise ItemRefused(refused.code, refused.why) from None
        plan = weigh(Kind(item.kind), situation, Asked.model_validate(item.asked))
        if isinstance(plan, Refused):
            raise ItemRefused(plan.code, plan.why)
        busy = await self._actions.store.open_repair(item.tenant_id, item.payment_id)
        if busy is not None and Kind(item.kind) not in GIVING_BACK:
            raise ItemRefused("repair-under-way", UNDER_WAY)

    async def find(self, item: Item) -> str | None:
        action = await self._actions.store.by_key(item.tenant_id, item.requested_by, item.idempotency_key)
        return None if action is None else action.id

    async def make(self, item: Item) -> str:
        wanted = Request(
            payment_id=item.payment_id,
            kind=Kind(item.kind),
            reason_code=ReasonCode(item.reason_code),
            reason=item.reason,
            asked=Asked.model_validate(item.asked),
            key=item.idempotency_key,
            position=None,
        )
        asks = Actor(item.requested_by, item.tenant_id, item.roles)
        try:
            action, _ = await self._actions.request(asks, wanted)
            for approver in item.approved_by:
                if action.state is State.REQUESTED:
                    action = await self._approve(item, approver, action)
            if action.state is State.REQUESTED:
                await self._actions.withdraw(asks, action.id)
                raise ItemRefused("approvals-missing", _STRICTER)
        except ActionRefused as refused:
            raise ItemRefused(refused.code, refused.why) from None
        return action.id

    async def _approve(self, item: Item, approver: str, action: Action) -> Action:
        """Who approved the list has approved this."""
        actor = Actor(approver, item.tenant_id, ["approver"])
        try:
            return await self._actions.approve(actor, action.id, f"Approved with bulk operation {item.bulk_id}.")
        except ActionRefused as refused:
            if refused.code not in {_SAID_BEFORE, _DECIDED_BEFORE}:
                raise
            return (await self._actions.find(item.tenant_id, action.id))[0]

    async def standings(self, tenant_id: TenantId, action_ids: Sequence[str]) -> Mapping[str, Standing]:
        return {one: await self._standing(tenant_id, one) for one in action_ids}

    async def _standing(self, tenant_id: TenantId, action_id: str) -> Standing:
        action = await self._actions.store.find(tenant_id, action_id)
        if action is None:
            return Standing(confirmed=False, code="action-unknown", detail="Its action is not there.")
        if not action.state.is_final:
            return Standing(confirmed=None)
        if action.state is State.CONFIRMED:
            return Standing(confirmed=True)
        return Standing(confirmed=False, code=action.code or action.state.lower(), detail=action.detail)
