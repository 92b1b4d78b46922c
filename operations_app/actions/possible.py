"""What can be done with a payment where it stands, why not, and by which commands and records.

Pure: from a situation and what was asked for comes a plan, or a refusal that says why and what to do instead. It is
weighed when the action is asked for, again at each approval and once more when it is carried out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

import bpmn
from hub.money import BadMoney, Money
from hub.transfer import Outcome, PaymentId, Rail, Reason
from operations_app.actions import overrides
from operations_app.actions.model import STATED, Follows, Kind
from operations_app.actions.situation import Situation, Stuck, StuckBy
from operations_app.actions.ways import PLACES, Guard, Out, Place, Told, Way

_LINKED: Final = uuid.UUID("c0a2f6c8-4a0f-5a35-9d8e-0a6a5b0f7d11")


class AskedMoney(BaseModel):
    """An amount as the API writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: str
    currency: str


Key = Annotated[str, Field(pattern="^[0-9]{1,19}$")]
"""A key of the engine, as the API writes it."""


class Asked(BaseModel):
    """What an action is asked for with, beside its kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    outcome: Outcome | None = None
    """What a force-complete states."""
    element_id: Annotated[str, Field(max_length=200)] | None = None
    """Where, when the payment is stuck in more than one place."""
    incident_keys: Annotated[tuple[Key, ...], Field(max_length=20)] | None = None
    """Which incidents are retried; all that are open when absent."""
    variables: dict[str, Any] | None = None
    retry: bool = False
    """After an override, retry the place's incident."""
    money: AskedMoney | None = None
    """How much is asked back; all that is left when absent."""


# --- Plans ----------------------------------------------------------------------------------------------------------


class Retry(BaseModel):
    """Give a job its tries and resolve its incident."""

    do: Literal["retry"] = "retry"
    incident_key: int
    job_key: int | None


class SetVariables(BaseModel):
    """Change variables of a process instance."""

    do: Literal["set-variables"] = "set-variables"
    instance_key: int
    variables: dict[str, Any]


class Move(BaseModel):
    """Take the token away from where it is stuck and put it on a drawn element."""

    do: Literal["move"] = "move"
    instance_key: int
    step_key: int
    to: str
    variables: dict[str, Any]


class Tell(BaseModel):
    """Tell the outcome to the payment's own wait."""

    do: Literal["tell"] = "tell"
    outcome: Literal[Outcome.SETTLED, Outcome.REJECTED, Outcome.RETURNED, Outcome.CANCELLED]


Command = Annotated[Retry | SetVariables | Move | Tell, Field(discriminator="do")]


class Expectation(BaseModel):
    """A record of the engine that has to be seen."""

    see: Literal["resolved", "variable", "ended", "reached", "outcome", "settled", "money-back"]
    key: int | None = None
    """The incident, step or process instance."""
    word: str | None = None
    """The variable, element, outcome or payment."""
    value: Any = None


class Plan(BaseModel):
    """What is going to be done, and by what it will be known to be done."""

    place: str | None = None
    """Process and element, for people."""
    step_key: int | None = None
    """The element instance: when it is another one by the time of an approval, the payment has moved."""
    incident_keys: tuple[int, ...] = ()
    commands: tuple[Command, ...] = ()
    expects: tuple[Expectation, ...] = ()
    follows: Follows = Follows.LOOK
    amount: int = 0
    """Minor units that the action is about: for the policy, and for recalls and refunds what they ask back."""
    currency: str = ""
    position: int = 0
    """The version of the payment's document that the plan was made from."""

    def same_target(self, other: Plan) -> bool:
        """Whether both mean the same place, incidents and money."""
        mine = (self.place, self.step_key, self.incident_keys, self.follows, self.amount)
        return mine == (other.place, other.step_key, other.incident_keys, other.follows, other.amount)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why something is not possible, and what to do instead."""

    code: str
    why: str
    errors: Sequence[Mapping[str, str]] = field(default=())


class NotPossible(Exception):
    """Raised inside, turned into `Refused` at the edge of this module."""

    def __init__(self, code: str, why: str, errors: Sequence[Mapping[str, str]] = ()) -> None:
        self.refused = Refused(code, why, errors)
        super().__init__(why)


_TAKES: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.RETRY: frozenset({"elementId", "incidentKeys"}),
    Kind.RESOLVE_INCIDENT: frozenset({"elementId", "incidentKeys"}),
    Kind.MANUAL_OVERRIDE: frozenset({"elementId", "variables", "retry"}),
    Kind.FORCE_COMPLETE: frozenset({"elementId", "outcome"}),
    Kind.FORCE_FAIL: frozenset({"elementId"}),
    Kind.CANCEL: frozenset({"elementId"}),
    Kind.RECALL: frozenset({"money"}),
    Kind.REFUND: frozenset({"money"}),
}


def not_taken(kind: Kind, asked: Asked) -> list[str]:
    """What was sent along that this kind of action knows nothing of: it would be believed done."""
    return sorted(asked.model_dump(by_alias=True, exclude_defaults=True).keys() - _TAKES[kind])


def weigh(kind: Kind, situation: Situation, asked: Asked) -> Plan | Refused:
    """The plan of an action, or why there is none."""
    if extra := not_taken(kind, asked):
        why = f"{kind} takes {', '.join(sorted(_TAKES[kind]))} and nothing else"
        errors = [{"pointer": f"/payload/{name}", "code": "not-taken", "detail": why} for name in extra]
        return Refused("payload-not-taken", why, errors)
    try:
        plan = _WEIGH[kind](kind, situation, asked)
    except NotPossible as impossible:
        return impossible.refused
    given: dict[str, Any] = {"position": situation.position}
    if not plan.currency:
        given |= {"amount": situation.amount, "currency": situation.currency}
    return plan.model_copy(update=given)


def needs(kind: Kind, situation: Situation) -> dict[str, Any]:
    """What has to be sent along with an action that is possible."""
    if kind is Kind.FORCE_COMPLETE:
        return {"outcome": sorted(_outcomes(situation))}
    if kind is Kind.MANUAL_OVERRIDE:
        for stuck in situation.stuck:
            if (schema := overrides.allowed_at(*stuck.place)) is not None:
                return {"elementId": stuck.element_id, "variables": schema}
    if kind in {Kind.RECALL, Kind.REFUND}:
        left = Money(situation.amount - situation.given_back, situation.currency)
        return {"money": {"amount": left.decimal(), "currency": left.currency}}
    return {}


def available(situation: Situation) -> dict[Kind, Plan | Refused]:
    """Each kind of action with a plan or the reason why not."""
    return {kind: _try(kind, situation) for kind in Kind}


def _try(kind: Kind, situation: Situation) -> Plan | Refused:
    if kind is Kind.FORCE_COMPLETE:
        found: Plan | Refused = Refused("not-stuck", NOT_STUCK)
        for outcome in sorted(STATED):
            found = weigh(kind, situation, Asked(outcome=outcome))
            if isinstance(found, Plan):
                return found
        return weigh(kind, situation, Asked(outcome=Outcome.SETTLED))
    if kind is Kind.MANUAL_OVERRIDE:
        place = next((one for one in situation.stuck if overrides.allowed_at(*one.place) is not None), None)
        if place is not None:
            return Plan(place=_place(place), step_key=place.step_key, position=situation.position)
    return weigh(kind, situation, Asked())


def _outcomes(situation: Situation) -> list[str]:
    return [
        outcome.value
        for outcome in STATED
        if isinstance(weigh(Kind.FORCE_COMPLETE, situation, Asked(outcome=outcome)), Plan)
    ]


# --- Trying again and changing variables ----------------------------------------------------------------------------

NOT_STUCK: Final = "the payment goes on by itself: look again when it has an incident or waits"
ENDED: Final = "the payment has ended"


def _retry(kind: Kind, situation: Situation, asked: Asked) -> Plan:
    incidents = [one for one in situation.stuck if one.by is StuckBy.INCIDENT]
    if asked.element_id is not None:
        incidents = [one for one in incidents if one.element_id == asked.element_id]
    if asked.incident_keys is not None:
        wanted = set(asked.incident_keys)
        incidents = [one for one in incidents if str(one.incident_key) in wanted]
        if len(incidents) != len(wanted):
            raise NotPossible("incident-gone", "an incident that is named is not open on this payment")
    if not incidents:
        raise NotPossible(*_nothing(situation, "no-incident", "there is no incident to retry: it waits"))
    if kind is Kind.RESOLVE_INCIDENT and len(incidents) != 1:
        raise NotPossible("which-incident", "there is more than one incident: name one in incidentKeys")
    return Plan(
        place=_place(incidents[0]),
        step_key=incidents[0].step_key,
        incident_keys=tuple(one.incident_key or 0 for one in incidents),
        commands=tuple(_retried(one) for one in incidents),
        expects=tuple(Expectation(see="resolved", key=one.incident_key) for one in incidents),
    )


def _retried(stuck: Stuck) -> Retry:
    return Retry(incident_key=stuck.incident_key or 0, job_key=stuck.job_key)


def _override(_: Kind, situation: Situation, asked: Asked) -> Plan:
    for stuck in _stuck(situation, asked):
        schema = overrides.allowed_at(*stuck.place)
        if schema is not None:
            return _overridden(stuck, schema, asked)
    raise NotPossible("nothing-to-change", "no variable may be changed where the payment is stuck")


def _overridden(stuck: Stuck, schema: overrides.Schema, asked: Asked) -> Plan:
    if not asked.variables:
        raise NotPossible("variables-missing", "payload.variables has to say what is changed")
    faults = [
        {"pointer": f"/payload/variables{at}", "code": "not-allowed", "detail": why}
        for at, why in overrides.faults(schema, asked.variables)
    ]
    if faults:
        raise NotPossible("variables-not-allowed", "these variables may not be changed so", faults)
    commands: list[Any] = [SetVariables(instance_key=stuck.instance_key, variables=asked.variables)]
    expects = [
        Expectation(see="variable", key=stuck.instance_key, word=name, value=value)
        for name, value in asked.variables.items()
    ]
    if asked.retry:
        if stuck.by is not StuckBy.INCIDENT:
            raise NotPossible("no-incident", "there is no incident to retry: it waits")
        commands.append(_retried(stuck))
        expects.append(Expectation(see="resolved", key=stuck.incident_key))
    return Plan(place=_place(stuck), step_key=stuck.step_key, commands=tuple(commands), expects=tuple(expects))


# --- Ending it ------------------------------------------------------------------------------------------------------


def _force_complete(_: Kind, situation: Situation, asked: Asked) -> Plan:
    if asked.outcome is None or asked.outcome not in STATED:
        raise NotPossible("outcome-missing", "payload.outcome has to state a final outcome")
    return _end(situation, asked, lambda place: place.complete, asked.outcome)


def _force_fail(_: Kind, situation: Situation, asked: Asked) -> Plan:
    return _end(situation, asked, lambda place: place.fail, Outcome.REJECTED)


def _cancel(_: Kind, situation: Situation, asked: Asked) -> Plan:
    return _end(situation, asked, lambda place: place.cancel, Outcome.CANCELLED)


def _end(situation: Situation, asked: Asked, out_of: Callable[[Place], Out], outcome: Outcome) -> Plan:
    first: NotPossible | None = None
    for stuck in _stuck(situation, asked):
        try:
            return _way_out(situation, stuck, out_of, outcome)
        except NotPossible as impossible:
            first = first or impossible
    raise first or NotPossible("not-stuck", NOT_STUCK)


def _way_out(situation: Situation, stuck: Stuck, out_of: Callable[[Place], Out], outcome: Outcome) -> Plan:
    place = PLACES.get(stuck.place)
    if place is None:
        raise NotPossible("no-way", f"no way out of {_place(stuck)} is known: retry")
    out = out_of(place)
    if isinstance(out, str):
        raise NotPossible("no-way", out)
    if outcome not in out.outcomes:
        fitting = ", ".join(sorted(out.outcomes))
        raise NotPossible("outcome-does-not-fit", f"from here the payment can only end as {fitting}")
    for guard in out.guards:
        if not _holds(guard, situation, outcome):
            code = guard.name.lower().replace("_", "-")
            why = guard.value if situation.booked is not None or guard not in _BY_BOOK else OTHER_BOOK
            raise NotPossible(code, why)
    if isinstance(out, Told):
        commands: tuple[Command, ...] = (Tell(outcome=outcome),)  # type: ignore[arg-type]
        return Plan(
            place=_place(stuck),
            step_key=stuck.step_key,
            commands=commands,
            expects=_ends(situation, stuck, outcome, None),
        )
    to = _target(situation, out)
    variables = {"outcome": outcome.value, "reason": Reason.OPERATOR.value, "reason_detail": None}
    move = Move(
        instance_key=stuck.instance_key,
        step_key=stuck.step_key,
        to=to,
        variables={} if out.told else variables,
    )
    tell = (Tell(outcome=outcome),) if out.told else ()  # type: ignore[arg-type]
    return Plan(
        place=_place(stuck),
        step_key=stuck.step_key,
        commands=(move, *tell),
        expects=(
            Expectation(see="ended", key=stuck.step_key),
            Expectation(see="reached", key=stuck.instance_key, word=to),
            *_ends(situation, stuck, outcome, to),
        ),
    )


OTHER_BOOK: Final = "the account system keeps its own book, which cannot be looked at from here: retry"
_BY_BOOK: Final = frozenset(
    {Guard.CAPTURED, Guard.NOT_CAPTURED, Guard.RELEASED, Guard.CREDITED, Guard.NOT_CREDITED, Guard.REVERSED}
)


def _target(situation: Situation, way: Way) -> str:
    if way.unheld is None:
        return way.to
    if situation.booked is None:
        raise NotPossible("not-known", OTHER_BOOK)
    return way.to if "hold" in situation.booked else way.unheld


def _holds(guard: Guard, situation: Situation, outcome: Outcome) -> bool:
    booked = situation.booked
    if guard in _BY_BOOK:
        if booked is None:
            return False
        return {
            Guard.CAPTURED: "capture" in booked,
            Guard.NOT_CAPTURED: "capture" not in booked,
            Guard.RELEASED: "release" in booked or "hold" not in booked,
            Guard.CREDITED: "credit" in booked,
            Guard.NOT_CREDITED: "credit" not in booked,
            Guard.REVERSED: "reverse" in booked,
        }[guard]
    return {
        Guard.KEPT: situation.kept,
        Guard.TOLD: situation.outcome is outcome,
        Guard.NOT_SENT: not situation.may_have_left,
        Guard.NEVER_SENT: situation.order is None,
        Guard.PERHAPS_SENT: situation.may_have_left,
    }[guard]


_UNTOLD: Final = frozenset({"payee-transfer", "disbursement"})
"""Processes that end without telling the channel."""


def _ends(situation: Situation, stuck: Stuck, outcome: Outcome, to: str | None) -> tuple[Expectation, ...]:
    """By which record it is known that the payment came to its end."""
    process = drawn(stuck.process_id)
    at_end = to is not None and process is not None and process.nodes[to].kind == "endEvent"
    if situation.process_id in _UNTOLD or (at_end and not _is_called(stuck.process_id)):
        return (Expectation(see="ended", key=stuck.root_key),)
    return (Expectation(see="outcome", word=outcome.value),)


@cache
def _drawings() -> Mapping[str, bpmn.Process]:
    return {process.id: process for process in bpmn.processes()}


def drawn(process_id: str) -> bpmn.Process | None:
    """The drawing of a process."""
    return _drawings().get(process_id)


def _is_called(process_id: str) -> bool:
    return any(call.process == process_id for process in _drawings().values() for call in process.calls)


# --- Giving back ----------------------------------------------------------------------------------------------------


def linked_payment_id(action_id: str) -> PaymentId:
    """The id of the payment by which an action gives money back: always the same for the same action."""
    return PaymentId(str(uuid.uuid5(_LINKED, action_id)))


def _recall(_: Kind, situation: Situation, asked: Asked) -> Plan:
    if situation.direction != "OUTGOING":
        raise NotPossible("incoming", "incoming money is given back by a refund")
    if situation.outcome is Outcome.RETURNED:
        raise NotPossible("returned", "the money came back already")
    if situation.outcome is not Outcome.SETTLED:
        raise NotPossible("not-settled", "only what was settled can be asked back")
    if situation.stuck or situation.process_state == "ACTIVE":
        raise NotPossible("not-ended", "it has not ended: bring it to its end first")
    money = _asked_money(situation, asked)
    if situation.rail is Rail.ON_US:
        return Plan(expects=(Expectation(see="settled"),), follows=Follows.PAYMENT, **money)
    return Plan(expects=(Expectation(see="money-back"),), follows=Follows.RECALL, **money)


def _refund(_: Kind, situation: Situation, asked: Asked) -> Plan:
    if situation.direction != "INCOMING":
        raise NotPossible("outgoing", "an outgoing payment is asked back by a recall")
    if not situation.kept or situation.process_state == "ACTIVE":
        raise NotPossible("not-credited", "only money that was credited can be refunded: force-fail sends it back")
    money = _asked_money(situation, asked)
    return Plan(expects=(Expectation(see="settled"),), follows=Follows.PAYMENT, **money)


def _asked_money(situation: Situation, asked: Asked) -> dict[str, Any]:
    left = situation.amount - situation.given_back
    if left <= 0:
        raise NotPossible("given-back", "all of it was asked back already")
    if asked.money is None:
        return {"amount": left, "currency": situation.currency}
    at = [{"pointer": "/payload/money", "code": "not-valid", "detail": "an amount in the payment's currency"}]
    try:
        money = Money.parse(asked.money.amount, asked.money.currency)
    except BadMoney as error:
        raise NotPossible("money-not-valid", str(error), at) from None
    if money.currency != situation.currency or money.minor <= 0:
        raise NotPossible("money-not-valid", f"the payment is in {situation.currency}, and more than nothing", at)
    if money.minor > left:
        rest = Money(left, situation.currency)
        raise NotPossible("more-than-left", f"of this payment {rest} can still be given back")
    return {"amount": money.minor, "currency": money.currency}


# --- Places ---------------------------------------------------------------------------------------------------------


def _stuck(situation: Situation, asked: Asked) -> Sequence[Stuck]:
    found = [one for one in situation.stuck if asked.element_id in {None, one.element_id}]
    if not found:
        raise NotPossible(*_nothing(situation, "not-stuck", NOT_STUCK))
    return found


def _nothing(situation: Situation, code: str, why: str) -> tuple[str, str]:
    if not situation.stuck and situation.process_state != "ACTIVE":
        return "ended", ENDED
    if not situation.stuck:
        return "not-stuck", NOT_STUCK
    return code, why


def _place(stuck: Stuck) -> str:
    return f"{stuck.process_id}/{stuck.element_id}"


_WEIGH: Final[Mapping[Kind, Callable[[Kind, Situation, Asked], Plan]]] = {
    Kind.RETRY: _retry,
    Kind.RESOLVE_INCIDENT: _retry,
    Kind.MANUAL_OVERRIDE: _override,
    Kind.FORCE_COMPLETE: _force_complete,
    Kind.FORCE_FAIL: _force_fail,
    Kind.CANCEL: _cancel,
    Kind.RECALL: _recall,
    Kind.REFUND: _refund,
}
