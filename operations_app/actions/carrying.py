"""Carries an action out, and says it is done only when the engine's own records show it.

Commands go to keys that the views showed; a key that is gone is refused by the engine, so nothing else is hit. Before
the first command it is written down that there may be one: whoever repeats the job after a crash gives the commands
again, takes a refusal for their having been carried out, and leaves it to the records to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic_core import from_json

from exporters.privacy import mask_json
from hub.failpoint import failpoint
from hub.messages import Engine
from hub.telemetry import logger
from hub.transfer import Outcome, Party, PaymentId, TenantId
from hub.zeebe.operate import Activate
from hub.zeebe.refusals import EngineRefused
from operations_app.actions.model import (
    GIVING_BACK,
    ActionOutcome,
    CarriedOut,
    Decision,
    Follows,
    Looked,
    State,
)
from operations_app.actions.possible import Command, Expectation, Move, Plan, Refused, Retry, SetVariables, weigh
from operations_app.actions.situation import Body, PaymentViews, Situations
from operations_app.actions.store import Action, ActionStore
from operations_app.journal import Act, Journal

log = logger(__name__)

HUB: Final = "hub"
"""The actor of what no person does."""


class Commands(Protocol):
    """What is asked of the engine beside publishing: `hub.zeebe.operate.Operations`."""

    async def retry(self, incident_key: int, job_key: int | None = None) -> None: ...

    async def set_variables(self, scope_key: int, variables: Mapping[str, Any], local: bool = False) -> int: ...

    async def modify_instance(
        self, instance_key: int, *, activate: Sequence[Activate] = (), terminate: Sequence[int] = ()
    ) -> None: ...


class Parties(Protocol):
    """Between whom a payment ran, for the one that gives it back."""

    async def of(self, tenant_id: TenantId, payment_id: PaymentId) -> tuple[Party, Party] | None:
        """Payer and payee; nothing when one of them is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds in which an action has to be seen done."""

    confirm: float
    linked: float
    """When a payment has to settle."""
    recall: float
    """When money is asked back over a rail."""


class Carrying:
    """The jobs of operator-action.bpmn and recall.bpmn."""

    def __init__(
        self,
        *,
        store: ActionStore,
        situations: Situations,
        views: PaymentViews,
        parties: Parties,
        journal: Journal,
        engine: Engine,
        commands: Commands,
        limits: Limits,
    ) -> None:
        self._store = store
        self._situations = situations
        self._views = views
        self._parties = parties
        self._journal = journal
        self._engine = engine
        self._commands = commands
        self._limits = limits

    # --- carrying out ---

    async def carry_out(self, tenant_id: TenantId, action_id: str) -> CarriedOut:
        """Look once more whether it is possible, then give the commands. Safe to run twice."""
        action = await self._find(tenant_id, action_id)
        if action.state not in {State.APPROVED, State.CARRYING_OUT}:
            done = action.state is State.CONFIRMED
            return CarriedOut(what_follows=action.plan.follows if done else Follows.NOTHING)
        repeated = action.tried_at is not None
        if not repeated:
            plan = await self._plan(action)
            if isinstance(plan, Refused):
                await self._end(action, State.FAILED, plan.code, plan.why)
                return CarriedOut(what_follows=Follows.NOTHING)
            action = await self._begin(action, plan)
        failpoint("operations.actions.before-commands")
        refused = await self._command(action, repeated=repeated)
        failpoint("operations.actions.after-commands")
        if refused is not None:
            await self._end(action, State.FAILED, "engine-refused", f"the engine refused it: {refused.command}")
            return CarriedOut(what_follows=Follows.NOTHING)
        await self._store.carried_out(action.id)
        return await self._what_follows(action)

    async def _plan(self, action: Action) -> Plan | Refused:
        taken = await self._store.given_back(action.tenant_id, action.payment_id)
        own = action.amount if action.kind in GIVING_BACK else 0
        situation = await self._situations.of(action.tenant_id, action.payment_id, taken - own)
        if situation is None:
            return Refused("payment-moved", "the views do not know the payment any more")
        plan = weigh(action.kind, situation, action.asked_again)
        if isinstance(plan, Plan) and not plan.same_target(action.plan):
            return Refused("payment-moved", "the payment stands somewhere else than when this was asked for")
        if isinstance(plan, Plan) and plan.follows is Follows.PAYMENT and await self._parties_of(action) is None:
            return Refused("parties-unknown", "it is not known to whom the money would go back")
        return plan

    async def _parties_of(self, action: Action) -> tuple[Party, Party] | None:
        return await self._parties.of(action.tenant_id, action.payment_id)

    async def _begin(self, action: Action, plan: Plan) -> Action:
        within = {Follows.PAYMENT: self._limits.linked, Follows.RECALL: self._limits.recall}
        seconds = within.get(plan.follows, self._limits.confirm)
        async with self._store.transaction() as connection:
            await self._store.begin(connection, action, plan, seconds)
            commands = [command.do for command in plan.commands]
            await self._note(connection, action, "action.carry-out", State.CARRYING_OUT.value, {"commands": commands})
        return await self._find(action.tenant_id, action.id)

    async def _command(self, action: Action, *, repeated: bool) -> EngineRefused | None:
        """Give the commands in order. A refusal ends it: what comes after would meet another payment.

        When they were given before, a refusal may mean that they were carried out then.
        """
        for command in action.plan.commands:
            try:
                await self._give(action, command)
            except EngineRefused as refused:
                log.warning("action.refused", action_id=action.id, command=command.do, error=type(refused).__name__)
                if not repeated:
                    return refused
        return None

    async def _give(self, action: Action, command: Command) -> None:
        if isinstance(command, Retry):
            await self._commands.retry(command.incident_key, command.job_key)
        elif isinstance(command, SetVariables):
            if command.variables:
                await self._commands.set_variables(command.instance_key, command.variables, local=True)
        elif isinstance(command, Move):
            told = {"reason_detail": _detail(action)} if command.variables else {}
            place = Activate(command.to, {**command.variables, **told} or None)
            await self._commands.modify_instance(command.instance_key, activate=[place], terminate=[command.step_key])
        else:
            outcome = ActionOutcome(
                payment_id=action.payment_id,
                outcome=command.outcome,
                reason_detail=_detail(action),
                action_id=action.id,
            )
            await self._engine.publish(outcome)

    async def _what_follows(self, action: Action) -> CarriedOut:
        if action.plan.follows is not Follows.PAYMENT:
            return CarriedOut(what_follows=action.plan.follows)
        parties = await self._parties_of(action)
        if parties is None or action.linked_payment_id is None:
            raise LookupError(f"the parties of payment {action.payment_id} have gone")
        payer, payee = parties
        return CarriedOut(
            what_follows=Follows.PAYMENT,
            linked_payment_id=action.linked_payment_id,
            payer=payee,
            payee=payer,
            amount=action.amount,
            currency=action.currency,
            concept="DEVOLUCION",
        )

    # --- confirming ---

    async def confirm(self, tenant_id: TenantId, action_id: str) -> Looked:
        """Look for the records of what the action was to bring about."""
        action = await self._find(tenant_id, action_id)
        if action.state.is_final:
            return Looked(confirmed=action.state is State.CONFIRMED, look_again_after="PT0S")
        seen = await self._seen(action)
        if all(one is True for one in seen):
            await self._end(action, State.CONFIRMED, None, None)
            return Looked(confirmed=True, look_again_after="PT0S")
        if False in seen:
            code, why = self._otherwise(action, seen)
            await self._end(action, State.FAILED, code, why)
            return Looked(confirmed=False, look_again_after="PT0S")
        if action.too_late and await self._late(action):
            return Looked(confirmed=None, look_again_after=_VIEWS_LATE)
        if action.too_late:
            missing = ", ".join(one.see for one, there in zip(action.plan.expects, seen, strict=True) if not there)
            keeps = action.plan.follows is Follows.PAYMENT
            await self._end(action, State.FAILED, "unconfirmed", f"no record in time of: {missing}", keeps=keeps)
            return Looked(confirmed=False, look_again_after="PT0S")
        return Looked(confirmed=None, look_again_after=_pause(action))

    @staticmethod
    def _otherwise(action: Action, seen: Sequence[bool | None]) -> tuple[str, str]:
        against = {one.see for one, there in zip(action.plan.expects, seen, strict=True) if there is False}
        if "money-back" in against:
            return "not-returned", "the receiving bank answered that it does not give the money back"
        if "settled" in against:
            return "ended-otherwise", f"payment {action.linked_payment_id}, which was to give it back, did not settle"
        return "ended-otherwise", "the payment came to another end than was stated"

    async def _seen(self, action: Action) -> list[bool | None]:
        """Of each expectation: seen, contradicted, or nothing yet."""
        plan = action.plan
        families = {one.see for one in plan.expects}
        steps = (
            await self._views.steps(action.tenant_id, action.payment_id)
            if families & {"variable", "ended", "reached"}
            else ()
        )
        incidents = await self._views.incidents(action.tenant_id, action.payment_id) if "resolved" in families else ()
        transfer = await self._views.transfer(action.tenant_id, action.payment_id)
        linked = None
        if action.linked_payment_id is not None:
            linked = await self._views.transfer(action.tenant_id, action.linked_payment_id)
        look = _Look(action, transfer, steps, incidents, linked)
        return [look.at(one) for one in plan.expects]

    async def _late(self, action: Action) -> bool:
        """Whether the views do not show yet what happened until the action's time was over.

        Looking is a step as well, and the views show the looks when they have caught up with them.
        """
        shown = await self._views.shown_until(action.tenant_id, action.payment_id)
        return shown is None or (action.confirm_by is not None and shown <= action.confirm_by)

    async def expire(self, tenant_id: TenantId, action_id: str) -> Decision:
        """The time for approvals is over, unless somebody decided in the last moment."""
        async with self._store.transaction() as connection:
            action = await self._store.lock(connection, tenant_id, action_id)
            if action is None:
                raise LookupError(f"there is no action {action_id}")
            if action.state is State.REQUESTED:
                await self._store.move(connection, action, State.EXPIRED)
                await self._store.give(connection, action)
                await self._note(connection, action, "action.expire", State.EXPIRED.value, {})
                return Decision.EXPIRED
        closed = {State.REJECTED: Decision.REJECTED, State.WITHDRAWN: Decision.WITHDRAWN}
        return Decision.EXPIRED if action.state is State.EXPIRED else closed.get(action.state, Decision.APPROVED)

    async def look_for_money(self, tenant_id: TenantId, action_id: str) -> bool:
        """Whether a recall still waits for the money."""
        action = await self._find(tenant_id, action_id)
        return not (action.state.is_final or action.answer or action.too_late or all(await self._seen(action)))

    # --- shared ---

    async def _find(self, tenant_id: TenantId, action_id: str) -> Action:
        action = await self._store.find(tenant_id, action_id)
        if action is None:
            raise LookupError(f"there is no action {action_id}")
        return action

    async def _end(
        self, action: Action, state: State, code: str | None, detail: str | None, *, keeps: bool = False
    ) -> None:
        """Write the end once. `keeps`: the money may still go, so it stays taken."""
        async with self._store.transaction() as connection:
            locked = await self._store.lock(connection, action.tenant_id, action.id)
            if locked is None or locked.state.is_final:
                return
            await self._store.move(connection, locked, state, code, detail)
            if state is State.FAILED and not keeps:
                await self._store.give(connection, locked)
            what = "action.confirm" if state is State.CONFIRMED else "action.fail"
            await self._note(connection, locked, what, state.value, {"code": code} if code else {})

    async def _note(self, connection: Any, action: Action, what: str, outcome: str, after: Mapping[str, Any]) -> None:
        act = Act(
            tenant_id=action.tenant_id,
            actor=HUB,
            roles=(),
            action=what,
            target=f"action:{action.id}",
            payment_id=action.payment_id,
            reason_code=action.reason_code,
            before={"state": action.state.value},
            after={"kind": action.kind.value, "requested_by": action.requested_by, **after},
            outcome=outcome,
        )
        await self._journal.append(act, connection)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the views show, as far as an action's expectations go."""

    action: Action
    transfer: Body | None
    steps: Sequence[Body]
    incidents: Sequence[Body]
    linked: Body | None

    def at(self, expected: Expectation) -> bool | None:
        """Whether it is seen; False when it cannot come any more."""
        ways: Mapping[str, Callable[[Expectation], bool | None]] = {
            "resolved": self._resolved,
            "variable": self._variable,
            "ended": self._ended,
            "reached": self._reached,
            "outcome": self._outcome,
            "settled": self._settled,
            "money-back": self._money_back,
        }
        return ways[expected.see](expected)

    def _resolved(self, expected: Expectation) -> bool | None:
        states = {one["incidentKey"]: one["state"] for one in self.incidents}
        return True if states.get(str(expected.key)) == "RESOLVED" else None

    def _variable(self, expected: Expectation) -> bool | None:
        for step in self.steps:
            found = step.get("variables", {}).get(expected.word or "")
            if step["elementInstanceKey"] == str(expected.key) and found is not None:
                meant = from_json(mask_json(expected.word or "", json.dumps(expected.value)))
                if found["position"] > self.action.plan.position or from_json(found["value"]) == meant:
                    return True
        return None

    def _ended(self, expected: Expectation) -> bool | None:
        states = (step["state"] for step in self.steps if step["elementInstanceKey"] == str(expected.key))
        return True if any(state in {"COMPLETED", "TERMINATED"} for state in states) else None

    def _reached(self, expected: Expectation) -> bool | None:
        for step in self.steps:
            here = (step["processInstanceKey"], step.get("elementId")) == (str(expected.key), expected.word)
            if here and int(step["elementInstanceKey"]) > (self.action.plan.step_key or 0):
                return True
        return None

    def _outcome(self, expected: Expectation) -> bool | None:
        if self.transfer is None or self.transfer.get("outcome") in {None, Outcome.UNKNOWN}:
            return None
        outcome = self.transfer["outcome"]
        if outcome == expected.word:
            return True
        # What settled may still be returned; any other final outcome stays as it is.
        return None if (outcome, expected.word) == (Outcome.SETTLED, Outcome.RETURNED) else False

    def _settled(self, _: Expectation) -> bool | None:
        outcome = None if self.linked is None else self.linked.get("outcome")
        return None if outcome in {None, Outcome.UNKNOWN} else bool(outcome == Outcome.SETTLED)

    def _money_back(self, _: Expectation) -> bool | None:
        if self.action.answer is not None:
            return self.action.answer == "RETURNED"
        back = self.transfer is not None and self.transfer.get("outcome") == Outcome.RETURNED
        return True if back else None


def _detail(action: Action) -> str:
    """What the payment's outcome says of its reason: the code, never an operator's free text."""
    return f"operator: {action.reason_code}"


_VIEWS_LATE: Final = "PT5S"


def _pause(action: Action) -> str:
    """How long until the next look: quick at first, and a payment or a recall takes longer."""
    if action.plan.follows is Follows.LOOK:
        return "PT1S"
    return "PT5S" if action.plan.follows is Follows.PAYMENT else "PT1M"
