"""Hands committed actions and decisions to the engine, right after their commit or later.

Each message was written in the transaction that it tells of, so a process that dies anywhere loses none. It is taken
under a lease, so several processes share the work; publishing twice is harmless, the engine knows the message's id.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.messages import Engine, Message
from hub.telemetry import logger
from operations_app.actions.model import ActionDecided, ActionRequested, Decision, RecallAnswered, State
from operations_app.actions.store import ActionStore, Due

_COUNT: Final = 50
_LEASE: Final = 5.0

log = logger(__name__)

_DECIDED: Final = {
    State.REJECTED: Decision.REJECTED,
    State.WITHDRAWN: Decision.WITHDRAWN,
    State.EXPIRED: Decision.EXPIRED,
}


class ActionRelay:
    """Publishes what is due. `every`: seconds between looks for what others left behind; `look_for_money`: how often
    a recall looks whether the money came back."""

    def __init__(self, store: ActionStore, engine: Engine, every: float, look_for_money: timedelta) -> None:
        self._store = store
        self._engine = engine
        self._every = every
        self._look_for_money = look_for_money
        self._wake = asyncio.Event()

    def look(self) -> None:
        """There is something new."""
        self._wake.set()

    async def run(self) -> None:
        """Publish for ever."""
        pause = self._every
        while True:
            self._wake.clear()
            try:
                while await self.publish_due():
                    pass
                pause = self._every
            except Unavailable as error:
                pause = min(pause * 2, 30.0)
                log.warning("actions.put-off", cause=str(error), seconds=pause)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def publish_due(self) -> int:
        """Publish what nobody has in hand; returns how many that was. Raises `Unavailable`."""
        due = await self._store.lease(_COUNT, _LEASE)
        for one in due:
            failpoint("operations.actions.before-publish")
            await self._engine.publish(self._message(one))
            failpoint("operations.actions.after-publish")
            await self._store.published(one)
        return len(due)

    def _message(self, due: Due) -> Message:
        if due.message == "decided":
            return ActionDecided(action_id=due.action_id, decision=_DECIDED.get(due.state, Decision.APPROVED))
        if due.message == "answered":
            return RecallAnswered(action_id=due.action_id)
        return ActionRequested(
            action_id=due.action_id,
            tenant_id=due.tenant_id,
            payment_id=due.payment_id,
            kind=due.kind,
            approvals_needed=due.approvals_needed,
            expires_after=f"PT{max(0, round(due.expires_in))}S",
            look_for_money_after=f"PT{max(1, round(self._look_for_money.total_seconds()))}S",
        )
