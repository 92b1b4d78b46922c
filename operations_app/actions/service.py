"""Asking for an action, approving it, rejecting it, withdrawing it. Each is one transaction with its row in the log."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg.errors import UniqueViolation

from hub.failpoint import failpoint
from hub.transfer import TenantId
from operations_app.actions.model import GIVING_BACK, Follows, Kind, ReasonCode, State
from operations_app.actions.policy import Policy, described
from operations_app.actions.possible import Asked, Plan, Refused, linked_payment_id, weigh
from operations_app.actions.situation import Situation, Situations
from operations_app.actions.store import (
    Action,
    ActionStore,
    Approval,
    Connection,
    MoreThanLeft,
    NewAction,
    RepairUnderWay,
)
from operations_app.journal import Act, Journal


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, as a token says."""

    subject: str
    tenant_id: TenantId
    roles: Iterable[str]
    request_id: str | None = None


class ActionRefused(Exception):
    """A request about an action is refused. `code` is stable; `why` is for people."""

    def __init__(
        self, code: str, why: str, errors: Sequence[Mapping[str, str]] = (), action_id: str | None = None
    ) -> None:
        self.code, self.why, self.errors, self.action_id = code, why, errors, action_id
        super().__init__(f"{code}: {why}")


class Unknown(ActionRefused):
    """There is no such payment or action for this tenant."""


class NotBegun(ActionRefused):
    """The channel accepted the payment and the engine shows nothing of it."""


class Moved(ActionRefused):
    """The payment, or the policy, is not as the caller saw it."""


class KeyReused(ActionRefused):
    """The idempotency key was used for another request."""


class NotAllowed(ActionRefused):
    """Not this person."""


UNDER_WAY: Final = "Another action repairs this payment just now."


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for."""

    payment_id: str
    kind: Kind
    reason_code: ReasonCode
    reason: str
    asked: Asked
    key: str
    """Idempotency key, of this actor's."""
    position: int | None
    """The version of the payment's document that the caller saw; nothing where a frozen list stands for it."""

    def fingerprint(self) -> bytes:
        """The same for the same request."""
        content = [
            self.payment_id,
            self.kind.value,
            self.reason_code.value,
            self.reason,
            self.asked.model_dump(mode="json"),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


class Actions:
    """What can be done about actions. `expires`: seconds in which a request has to be approved; `look`: called when
    there is something for the engine."""

    def __init__(
        self,
        store: ActionStore,
        situations: Situations,
        journal: Journal,
        expires: float,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self._situations = situations
        self._journal = journal
        self._expires = expires
        self._look = look

    async def situation(self, tenant_id: TenantId, payment_id: str) -> Situation:
        """Where a payment stands. Raises `Unknown` and `NotBegun`."""
        given_back = await self.store.given_back(tenant_id, payment_id)
        found = await self._situations.of(tenant_id, payment_id, given_back)
        if found is None and await self._situations.accepted(tenant_id, payment_id):
            raise NotBegun("not-begun", "The payment was accepted and is not shown in the engine yet; look again.")
        if found is None:
            raise Unknown("transfer-unknown", "There is no such transfer.")
        return found

    async def find(self, tenant_id: TenantId, action_id: str) -> tuple[Action, list[Approval]]:
        """An action and what approvers said. Raises `Unknown`."""
        found = await self.store.find(tenant_id, action_id)
        if found is None:
            raise Unknown("action-unknown", "There is no such action.")
        return found, await self.store.approvals(found.id)

    # --- asking ---

    async def request(self, actor: Actor, request: Request) -> tuple[Action, bool]:
        """Ask for an action; with whether it was asked for before under the same key. Raises `ActionRefused`."""
        known = await self._asked_before(actor, request)
        if known is not None:
            return known, True
        situation = await self.situation(actor.tenant_id, request.payment_id)
        if request.position is not None and request.position != situation.position:
            raise Moved("precondition-failed", "The payment is not as you saw it; look again.")
        plan = weigh(request.kind, situation, request.asked)
        if isinstance(plan, Refused):
            await self._refused(actor, request, plan.code)
            raise ActionRefused(plan.code, plan.why, plan.errors)
        _, policy = await self.store.policy(actor.tenant_id)
        new = self._new(actor, request, situation, plan, policy)
        failpoint("operations.actions.before-commit")
        try:
            async with self.store.transaction() as connection:
                await self.store.insert(connection, new)
                await self._note(connection, actor, new.id, request, new.approvals_needed)
        except UniqueViolation:
            if (known := await self._asked_before(actor, request)) is not None:
                return known, True
            raise
        except RepairUnderWay as other:
            await self._refused(actor, request, "repair-under-way")
            raise ActionRefused("repair-under-way", UNDER_WAY, action_id=other.action_id) from None
        except MoreThanLeft:
            await self._refused(actor, request, "more-than-left")
            raise ActionRefused("more-than-left", "Recalls and refunds would come to more than the payment.") from None
        failpoint("operations.actions.after-commit")
        self._look()
        found = await self.store.find(actor.tenant_id, new.id)
        if found is None:
            raise LookupError(f"action {new.id} was written and is not there")
        return found, False

    async def _asked_before(self, actor: Actor, request: Request) -> Action | None:
        known = await self.store.by_key(actor.tenant_id, actor.subject, request.key)
        if known is not None and known.request_hash != request.fingerprint():
            raise KeyReused("key-reused", "Another request was made with this Idempotency-Key; choose a new one.")
        return known

    def _new(self, actor: Actor, request: Request, situation: Situation, plan: Plan, policy: Policy) -> NewAction:
        action_id = str(uuid.uuid4())
        return NewAction(
            id=action_id,
            tenant_id=actor.tenant_id,
            payment_id=situation.payment_id,
            kind=request.kind,
            reason_code=request.reason_code.value,
            reason=request.reason,
            asked=request.asked,
            plan=plan,
            original=situation.amount,
            approvals_needed=policy.approvals(request.kind, plan.amount, plan.currency),
            actor=actor.subject,
            key=request.key,
            request_hash=request.fingerprint(),
            expires=self._expires,
            linked_payment_id=linked_payment_id(action_id) if plan.follows is Follows.PAYMENT else None,
        )

    async def _note(
        self, connection: Connection, actor: Actor, action_id: str, request: Request, approvals: int
    ) -> None:
        act = Act(
            tenant_id=actor.tenant_id,
            actor=actor.subject,
            roles=actor.roles,
            action="action.request",
            target=f"action:{action_id}",
            payment_id=request.payment_id,
            reason_code=request.reason_code.value,
            reason=request.reason,
            after={
                "kind": request.kind.value,
                "asked": request.asked.model_dump(mode="json", exclude_none=True),
                "approvals_needed": approvals,
            },
            request_id=actor.request_id,
            outcome=State.REQUESTED.value if approvals else State.APPROVED.value,
        )
        await self._journal.append(act, connection)

    async def _refused(self, actor: Actor, request: Request, code: str) -> None:
        act = Act(
            tenant_id=actor.tenant_id,
            actor=actor.subject,
            roles=actor.roles,
            action="action.request",
            target=f"transfer:{request.payment_id}",
            payment_id=request.payment_id,
            reason_code=request.reason_code.value,
            reason=request.reason,
            after={"kind": request.kind.value, "refused": code},
            request_id=actor.request_id,
            outcome="refused",
        )
        await self._journal.append(act)

    # --- deciding ---

    async def approve(self, actor: Actor, action_id: str, note: str | None = None) -> Action:
        """Approve; with the last approval it is handed to the engine. Raises `ActionRefused`."""
        action, _ = await self.find(actor.tenant_id, action_id)
        await self._not_own(actor, action, "action.approve")
        if action.state is State.REQUESTED and not action.expired:
            await self._still_possible(actor, action)
        async with self.store.transaction() as connection:
            action = await self._waiting(connection, actor, action_id)
            yes = await self._said(connection, action, actor, note, yes=True)
            if yes >= action.approvals_needed:
                await self.store.move(connection, action, State.APPROVED)
                await self.store.post(connection, action.id, "decided")
            state = State.APPROVED if yes >= action.approvals_needed else State.REQUESTED
            await self._decide(connection, actor, action, what="action.approve", state=state, note=note, approvals=yes)
        failpoint("operations.actions.after-approval")
        self._look()
        return (await self.find(actor.tenant_id, action_id))[0]

    async def reject(self, actor: Actor, action_id: str, note: str) -> Action:
        """Say no: it will not be done. Raises `ActionRefused`."""
        action, _ = await self.find(actor.tenant_id, action_id)
        await self._not_own(actor, action, "action.reject")
        async with self.store.transaction() as connection:
            action = await self._waiting(connection, actor, action_id)
            await self._said(connection, action, actor, note, yes=False)
            await self._close(connection, actor, action, what="action.reject", state=State.REJECTED, note=note)
        self._look()
        return (await self.find(actor.tenant_id, action_id))[0]

    async def withdraw(self, actor: Actor, action_id: str) -> Action:
        """Whoever asked for it takes it back before it is approved. Raises `ActionRefused`."""
        action, _ = await self.find(actor.tenant_id, action_id)
        if action.requested_by != actor.subject:
            raise NotAllowed("not-own-request", "Only whoever asked for it can withdraw it.")
        async with self.store.transaction() as connection:
            action = await self._waiting(connection, actor, action_id)
            await self._close(connection, actor, action, what="action.withdraw", state=State.WITHDRAWN, note=None)
        self._look()
        return (await self.find(actor.tenant_id, action_id))[0]

    async def answer(self, actor: Actor, action_id: str, answer: str, note: str) -> Action:
        """Note what the receiving bank answered to a recall. Raises `ActionRefused`."""
        action, _ = await self.find(actor.tenant_id, action_id)
        async with self.store.transaction() as connection:
            locked = await self.store.lock(connection, actor.tenant_id, action_id)
            if locked is None or locked.plan.follows is not Follows.RECALL or locked.state is not State.CARRYING_OUT:
                raise ActionRefused("no-recall-open", "Only a recall over a rail that is under way takes an answer.")
            if locked.answer is not None:
                raise ActionRefused("already-answered", "The recall's answer was noted already.")
            await self.store.answer(connection, locked, answer)
            await self.store.post(connection, locked.id, "answered")
            await self._decide(
                connection, actor, locked, what="action.answer", state=locked.state, note=note, answer=answer
            )
        self._look()
        return (await self.find(actor.tenant_id, action.id))[0]

    async def _not_own(self, actor: Actor, action: Action, what: str) -> None:
        if action.requested_by == actor.subject:
            act = _act(actor, action, what=what, outcome="refused", after={"refused": "own-request"})
            await self._journal.append(act)
            raise NotAllowed("own-request", "Whoever asked for an action does not decide it.")

    async def _still_possible(self, actor: Actor, action: Action) -> None:
        taken = await self.store.given_back(actor.tenant_id, action.payment_id)
        own = action.amount if action.kind in GIVING_BACK else 0
        situation = await self._situations.of(actor.tenant_id, action.payment_id, taken - own)
        plan = None if situation is None else weigh(action.kind, situation, action.asked_again)
        if isinstance(plan, Plan) and plan.same_target(action.plan):
            return
        why = plan.why if isinstance(plan, Refused) else "it stands somewhere else by now"
        await self._journal.append(
            _act(actor, action, what="action.approve", outcome="refused", after={"refused": "moved"})
        )
        raise ActionRefused("payment-moved", f"The payment is not as it was when this was asked for: {why}.")

    async def _waiting(self, connection: Connection, actor: Actor, action_id: str) -> Action:
        action = await self.store.lock(connection, actor.tenant_id, action_id)
        if action is None:
            raise Unknown("action-unknown", "There is no such action.")
        if action.state is not State.REQUESTED:
            raise ActionRefused("already-decided", f"This action is {action.state} already.")
        if action.expired:
            raise ActionRefused("expired", "The time in which it could be decided is over.")
        return action

    async def _said(self, connection: Connection, action: Action, actor: Actor, note: str | None, *, yes: bool) -> int:
        try:
            return await self.store.say(connection, action, actor.subject, note, yes=yes)
        except UniqueViolation:
            raise ActionRefused("already-said", "You approved this action already.") from None

    async def _close(
        self, connection: Connection, actor: Actor, action: Action, *, what: str, state: State, note: str | None
    ) -> None:
        await self.store.move(connection, action, state)
        await self.store.give(connection, action)
        await self.store.post(connection, action.id, "decided")
        await self._decide(connection, actor, action, what=what, state=state, note=note)

    async def _decide(
        self,
        connection: Connection,
        actor: Actor,
        action: Action,
        *,
        what: str,
        state: State,
        note: str | None,
        **more: Any,
    ) -> None:
        act = _act(actor, action, what=what, outcome=state.value, note=note, after={"state": state.value, **more})
        await self._journal.append(act, connection)

    # --- policies ---

    async def put_policy(self, actor: Actor, policy: Policy, seen: int) -> int:
        """Replace the tenant's rules; returns the new version. Raises `Moved` when `seen` is not the present one."""
        rules = described(policy)
        async with self.store.transaction() as connection:
            before, old = await self.store.policy_for_change(connection, actor.tenant_id)
            if before != seen:
                raise Moved("precondition-failed", "The policies are not as you saw them; look again.")
            version = await self.store.put_policy(connection, actor.tenant_id, actor.subject, rules)
            act = Act(
                tenant_id=actor.tenant_id,
                actor=actor.subject,
                roles=actor.roles,
                action="policy.change",
                target=f"policy:{actor.tenant_id}",
                before={"version": before, "rules": described(old)},
                after={"version": version, "rules": rules},
                request_id=actor.request_id,
                outcome="done",
            )
            await self._journal.append(act, connection)
        return version


def _act(
    actor: Actor, action: Action, *, what: str, outcome: str, note: str | None = None, after: Mapping[str, Any]
) -> Act:
    return Act(
        tenant_id=actor.tenant_id,
        actor=actor.subject,
        roles=actor.roles,
        action=what,
        target=f"action:{action.id}",
        payment_id=action.payment_id,
        reason_code=action.reason_code,
        reason=note,
        before={"state": action.state.value},
        after=after,
        request_id=actor.request_id,
        outcome=outcome,
    )
