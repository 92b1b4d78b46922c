"""The commands that repair a running process. pyzeebe has the stubs for them but no client.

Each raises `NotFound`, `InvalidState` or `InvalidRequest` (hub.zeebe.refusals) when the engine says no, `Unavailable`
when nothing was done or doing it again is harmless, `Uncertain` when the command may have been carried out and must not
be repeated blindly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from pyzeebe.proto.gateway_pb2 import (
    CancelProcessInstanceRequest,
    CreateProcessInstanceRequest,
    CreateProcessInstanceResponse,
    CreateProcessInstanceWithResultRequest,
    CreateProcessInstanceWithResultResponse,
    ModifyProcessInstanceRequest,
    ResolveIncidentRequest,
    SetVariablesRequest,
    SetVariablesResponse,
    UpdateJobRetriesRequest,
)

from hub.zeebe.calls import ask, gone

if TYPE_CHECKING:
    from pyzeebe.proto.gateway_pb2_grpc import GatewayAsyncStub as Gateway


@dataclass(frozen=True, slots=True)
class Activate:
    """Put a token on an element: before it does anything, so that a task there makes a new job."""

    element_id: str
    variables: Mapping[str, Any] | None = None
    scope: str = ""
    """The element whose scope the variables belong to; empty for the process instance."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A process instance that was created."""

    key: int
    process_id: str
    version: int
    definition_key: int


class Operations:
    """The repair commands, over the gateway of a `ZeebeEngine` (`engine.operate`)."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def update_retries(self, job_key: int, retries: int) -> None:
        """Let a job be tried again `retries` times. A job with an incident also needs `resolve_incident` afterwards."""
        request = UpdateJobRetriesRequest(jobKey=job_key, retries=retries)
        await ask("update-retries", self._gateway.UpdateJobRetries, request)

    async def resolve_incident(self, incident_key: int) -> None:
        """Say that the cause is gone; the engine tries the element again."""
        request = ResolveIncidentRequest(incidentKey=incident_key)
        await ask("resolve-incident", self._gateway.ResolveIncident, request, done=gone)

    async def retry(self, incident_key: int, job_key: int | None = None) -> None:
        """Both in the order the engine wants: a job gets its retries first, then the incident is resolved.

        The worker gives the job its full set of tries again. `job_key` is None for an incident that has no job.
        """
        if job_key is not None:
            await self.update_retries(job_key, 1)
        await self.resolve_incident(incident_key)

    async def set_variables(self, scope_key: int, variables: Mapping[str, Any], local: bool = False) -> int:
        """Change variables of a process instance or element instance; returns the key of the change.

        `local` keeps them in that scope; otherwise each goes to the scope that already has it.
        """
        request = SetVariablesRequest(elementInstanceKey=scope_key, variables=json.dumps(variables), local=local)
        answer = await ask("set-variables", self._gateway.SetVariables, request)
        return cast(SetVariablesResponse, answer).key

    async def modify_instance(
        self, instance_key: int, *, activate: Sequence[Activate] = (), terminate: Sequence[int] = ()
    ) -> None:
        """Move tokens: put them on the elements of `activate`, take away the element instances of `terminate`.

        Start events, boundary events and sequence flows cannot be activated. Not repeated when the answer is lost.
        """
        request = ModifyProcessInstanceRequest(
            processInstanceKey=instance_key,
            activateInstructions=[_activation(one) for one in activate],
            terminateInstructions=[
                ModifyProcessInstanceRequest.TerminateInstruction(elementInstanceKey=key) for key in terminate
            ],
        )
        await ask("modify-instance", self._gateway.ModifyProcessInstance, request, repeatable=False)

    async def cancel_instance(self, instance_key: int) -> None:
        """End an instance where it stands. No boundary event and no compensation runs."""
        request = CancelProcessInstanceRequest(processInstanceKey=instance_key)
        await ask("cancel-instance", self._gateway.CancelProcessInstance, request, done=gone)

    async def create_instance(
        self, process_id: str, variables: Mapping[str, Any] | None = None, version: int = -1
    ) -> Instance:
        """Start a process without a message. Never a payment: a lost answer cannot be told from a lost request."""
        request = CreateProcessInstanceRequest(
            bpmnProcessId=process_id, version=version, variables=json.dumps(variables or {})
        )
        answer = await ask("create-instance", self._gateway.CreateProcessInstance, request, repeatable=False)
        created = cast(CreateProcessInstanceResponse, answer)
        return Instance(
            created.processInstanceKey, created.bpmnProcessId, created.version, created.processDefinitionKey
        )

    async def run_instance(
        self,
        process_id: str,
        variables: Mapping[str, Any] | None = None,
        within: timedelta = timedelta(seconds=20),
        version: int = -1,
    ) -> dict[str, Any]:
        """Start a process, wait for its end and return its variables. Raises `Uncertain` when it takes longer."""
        seconds = within.total_seconds()
        request = CreateProcessInstanceWithResultRequest(
            request=CreateProcessInstanceRequest(
                bpmnProcessId=process_id, version=version, variables=json.dumps(variables or {})
            ),
            requestTimeout=int(seconds * 1000),
        )
        answer = await ask(
            "run-instance",
            self._gateway.CreateProcessInstanceWithResult,
            request,
            within=seconds + 1,
            each=seconds + 1,
            repeatable=False,
        )
        found: dict[str, Any] = json.loads(cast(CreateProcessInstanceWithResultResponse, answer).variables)
        return found


def _activation(one: Activate) -> ModifyProcessInstanceRequest.ActivateInstruction:
    variables = []
    if one.variables is not None:
        variables.append(
            ModifyProcessInstanceRequest.VariableInstruction(variables=json.dumps(one.variables), scopeId=one.scope)
        )
    return ModifyProcessInstanceRequest.ActivateInstruction(elementId=one.element_id, variableInstructions=variables)
