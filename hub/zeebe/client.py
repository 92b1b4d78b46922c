"""The engine as the rest of the hub sees it: messages in, pictures in, health out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from pyzeebe.proto.gateway_pb2 import (
    DeployResourceRequest,
    DeployResourceResponse,
    EvaluateDecisionRequest,
    EvaluateDecisionResponse,
    Partition,
    PublishMessageRequest,
    Resource,
    TopologyRequest,
    TopologyResponse,
)

from hub.errors import Unavailable
from hub.messages import Message, Published
from hub.settings import EngineSettings
from hub.zeebe.calls import FULL, LOST, MOST_VARIABLES, ask, insist
from hub.zeebe.channel import open_gateway
from hub.zeebe.operate import Operations
from hub.zeebe.refusals import EngineRefused, InvalidRequest, refusal

if TYPE_CHECKING:
    from pyzeebe.proto.gateway_pb2_grpc import GatewayAsyncStub as Gateway

_PUBLISH_AGAIN: Final = FULL | LOST | {grpc.StatusCode.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Deployed:
    """One process or decision that the engine now has. The same bytes again keep their version."""

    id: str
    version: int
    key: int
    source: str
    """The file a process came from; the requirements graph of a decision."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment brought."""

    key: int
    processes: tuple[Deployed, ...]
    decisions: tuple[Deployed, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """The cluster as its gateway sees it."""

    version: str
    partitions: int
    leaders: int
    """Partitions that have a healthy leader; the engine works when all have one."""

    @property
    def healthy(self) -> bool:
        return self.partitions > 0 and self.leaders >= self.partitions


class ZeebeEngine:
    """A connection to Zeebe; implements `hub.messages.Engine`. Make one with `open_engine`."""

    def __init__(self, gateway: Gateway, publish_within: timedelta = timedelta(seconds=5)) -> None:
        self.gateway: Final = gateway
        self.operate: Final = Operations(gateway)
        self._publish_within = publish_within.total_seconds()

    async def publish(self, message: Message) -> Published:
        """Hand a message over; a repeat of the same id, within its `ttl`, changes nothing and says so.

        Raises `Unavailable` when the engine did not confirm it in time: publish the same message again later; and
        `InvalidRequest` when the engine will never take it.
        """
        variables = json.dumps(message.variables())
        if len(variables) > MOST_VARIABLES:
            raise InvalidRequest(
                f"publish {message.message_name}", f"{len(variables)} characters of variables, at most {MOST_VARIABLES}"
            )
        request = PublishMessageRequest(
            name=message.message_name,
            correlationKey=message.correlation_key,
            messageId=message.message_id,
            timeToLive=int(message.ttl.total_seconds() * 1000),
            variables=variables,
        )
        try:
            await insist(
                "publish", self.gateway.PublishMessage, request, within=self._publish_within, again=_PUBLISH_AGAIN
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return Published.ALREADY_THERE
            if error.code() in _PUBLISH_AGAIN:
                raise Unavailable(f"engine: publish {message.message_name}: {error.code().name}") from None
            raise refusal(f"publish {message.message_name}", error) from None
        return Published.NEW

    async def deploy(self, resources: Mapping[str, bytes], within: timedelta = timedelta(seconds=90)) -> Deployment:
        """Give the engine BPMN and DMN files, by file name; all of them or none.

        Raises `InvalidRequest` with the engine's own list of faults, or `Unavailable`.
        """
        request = DeployResourceRequest(
            resources=[Resource(name=name, content=content) for name, content in resources.items()]
        )
        seconds = within.total_seconds()
        answer = await ask("deploy", self.gateway.DeployResource, request, within=seconds, each=seconds)
        return _deployment(cast(DeployResourceResponse, answer))

    async def evaluate(self, decision_id: str, variables: Mapping[str, Any]) -> Any:
        """Evaluate the newest version of a deployed decision. Raises `NotFound`, or `EngineRefused` when it fails."""
        request = EvaluateDecisionRequest(decisionId=decision_id, variables=json.dumps(variables))
        answer = cast(EvaluateDecisionResponse, await ask("evaluate", self.gateway.EvaluateDecision, request))
        if answer.failureMessage:
            raise EngineRefused(f"evaluate {decision_id}", answer.failureMessage)
        return json.loads(answer.decisionOutput)

    async def topology(self, within: timedelta = timedelta(seconds=2)) -> Topology:
        """Ask the gateway what it knows. Raises `Unavailable` when it does not answer."""
        answer = await ask("topology", self.gateway.Topology, TopologyRequest(), within=within.total_seconds())
        return _topology(cast(TopologyResponse, answer))

    async def ping(self) -> None:
        """A probe: raises `Unavailable` unless every partition has a healthy leader."""
        topology = await self.topology()
        if not topology.healthy:
            raise Unavailable(f"engine: {topology.leaders} of {topology.partitions} partitions have a healthy leader")


def _deployment(answer: DeployResourceResponse) -> Deployment:
    processes, decisions = [], []
    for one in answer.deployments:
        if one.HasField("process"):
            process = one.process
            processes.append(
                Deployed(process.bpmnProcessId, process.version, process.processDefinitionKey, process.resourceName)
            )
        elif one.HasField("decision"):
            decision = one.decision
            decisions.append(
                Deployed(
                    decision.dmnDecisionId, decision.version, decision.decisionKey, decision.dmnDecisionRequirementsId
                )
            )
    return Deployment(answer.key, tuple(processes), tuple(decisions))


def _topology(answer: TopologyResponse) -> Topology:
    leading = {
        partition.partitionId
        for broker in answer.brokers
        for partition in broker.partitions
        if partition.role == Partition.LEADER and partition.health == Partition.HEALTHY
    }
    return Topology(answer.gatewayVersion, answer.partitionsCount, len(leading))


@asynccontextmanager
async def open_engine(
    settings: EngineSettings, publish_within: timedelta = timedelta(seconds=5)
) -> AsyncIterator[ZeebeEngine]:
    """A connection to the engine, closed on leaving. It connects, and reconnects for ever, when it is used."""
    async with open_gateway(settings) as gateway:
        yield ZeebeEngine(gateway, publish_within)
