"""Both views on the real servers: what is away comes back, what dies begins again, and nothing is missing afterwards.

The engine runs the hub's own drawings; a clerk of the test does the jobs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest
import pytest_asyncio
from elasticsearch import ApiError, Elasticsearch
from elasticsearch import ConnectionError as Away
from kafka import KafkaConsumer, KafkaProducer
from pyzeebe.proto.gateway_pb2 import ActivatedJob, ActivateJobsRequest, CompleteJobRequest, FailJobRequest

import bpmn
from connectors.channel.model import PaymentAccepted
from connectors.disbursement.model import RunRequested
from exporters.elastic import open_client
from hub.migrations import migrate
from hub.settings import EngineSettings
from hub.stack.control import AsyncStackControl
from hub.stack.state import load_state
from hub.transfer import IdentifierType, Party, PaymentId, TenantId
from hub.zeebe.client import ZeebeEngine, open_engine

pytestmark = [pytest.mark.stack, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

ANSWERS: Mapping[str, dict[str, Any]] = {
    "channel.claim-payment": {"duplicate": False},
    "ams.quote-transfer": {"payer_account": "1", "payee_account": "2", "fee": 0, "on_us": True},
    "ams.hold-funds": {},
    "ams.book-transfer": {"outcome": "SETTLED", "reason": "none", "reason_detail": None},
    "channel.record-outcome": {},
}


MOST_MEMORY = 120
"""MiB that an exporter may take."""


@dataclass
class World:
    """The servers, an engine that moves payments on, and exporters that come and go."""

    folder: Path
    environment: dict[str, str]
    engine: ZeebeEngine
    elastic: Elasticsearch
    control: AsyncStackControl
    exporters: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    async def pay(self, number: int = 1, **facts: Any) -> list[str]:
        """Accepted payments; the clerk takes them to their end."""
        ids = [str(uuid.uuid4()) for _ in range(number)]
        for one in ids:
            payment = PaymentAccepted(
                **{
                    "payment_id": PaymentId(one),
                    "tenant_id": TenantId("acme"),
                    "amount": 1234,
                    "currency": "MXN",
                    "payer": Party(id_type=IdentifierType.MSISDN, identifier="525511110001", name="Ana Torres"),
                    "payee": Party(id_type=IdentifierType.MSISDN, identifier="525511110002", name="Luis Vega"),
                    "concept": "rent",
                    "reference_number": 7,
                    **facts,
                }
            )
            await self.engine.publish(payment)
        return ids

    async def work(self, job_type: str, answer: Mapping[str, Any]) -> None:
        """The clerk at one kind of job."""
        asked = ActivateJobsRequest(type=job_type, worker="clerk", timeout=5_000, maxJobsToActivate=10)
        while True:
            with suppress(Exception):
                async for jobs in self.engine.gateway.ActivateJobs(asked):
                    for job in jobs.jobs:
                        done = CompleteJobRequest(jobKey=job.key, variables=json.dumps(answer))
                        await self.engine.gateway.CompleteJob(done)

    def start(self, view: str, name: str | None = None, **environment: str) -> str:
        """Start an exporter."""
        name = name or view
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.exporters[name] = subprocess.Popen(
                [sys.executable, "-m", "hub.cli", "export", view],
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
            )
        return name

    async def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        running = self.exporters.pop(name)
        running.send_signal(how)
        await asyncio.to_thread(running.wait, 30)

    async def page(self, name: str, path: str) -> httpx.Response:
        """A page of an exporter, which tells its port in its log."""

        def port() -> int | None:
            lines = (self.folder / f"{name}.log").read_text(errors="replace").replace("\0", "").splitlines()
            told = [json.loads(line) for line in lines if '"event": "serving"' in line]
            return int(told[-1]["port"]) if told else None

        await until(lambda: port() is not None, "the exporter serves")
        async with httpx.AsyncClient() as http:
            return await http.get(f"http://127.0.0.1:{port()}{path}")

    def transfers(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """What a search finds of these payments; nothing while Elasticsearch is away."""
        try:
            found = self.elastic.search(index="payhub-transfers", query={"terms": {"paymentId": ids}}, size=1000)
        except (ApiError, Away):
            return {}
        return {hit["_source"]["paymentId"]: hit["_source"] for hit in found["hits"]["hits"]}

    async def committed(self, ids: list[str], within: float = 60) -> None:
        """The view shows each of these payments as settled."""

        def all_there() -> bool:
            found = self.transfers(ids)
            return len(found) == len(ids) and all(one["processState"] == "COMPLETED" for one in found.values())

        await until(all_there, "the view shows the payments", within)
        assert {one["state"] for one in self.transfers(ids).values()} == {"COMMITTED"}

    async def rebuild(self, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of `payhub rebuild`, which fails when the documents differ from those it replaces."""
        return await self.payhub("rebuild", *arguments, **environment)

    async def payhub(self, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of a command."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "hub.cli", *arguments, "--json"],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, dict(json.loads(done.stdout))


async def until(true: Callable[[], bool], what: str, within: float = 60) -> None:
    end = time.monotonic() + within
    while not (await asyncio.to_thread(true)):
        assert time.monotonic() < end, f"not within {within:.0f} s: {what}"
        await asyncio.sleep(0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="payhub-views-"))
    folder.chmod(0o711)
    stack = [sys.executable, "-m", "hub.stack"]
    choices = ["--detach", "--free-ports", "--profile", "minimal", "--bound-to", str(os.getpid())]
    started = await asyncio.to_thread(
        subprocess.run,
        [*stack, "up", *choices, "--data-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    state = load_state(folder)
    assert state is not None
    try:
        async with open_engine(EngineSettings(address=state.address("zeebe"))) as engine, asyncio.TaskGroup() as group:
            await engine.deploy(bpmn.resources())
            made = World(
                folder,
                {**os.environ, **state.variables(), "PAYHUB_EXPORT_SEARCH_SECRET": "for tests"},
                engine,
                open_client(state.address("elasticsearch")),
                AsyncStackControl(folder),
            )
            clerks = [group.create_task(made.work(kind, answer)) for kind, answer in ANSWERS.items()]
            made.start("audit")
            made.start("operations")
            yield made
            for name in list(made.exporters):
                await made.stop(name)
            for clerk in clerks:
                clerk.cancel()
    finally:
        await asyncio.to_thread(subprocess.run, [*stack, "down", "--data-dir", str(folder)], check=True)
        shutil.rmtree(folder)


async def test_payments_appear_in_both_views_masked_and_found_by_their_columns(world: World):  # H15 H16
    ids = await world.pay(3)
    await world.committed(ids)
    seen = world.transfers(ids)[ids[0]]
    assert (seen["amount"], seen["tenantId"], seen["rail"]) == (1234, "acme", "rail-on-us")
    assert (seen["payer"]["identifier"], seen["payer"]["name"]) == ("********0001", "A*** T***")
    by_digest = {
        "bool": {"filter": [{"term": {"payer.digest": seen["payer"]["digest"]}}, {"term": {"state": "COMMITTED"}}]}
    }
    assert world.elastic.count(index="payhub-transfers", query=by_digest)["count"] == 3
    columns = [
        {"term": {"paymentId": ids[0]}},
        {"term": {"elementId": "hold-funds"}},
        {"term": {"elementType": "SERVICE_TASK"}},
        {"term": {"recordType": "EVENT"}},
        {"term": {"intent": "ELEMENT_COMPLETED"}},
        {"term": {"tenantId": "acme"}},
        {"range": {"@timestamp": {"gte": "now-1h"}}},
    ]
    audit = {"bool": {"filter": columns}}
    await until(lambda: bool(world.elastic.count(index="payhub-audit-*", query=audit)["count"] == 1), "the audit view")
    of_payment = {"bool": {"filter": [{"term": {"paymentId": ids[0]}}, {"term": {"state": "COMPLETED"}}]}}

    def steps() -> set[str]:
        found = world.elastic.search(index="payhub-steps", query=of_payment, size=100)["hits"]["hits"]
        return {hit["_source"]["elementId"] for hit in found}

    await until(lambda: {"hold-funds", "book-transfer", "payer-transfer"} <= steps(), "the steps")
    for view in ("audit", "operations"):
        assert (await world.page(view, "/health/ready")).status_code == httpx.codes.OK
        assert (
            f'payhub_export_lag_records{{partition="0",topic="zeebe",view="{view}"}}'
            in (await world.page(view, "/metrics")).text
        )


async def test_with_elasticsearch_and_kafka_away_payments_go_on_and_arrive_later(world: World):  # H15
    await world.control.stop_part("kafka")
    during = await world.pay(2)
    await until_waiting(world, "kafka")
    await world.control.stop_part("elasticsearch")
    during += await world.pay(2)
    await until_waiting(world)
    await asyncio.gather(world.control.start_part("kafka"), world.control.start_part("elasticsearch"))
    await world.committed(during, within=120)


async def until_waiting(world: World, server: str = "elasticsearch") -> None:
    end = time.monotonic() + 30
    while (await world.page("operations", "/health/ready")).json()["checks"][server] == "ok":
        assert time.monotonic() < end
        await asyncio.sleep(0.2)


async def until_behind(world: World) -> None:
    """The metrics tell that there are records which the view has not."""
    end = time.monotonic() + 30
    while not re.search(r"payhub_export_lag_records\{.*\} [1-9]", (await world.page("operations", "/metrics")).text):
        assert time.monotonic() < end
        await asyncio.sleep(0.2)


async def test_an_index_that_nobody_may_write_makes_the_view_wait_and_no_dead_letter(world: World):
    def block(*, blocked: bool) -> None:
        world.elastic.indices.put_settings(index="payhub-transfers", settings={"index.blocks.write": blocked})

    await asyncio.to_thread(block, blocked=True)
    ids = await world.pay(1)
    await until_waiting(world)
    await until_behind(world)
    await asyncio.to_thread(block, blocked=False)
    await world.committed(ids)
    assert "payhub_export_dead_letters_total{" not in (await world.page("operations", "/metrics")).text


async def test_acts_and_callbacks_are_in_the_audit_view_each_once(world: World):  # H4 H6 H15
    act = {
        "seq": 1,
        "at": "2026-11-18T10:00:00.000000+00:00",
        "tenantId": "acme",
        "actor": "olga",
        "roles": ["operator"],
        "action": "action.request",
        "target": "transfer:p-1",
        "paymentId": "p-1",
        "outcome": "done",
        "hash": "ab" * 32,
    }
    received = {
        "seq": 1,
        "id": "stp-1",
        "at": "2026-11-18T10:00:00+00:00",
        "party": "STP",
        "kind": "order-status",
        "paymentId": "p-1",
        "tenantId": "acme",
        "outcome": "received",
        "times": 1,
    }
    producer = KafkaProducer(bootstrap_servers=[world.environment["PAYHUB_KAFKA_BOOTSTRAP_SERVERS"]])
    for topic, value in (
        ("payhub-operator-acts", act),
        ("payhub-operator-acts", act),
        ("payhub-callbacks", received),
        ("payhub-callbacks", received | {"seq": 2, "outcome": "moved"}),
    ):
        producer.send(topic, value=json.dumps(value).encode())
    producer.flush()
    producer.close()

    def told() -> list[tuple[str, str]]:
        query = {"bool": {"filter": [{"term": {"paymentId": "p-1"}}, {"term": {"tenantId": "acme"}}]}}
        found = world.elastic.search(index="payhub-audit", query=query)["hits"]["hits"]
        return sorted((hit["_source"]["source"], hit["_source"]["outcome"]) for hit in found)

    await until(lambda: told() == [("callback", "moved"), ("operator", "done")], "the audit view", 40)


async def test_a_run_that_is_stuck_is_seen_and_tried_again_from_the_command_line(world: World):  # H6
    await asyncio.to_thread(migrate, "operations_app.migrations", world.environment["PAYHUB_DATABASE_URL"])
    gateway = world.engine.gateway
    asked = ActivateJobsRequest(type="disbursement.plan-runs", worker="clerk", timeout=30_000, maxJobsToActivate=1)

    async def planning() -> ActivatedJob:
        while True:
            async for jobs in gateway.ActivateJobs(asked):
                for job in jobs.jobs:
                    return cast(ActivatedJob, job)

    async def stuck() -> list[dict[str, Any]]:
        code, answer = await world.payhub("incident", "list")
        assert code == 0, answer
        return [one for one in answer["incidents"] if one["elementId"] == "plan-runs"]

    await world.engine.publish(RunRequested(run_id=str(uuid.uuid4())))
    failed = await planning()
    await gateway.FailJob(FailJobRequest(jobKey=failed.key, retries=0, errorMessage="Unavailable: the database"))
    while not (seen := await stuck()):
        pass
    (one,) = seen
    assert (one["processId"], one["jobKey"], one["paymentId"]) == ("disbursement-run", str(failed.key), None)
    code, answer = await world.payhub("incident", "resolve", one["incidentKey"], "--note", "the database is back")
    assert (code, answer["element"]) == (0, "plan-runs")
    while (again := await planning()).key != failed.key:  # the timer's own look may come in between
        await gateway.CompleteJob(CompleteJobRequest(jobKey=again.key, variables='{"run_id": null}'))
    await gateway.CompleteJob(CompleteJobRequest(jobKey=again.key, variables='{"run_id": null}'))
    while await stuck():
        pass
    code, answer = await world.payhub("incident", "resolve", one["incidentKey"], "--note", "once more")
    assert code == 1
    assert "was resolved at" in answer["error"]


async def test_exporters_stay_small(world: World):
    sizes = {name: psutil.Process(one.pid).memory_info().rss / 2**20 for name, one in world.exporters.items()}
    assert all(size < MOST_MEMORY for size in sizes.values()), sizes


async def test_dying_between_write_and_commit_and_two_at_once_give_the_documents_of_a_rebuild(world: World):
    await world.stop("operations")
    died = world.exporters[world.start("operations", PAYHUB_FAILPOINT="export.operations.after-write:2")]
    ids = await world.pay(2)
    await until(lambda: died.poll() is not None, "the exporter dies at its failpoint")
    assert died.returncode == -signal.SIGKILL
    world.start("operations")
    second = world.start("operations", "operations-2")
    ids += await world.pay(3)
    await world.committed(ids)
    await world.stop(second, signal.SIGKILL)
    ids += await world.pay(2)
    await world.committed(ids)
    answers = dict(await asyncio.gather(*(world.rebuild("operations", "--drop-old") for _ in range(2))))
    made = answers[0]
    assert "meanwhile" in answers.get(1, {"error": "meanwhile"})["error"], answers
    (view,) = made["views"]
    counts = {name: (one["documents"], one["equal"] + one["moving"]) for name, one in view["families"].items()}
    assert all(documents == same for documents, same in counts.values()), counts
    assert counts["transfers"][0] >= len(ids)
    later = await world.pay(1)
    await world.committed(later)  # the exporter that runs has moved to the new indexes


async def test_a_deleted_index_is_made_again_whole_and_a_rebuild_finds_no_difference(world: World):
    before = world.elastic.count(index="payhub-audit")["count"]
    for name in world.elastic.indices.get_alias(name="payhub-audit").body:
        world.elastic.indices.delete(index=name)

    def again() -> bool:
        with suppress(ApiError):
            return bool(world.elastic.count(index="payhub-audit")["count"] >= before)
        return False

    await until(again, "the audit view is made again", 90)
    used = set(world.elastic.indices.get_alias(name="payhub-audit").body)
    code, refused = await world.rebuild("audit", PAYHUB_EXPORT_TOPIC="no-topic")
    assert (code, refused["error"]) == (1, "Kafka has no topic no-topic; the view in use stays")
    assert set(world.elastic.indices.get_alias(name="payhub-audit").body) == used
    code, made = await world.rebuild("audit", "--drop-old")
    assert code == 0, made
    (view,) = made["views"]
    assert view["families"]["audit"]["documents"] >= before
    assert len(world.elastic.indices.get(index="payhub-audit-*").body) == 1


async def test_what_elasticsearch_refuses_goes_to_the_dead_letters_and_the_rest_goes_on(world: World):
    """From an engine partition that there is none of, so that the positions of the real one stay as they are."""
    payment = str(uuid.uuid4())
    variables = {"payment_id": payment, "tenant_id": "acme", "amount": 10**30, "currency": "MXN"}
    started = {
        "processInstanceKey": 9 << 51,
        "processDefinitionKey": 1,
        "bpmnProcessId": "payer-transfer",
        "correlationKey": payment,
        "variables": variables,
    }
    record = {
        "partitionId": 9,
        "position": 1,
        "key": 1,
        "timestamp": 1,
        "recordType": "EVENT",
        "intent": "CORRELATED",
        "valueType": "MESSAGE_START_EVENT_SUBSCRIPTION",
        "rejectionType": "NULL_VAL",
        "rejectionReason": "",
        "sourceRecordPosition": 0,
        "value": started,
    }
    servers = [world.environment["PAYHUB_KAFKA_BOOTSTRAP_SERVERS"]]
    producer = KafkaProducer(bootstrap_servers=servers)
    producer.send("zeebe", key=b'{"partitionId":9,"position":1}', value=json.dumps(record).encode())
    producer.send("zeebe", key=b"?", value=b"no record at all")
    producer.flush()
    producer.close()
    ids = await world.pay(1)
    await world.committed(ids)
    letters = await asyncio.to_thread(dead_letters, servers)
    reasons = {(letter["view"], letter["reason"][:30]) for letter in letters}
    assert {view for view, reason in reasons if reason.startswith("not a record")} == {"audit", "operations"}
    (refused,) = (letter for letter in letters if letter["key"] == f"transfers/{payment}")
    assert refused["reason"].startswith("400 ")
    assert "payhub_export_dead_letters_total" in (await world.page("operations", "/metrics")).text
    assert not world.transfers([payment])


def dead_letters(servers: list[str]) -> list[dict[str, str]]:
    consumer = KafkaConsumer(
        "payhub-dead-letters", bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=4000
    )
    found = [
        {"key": (letter.key or b"").decode(), **{name: value.decode() for name, value in letter.headers}}
        for letter in consumer
    ]
    consumer.close()
    return found
