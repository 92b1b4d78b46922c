"""The jobs by which an operator's action is carried out."""

from __future__ import annotations

from hub.jobs import handles
from operations_app.actions.carrying import Carrying
from operations_app.actions.model import (
    CarriedOut,
    CarryOutAction,
    ConfirmAction,
    ExpireAction,
    Expired,
    Looked,
    LookForMoney,
    MoneyLooked,
)


class OperationsWorker:
    """Carries out what operators decided."""

    def __init__(self, carrying: Carrying) -> None:
        self._carrying = carrying

    @handles(CarryOutAction)
    async def carry_out_action(self, job: CarryOutAction) -> CarriedOut:
        return await self._carrying.carry_out(job.tenant_id, job.action_id)

    @handles(ConfirmAction)
    async def confirm_action(self, job: ConfirmAction) -> Looked:
        return await self._carrying.confirm(job.tenant_id, job.action_id)

    @handles(ExpireAction)
    async def expire_action(self, job: ExpireAction) -> Expired:
        return Expired(decision=await self._carrying.expire(job.tenant_id, job.action_id))

    @handles(LookForMoney)
    async def look_for_money(self, job: LookForMoney) -> MoneyLooked:
        return MoneyLooked(recall_open=await self._carrying.look_for_money(job.tenant_id, job.action_id))
