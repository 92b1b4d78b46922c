"""Disbursements and links between payments in the operations view, told by records as the engine writes them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from exporters.operations import NOTHING_TO_PAY
from exporters.pipeline import RawMessage
from exporters.views import VIEWS
from hub.transfer import STATE_OF, Outcome

CLABE = "646180157000000033"
PAYMENT, OTHER = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"


class Engine:
    """Writes records one after the other."""

    def __init__(self, log: SimpleNamespace) -> None:
        self._log = log
        self.messages: list[RawMessage] = []

    def write(self, value_type: str, intent: str, key: int, **value: Any) -> None:
        position = len(self.messages) + 1
        envelope = {
            "partitionId": 1,
            "position": position,
            "key": key,
            "timestamp": 1_790_000_000_000 + position,
            "recordType": "EVENT",
            "valueType": value_type,
            "intent": intent,
            "rejectionType": "NULL_VAL",
            "rejectionReason": "",
            "sourceRecordPosition": -1,
            "value": value,
        }
        self.messages.append(self._log.message(envelope))

    def start(self, process: str, instance: int, correlation: str, **variables: Any) -> None:
        self.write(
            "MESSAGE_START_EVENT_SUBSCRIPTION",
            "CORRELATED",
            instance + 1,
            processInstanceKey=instance,
            processDefinitionKey=1,
            bpmnProcessId=process,
            correlationKey=correlation,
            variables=variables,
        )

    def set(self, process: str, instance: int, name: str, value: Any, scope: int | None = None) -> None:
        self.write(
            "VARIABLE",
            "CREATED",
            instance + 500 + len(self.messages),
            name=name,
            value=json.dumps(value),
            scopeKey=scope or instance,
            processInstanceKey=instance,
            bpmnProcessId=process,
        )

    def collect(self, instance: int, *, next_step: str = "send", amount: int = 0, payee: Any = None) -> None:
        """What `disbursement.collect-updates` answers, in its order."""
        found = {"next_step": next_step, "amount": amount, "currency": "MXN", "payee": payee, "concept": "Payout"}
        for name, value in found.items():
            self.set("disbursement", instance, name, value)

    def job_done(self, process: str, instance: int, job_type: str, element: int) -> None:
        self.write(
            "JOB",
            "COMPLETED",
            element + 1,
            type=job_type,
            retries=1,
            worker="w",
            errorMessage="",
            errorCode="",
            elementId="x",
            elementInstanceKey=element,
            processInstanceKey=instance,
            bpmnProcessId=process,
        )

    def end(self, process: str, instance: int) -> None:
        self.write(
            "PROCESS_INSTANCE",
            "ELEMENT_COMPLETED",
            instance,
            bpmnElementType="PROCESS",
            elementId=process,
            bpmnProcessId=process,
            processInstanceKey=instance,
            processDefinitionKey=1,
            version=1,
            flowScopeKey=-1,
            parentProcessInstanceKey=-1,
        )


def disbursed_and_returned(log: SimpleNamespace) -> list[RawMessage]:
    engine = Engine(log)
    told = {"payment_id": PAYMENT, "tenant_id": "acme"}
    engine.start("disbursement", 100, PAYMENT, **told, store_id="s1", trigger="DAILY", run_id="r")
    engine.collect(100, amount=9500, payee={"id_type": "CLABE", "identifier": CLABE, "name": "Ana Torres"})
    for name, value in {"outcome": "SETTLED", "reason": "none"}.items():
        engine.set("disbursement", 100, name, value, scope=110)
    engine.job_done("disbursement", 100, "disbursement.record-outcome", 110)
    engine.end("disbursement", 100)
    engine.start("late-return", 200, PAYMENT, **told, purpose="disbursement")
    for name, value in {"outcome": "RETURNED", "reason": "scheme-returned"}.items():
        engine.set("late-return", 200, name, value, scope=210)
    engine.job_done("late-return", 200, "disbursement.record-outcome", 210)
    engine.start("late-return", 300, OTHER, payment_id=OTHER, tenant_id="acme", purpose="payment")
    return engine.messages


def folded(log: SimpleNamespace, messages: list[RawMessage], sizes: Iterator[int]) -> Any:
    """By exporters that each die after a batch and remember nothing."""
    store, at = log.Store(), 0
    state: dict[str, list[int]] = {}
    while at < len(messages):
        size = next(sizes)
        one = log.pipeline("operations", store, state, room=5)
        _, letters = one.accept(messages[at : at + size], store)
        assert not letters
        state, at = one.sifter.state, at + size
    return store


def test_a_disbursement_tells_whose_it_is_and_how_it_ended_even_when_it_comes_back(log: SimpleNamespace):  # L22 L38
    chance = random.Random(7)
    messages = disbursed_and_returned(log)
    store = folded(log, messages, iter(lambda: chance.randint(1, 6), 0))
    (found,) = store.bodies("disbursements").values()
    assert (found["storeId"], found["trigger"], found["runId"], found["amount"]) == ("s1", "DAILY", "r", 9500)
    assert (found["outcome"], found["processState"], found["nextStep"]) == ("RETURNED", "COMPLETED", "send")
    assert [one["outcome"] for one in found["outcomes"]] == ["SETTLED", "RETURNED"]
    assert found.keys() <= VIEWS["operations"].families["disbursements"].keys()
    transfer = store.bodies("transfers")[PAYMENT]
    assert (transfer["processId"], transfer["direction"], transfer["outcome"]) == (
        "disbursement",
        "OUTGOING",
        "RETURNED",
    )
    assert (transfer["amount"], transfer["currency"], transfer["concept"]) == (9500, "MXN", "Payout")
    assert transfer["payee"] | {"idType": "CLABE", "bank": "646", "name": "A*** T***"} == transfer["payee"]
    assert CLABE not in json.dumps(store.bodies("transfers"))
    assert store.kept == folded(log, messages, iter(lambda: len(messages), 0)).kept


def shown(log: SimpleNamespace, messages: list[RawMessage]) -> tuple[Any, Any]:
    """The transfer and the disbursement, which are the same by whatever batches they are made."""
    store = folded(log, messages, iter(lambda: len(messages), 0))
    assert store.kept == folded(log, messages, iter(lambda: 1, 0)).kept
    (disbursement,) = store.bodies("disbursements").values()
    return store.bodies("transfers")[PAYMENT], disbursement


def test_a_disbursement_that_finds_nothing_to_pay_is_ended_and_no_payment_under_way(log: SimpleNamespace):  # L27
    engine = Engine(log)
    engine.start("disbursement", 100, PAYMENT, payment_id=PAYMENT, tenant_id="acme", store_id="s1")
    engine.collect(100, next_step="nothing")
    engine.end("disbursement", 100)
    for one in shown(log, engine.messages):
        assert (one["state"], one["reason"], one["processState"]) == ("ABORTED", NOTHING_TO_PAY, "COMPLETED")
        assert one["amount"] == 0
        assert one.get("outcome") is None


def test_a_disbursement_cancelled_while_it_waited_for_a_person_is_shown_as_cancelled(log: SimpleNamespace):  # L23
    engine = Engine(log)
    engine.start("disbursement", 100, PAYMENT, payment_id=PAYMENT, tenant_id="acme", store_id="s1")
    engine.collect(100, next_step="confirm", amount=9500)
    engine.set("disbursement", 100, "next_step", "nothing")
    engine.end("disbursement", 100)
    for one in shown(log, engine.messages):
        assert (one["state"], one["outcome"], one["reason"]) == ("ABORTED", "CANCELLED", "operator")
        assert [each["outcome"] for each in one["outcomes"]] == ["CANCELLED"]
        assert one["amount"] == 9500


@pytest.mark.parametrize("money", [100, 200])
def test_an_instance_that_finds_its_payment_taken_leaves_it_to_the_other_one(log: SimpleNamespace, money: int):
    engine = Engine(log)
    told = {"payment_id": PAYMENT, "tenant_id": "acme", "store_id": "s1"}
    for instance in (100, 200):
        engine.start("disbursement", instance, PAYMENT, **told)
    engine.collect(money, amount=9500)
    engine.collect(300 - money, next_step="nothing")
    engine.end("disbursement", 300 - money)
    for one in shown(log, engine.messages):
        assert (one["state"], one["amount"], one["processInstanceKey"]) == ("PENDING", 9500, str(money))
        assert one["processState"] == "ACTIVE"
        assert "endedAt" not in one


@pytest.mark.parametrize(
    ("jobs", "decided", "outcomes"),
    [
        (["stp.confirm-deposit"], None, ["SETTLED"]),
        (["stp.refuse-deposit"], None, ["REJECTED"]),
        (["stp.refuse-deposit", "stp.return-deposit"], None, ["REJECTED", "RETURNED"]),
        (["stp.refuse-deposit"], "RETURNED", ["REJECTED", "RETURNED"]),
        ([], "SETTLED", ["SETTLED"]),
    ],
)
def test_a_deposit_tells_how_it_ended(log: SimpleNamespace, jobs: list[str], decided: str | None, outcomes: list[str]):
    engine = Engine(log)
    engine.start("payee-transfer", 100, PAYMENT, payment_id=PAYMENT, tenant_id="acme", amount=1000, currency="MXN")
    if "stp.refuse-deposit" in jobs:
        for name, value in {"outcome": "REJECTED", "reason": "account-unknown"}.items():
            engine.set("payee-transfer", 100, name, value)
    for number, job_type in enumerate(jobs):
        engine.job_done("payee-transfer", 100, job_type, 110 + number)
    if decided is not None:
        engine.set("payee-transfer", 100, "outcome", decided)
    engine.end("payee-transfer", 100)
    store = folded(log, engine.messages, iter(lambda: len(engine.messages), 0))
    assert store.kept == folded(log, engine.messages, iter(lambda: 1, 0)).kept
    transfer = store.bodies("transfers")[PAYMENT]
    assert [one["outcome"] for one in transfer["outcomes"]] == outcomes
    assert (transfer["outcome"], transfer["state"]) == (outcomes[-1], STATE_OF[Outcome(outcomes[-1])])


def test_payments_that_give_each_other_back_are_found_from_both_sides(log: SimpleNamespace):  # H7
    engine = Engine(log)
    engine.start("operator-action", 400, "action-1", payment_id=PAYMENT, tenant_id="acme")
    engine.set("operator-action", 400, "linked_payment_id", None)
    engine.set("operator-action", 400, "linked_payment_id", OTHER)
    store = log.Store()
    log.pipeline("operations", store).accept(engine.messages, store)
    (link,) = store.bodies("links").values()
    assert (link["paymentId"], link["linkedPaymentId"], link["relation"]) == (PAYMENT, OTHER, "GIVES_BACK_BY")
    assert link["tenantId"] == "acme"
    assert link.keys() <= VIEWS["operations"].families["links"].keys()
    assert not store.bodies("transfers")  # a process of its own: its steps name the payment
    assert {step["paymentId"] for step in store.bodies("steps").values()} == {PAYMENT}
