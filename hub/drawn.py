"""What is drawn equals what is coded, or somebody is told before a payment hangs.

`check()` compares the drawings of `bpmn` with the jobs, messages and refusals that connectors declare, both ways, and
looks for what the engine accepts and a payment regrets: a wait without a timer, a fork without a default, an element
nobody sees. Each rule is one small function whose docstring is its sentence. It runs as a test, as `payhub bpmn check`
and inside `payhub deploy`, which refuses while there is a finding. It reads; it opens nothing and asks no engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from bpmn import Decision, ErrorCatch, JobTask, Node, Process
from hub.connector import Connector
from hub.jobs import Job
from hub.messages import Message

REFUSAL: Final = frozenset({"outcome", "reason", "reason_detail"})
"""The variables that are thrown along with every refusal."""

_JOB_TYPE: Final = re.compile(r"[a-z][a-z0-9]*\.[a-z0-9]+(-[a-z0-9]+)+")
_KEBAB: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FORKS: Final = frozenset({"exclusiveGateway", "inclusiveGateway"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something drawn that is not coded, coded that is not drawn, or drawn in a way that will hurt."""

    rule: str
    file: str
    """The drawing, or the connector when something coded is drawn nowhere."""
    element: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.element}: {self.problem}; {self.fix}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides, ready to be compared."""

    processes: tuple[Process, ...]
    decisions: tuple[Decision, ...]
    jobs: Mapping[str, type[Job[Any]]]
    served_by: Mapping[str, str]
    """Job type → name of the connector that serves it."""
    messages: Mapping[str, type[Message]]
    declared_by: Mapping[str, str]
    """Message name → who declares it."""

    def drawn(self, job_type: str) -> bool:
        return any(task.job_type == job_type for process in self.processes for task in process.jobs)


Problem = tuple[str, str, str, str]
"""File, element, problem, fix."""
Rule = Callable[[Comparison], Iterator[Problem]]


def check(
    processes: Sequence[Process],
    decisions: Sequence[Decision],
    connectors: Sequence[Connector],
    extra_messages: Sequence[type[Message]] = (),
) -> list[Finding]:
    """Everything that differs between the drawings and the code; an empty list means they agree.

    `extra_messages` are messages that no connector declares, for instance an operator's.
    """
    comparison = Comparison(
        processes=tuple(processes),
        decisions=tuple(decisions),
        jobs={job.job_type: job for connector in connectors for job in connector.jobs},
        served_by={job.job_type: connector.name for connector in connectors for job in connector.jobs},
        messages={message.message_name: message for message in _all_messages(connectors, extra_messages)},
        declared_by={
            **{message.message_name: message.__module__ for message in extra_messages},
            **{message.message_name: connector.name for connector in connectors for message in connector.messages},
        },
    )
    return [Finding(rule.__name__.replace("_", " "), *problem) for rule in RULES for problem in rule(comparison)]


def _all_messages(connectors: Sequence[Connector], extra: Sequence[type[Message]]) -> Iterator[type[Message]]:
    yield from extra
    for connector in connectors:
        yield from connector.messages


# ---- jobs


def every_drawn_job_is_served(both: Comparison) -> Iterator[Problem]:
    """A job that is drawn has a handler, or payments stop there for ever."""
    for process, task in _jobs(both):
        if task.job_type not in both.jobs:
            yield (
                process.file,
                task.element,
                f"nobody serves the job {task.job_type or '(none)'}",
                "write a handler for it and list its worker in a connector, or draw a job that is served",
            )


def every_served_job_is_drawn(both: Comparison) -> Iterator[Problem]:
    """A handler that no drawing asks for is dead code, or a drawing lost its task."""
    for job_type, connector in both.served_by.items():
        if not both.drawn(job_type):
            yield connector, job_type, "is served and drawn nowhere", "draw it or remove its handler"


def job_types_are_literal_words(both: Comparison) -> Iterator[Problem]:
    """A job type is written out as connector.verb-noun, so that it can be compared."""
    for process, task in _jobs(both):
        if not _JOB_TYPE.fullmatch(task.job_type):
            fix = "write it as connector.verb-noun, for instance stp.send-order, and not as an expression"
            yield process.file, task.element, f"the job type {task.job_type or '(none)'} is not readable", fix


def jobs_belong_to_the_connector_they_name(both: Comparison) -> Iterator[Problem]:
    """The word before the dot of a job type is the connector that serves it."""
    for job_type, connector in both.served_by.items():
        if job_type.partition(".")[0] != connector:
            fix = f"rename it to {connector}.{job_type.partition('.')[2]}, or move its handler"
            yield connector, job_type, f"is served by the connector {connector}", fix


def retries_are_drawn_as_coded(both: Comparison) -> Iterator[Problem]:
    """A task says how often it is tried, and says what its job class says."""
    for process, task in _jobs(both):
        job = both.jobs.get(task.job_type)
        if task.retries is None:
            yield process.file, task.element, "does not say how often it is tried", "add the retries attribute"
        elif job is not None and task.retries != str(job.attempts):
            problem = f"is tried {task.retries} times as drawn and {job.attempts} times as coded"
            yield process.file, task.element, problem, f"draw retries {job.attempts}, or change {job.__name__}.attempts"


def every_input_of_a_job_is_written_somewhere(both: Comparison) -> Iterator[Problem]:
    """A variable that a job reads is written by something before it could run."""
    for process, task in _jobs(both):
        job = both.jobs.get(task.job_type)
        if job is None:
            continue
        known = _known_variables(both, process) | frozenset(process.nodes[task.element].inputs)
        for variable in job.variables():
            if variable not in known:
                fix = "let a job, message or mapping write it, or correct its name"
                yield process.file, task.element, f"reads the variable {variable}, which nothing writes", fix


# ---- messages


def every_drawn_message_is_declared(both: Comparison) -> Iterator[Problem]:
    """A message that a drawing waits for is one that somebody sends."""
    for process in both.processes:
        for catch in process.messages:
            if catch.message not in both.messages:
                fix = "declare it as a Message class and list it in a connector, or correct its name"
                yield process.file, catch.element, f"waits for {catch.message or '(no message)'}, nobody sends it", fix


def every_declared_message_is_drawn(both: Comparison) -> Iterator[Problem]:
    """A message that nobody waits for is lost when its time to live ends."""
    drawn = {catch.message for process in both.processes for catch in process.messages}
    for message, owner in both.declared_by.items():
        if message not in drawn:
            yield owner, message, "is declared and no drawing waits for it", "draw where it arrives, or remove it"


def every_message_finds_its_process(both: Comparison) -> Iterator[Problem]:
    """A message that moves a process on has a correlation key; one that starts a process needs none."""
    for process in both.processes:
        for catch in process.messages:
            if not catch.starts and not (catch.correlation or "").startswith("="):
                fix = "give the message a correlation key, for instance =payment_id"
                yield process.file, catch.element, f"{catch.message} cannot find the process that waits", fix


# ---- refusals


def every_refusal_is_caught(both: Comparison) -> Iterator[Problem]:
    """Each refusal a job declares has a drawn path at every place where the job is drawn."""
    for process, task in _jobs(both):
        caught = {catch.code for catch in _catches(process, task)}
        job = both.jobs.get(task.job_type)
        if job is None or None in caught:
            continue
        for refusal in job.rejections:
            if refusal.code() not in caught:
                fix = "add an error boundary event for that code, or one without a code for all refusals"
                yield process.file, task.element, f"the refusal {refusal.code()} is not caught", fix


def every_caught_refusal_is_declared(both: Comparison) -> Iterator[Problem]:
    """An error boundary event catches something that its job can raise."""
    for process, task in _jobs(both):
        job = both.jobs.get(task.job_type)
        if job is None:
            continue
        codes = {refusal.code() for refusal in job.rejections}
        for catch in _catches(process, task):
            if catch.code is None and not codes:
                problem = f"catches refusals, and {job.__name__} declares none"
            elif catch.code is not None and catch.code not in codes:
                problem = f"catches {catch.code}, which {job.__name__} never raises"
            else:
                continue
            yield process.file, catch.element, problem, "remove the boundary event, or declare the refusal in the job"


def a_caught_refusal_hands_its_outcome_on(both: Comparison) -> Iterator[Problem]:
    """The engine drops what is thrown along with an error unless the boundary event maps it into the process."""
    for process in both.processes:
        for catch in process.catches:
            missing = sorted(REFUSAL - catch.outputs)
            if missing:
                fix = "add an output mapping for each, for instance source =outcome, target outcome"
                yield process.file, catch.element, f"loses {', '.join(missing)} of the refusal", fix


# ---- calls


def every_called_process_exists(both: Comparison) -> Iterator[Problem]:
    """A call activity names a process that is drawn here."""
    known = {process.id for process in both.processes}
    for process in both.processes:
        for call in process.calls:
            if call.process not in known:
                fix = f"draw {call.process or 'it'}.bpmn, or correct the process id"
                yield process.file, call.element, f"calls the process {call.process or '(none)'}, not drawn here", fix


def every_called_decision_exists(both: Comparison) -> Iterator[Problem]:
    """A business rule task names a table that is here; the engine would only notice when a payment arrives."""
    known = {decision.id for decision in both.decisions}
    for process in both.processes:
        for call in process.decisions:
            if call.decision not in known:
                fix = f"add {call.decision or 'it'}.dmn, or correct the decision id"
                yield process.file, call.element, f"asks the decision {call.decision or '(none)'}, not here", fix


def a_called_process_hands_back_what_is_listed(both: Comparison) -> Iterator[Problem]:
    """Only listed variables come back from a called process, so that it cannot change what it should not."""
    for process in both.processes:
        for call in process.calls:
            if call.hands_back is None:
                fix = 'set propagateAllChildVariables="false" and list what comes back as outputs'
                yield process.file, call.element, f"lets {call.process} overwrite any variable", fix


# ---- the drawing itself


def a_file_is_named_after_what_it_holds(both: Comparison) -> Iterator[Problem]:
    """File name = process id, or decision id."""
    drawings: tuple[Process | Decision, ...] = (*both.processes, *both.decisions)
    for drawing in drawings:
        if PurePath(drawing.file).stem != drawing.id:
            suffix = PurePath(drawing.file).suffix
            yield drawing.file, drawing.id, "has another name than its file", f"rename the file to {drawing.id}{suffix}"


def a_process_can_run(both: Comparison) -> Iterator[Problem]:
    """The engine passes over a process that is not marked executable, and deploys nothing without a word."""
    for process in both.processes:
        if not process.executable:
            yield process.file, process.id, "is not executable", 'set isExecutable="true"'


def everything_is_in_the_diagram(both: Comparison) -> Iterator[Problem]:
    """Every element has a shape and every flow an edge, so that a picture shows all there is."""
    for process in both.processes:
        for item in (*process.nodes, *process.flows, *sorted(process.annotations)):
            if item not in process.pictured:
                yield process.file, item, "is not in the diagram", "add its shape or edge with a modeler"
    for decision in both.decisions:
        if not decision.pictured:
            yield decision.file, decision.id, "is not in the diagram", "add its shape with a modeler"


def ids_are_kebab_case_words(both: Comparison) -> Iterator[Problem]:
    """Ids are words, because operators read them in the history and repairs name them."""
    for process in both.processes:
        for item in (process.id, *process.nodes, *process.flows):
            if not _KEBAB.fullmatch(item):
                yield process.file, item, "is not a kebab-case id", "name it in words, for instance hold-funds"


def everything_a_reader_meets_has_a_name(both: Comparison) -> Iterator[Problem]:
    """Tasks, calls, events and questions are named in plain words. A gateway that only joins needs none."""
    for process in both.processes:
        if not process.name:
            yield process.file, process.id, "has no name", "name the process in plain words"
        for node in process.nodes.values():
            joins = node.is_gateway and len(process.leaving(node.id)) < 2
            if not node.name and not joins:
                yield process.file, node.id, "has no name", "say in plain words what happens there"


def elements_list_their_flows(both: Comparison) -> Iterator[Problem]:
    """The incoming and outgoing lists agree with the flows: the engine skips its own checks where they are missing."""
    for process in both.processes:
        for flow in process.flows.values():
            for end in (flow.source, flow.target):
                if end not in process.nodes:
                    yield process.file, flow.id, f"ends at {end}, which is not drawn", "connect it to an element"
        for node in process.nodes.values():
            for word, listed, flows in (
                ("incoming", node.incoming, process.arriving(node.id)),
                ("outgoing", node.outgoing, process.leaving(node.id)),
            ):
                if sorted(listed) != sorted(flow.id for flow in flows):
                    yield process.file, node.id, f"lists other {word} flows than there are", f"correct its {word} list"


def event_definitions_have_ids(both: Comparison) -> Iterator[Problem]:
    """Some event definitions without an id make the engine refuse the file with a text that helps nobody."""
    for process, node in _nodes(both):
        if node.event is not None and not node.event_id:
            yield process.file, node.id, "its event definition has no id", f"give it one: {node.id}-{node.event}"


# ---- the flow


def every_wait_has_a_timer(both: Comparison) -> Iterator[Problem]:
    """No payment waits for ever on somebody else's message (H3)."""
    for process, node in _nodes(both):
        if _waits(node) and not _has_timer(process, node):
            fix = "put it behind an event-based gateway beside a timer, or attach a timer boundary event"
            yield process.file, node.id, "waits for a message without a timer", fix


def every_question_has_a_default(both: Comparison) -> Iterator[Problem]:
    """A gateway that asks has a condition on each way but one, and that one is the default."""
    for process, node in _nodes(both):
        ways = process.leaving(node.id)
        if node.kind not in _FORKS or len(ways) < 2:
            continue
        if node.default not in {way.id for way in ways}:
            fix = "make the safest way the default"
            yield process.file, node.id, "has no default way: a payment that fits none would stop here", fix
        for way in ways:
            if way.id != node.default and not way.condition:
                yield process.file, way.id, "has no condition", "write when this way is taken, or make it the default"


def only_gateways_fork(both: Comparison) -> Iterator[Problem]:
    """Two ways out of a task run both at once; the engine deploys that without a word."""
    for process, node in _nodes(both):
        if not node.is_gateway and len(process.leaving(node.id)) > 1:
            yield process.file, node.id, "has more than one way out and both would run", "put a gateway behind it"


def every_element_can_be_reached(both: Comparison) -> Iterator[Problem]:
    """Nothing is drawn that no token can arrive at."""
    for process in both.processes:
        reached = _reached(process)
        for node in process.nodes.values():
            if node.id not in reached:
                yield process.file, node.id, "cannot be reached", "connect it or remove it"


def every_path_ends_in_an_end(both: Comparison) -> Iterator[Problem]:
    """A path that just stops leaves open how it ended."""
    for process, node in _nodes(both):
        if node.kind != "endEvent" and not process.leaving(node.id) and not node.triggered_by_event:
            yield process.file, node.id, "is where a path stops", "lead it to an end event that says how it ended"


def no_event_sub_process(both: Comparison) -> Iterator[Problem]:
    """The engine cannot migrate an instance that holds one, and its messages overwrite the payment's own variables."""
    for process, node in _nodes(both):
        if node.triggered_by_event:
            fix = "draw a process of its own that refers to the payment"
            yield process.file, node.id, "is an event sub-process", fix


RULES: Final[tuple[Rule, ...]] = (
    every_drawn_job_is_served,
    every_served_job_is_drawn,
    job_types_are_literal_words,
    jobs_belong_to_the_connector_they_name,
    retries_are_drawn_as_coded,
    every_input_of_a_job_is_written_somewhere,
    every_drawn_message_is_declared,
    every_declared_message_is_drawn,
    every_message_finds_its_process,
    every_refusal_is_caught,
    every_caught_refusal_is_declared,
    a_caught_refusal_hands_its_outcome_on,
    every_called_process_exists,
    every_called_decision_exists,
    a_called_process_hands_back_what_is_listed,
    a_file_is_named_after_what_it_holds,
    a_process_can_run,
    everything_is_in_the_diagram,
    ids_are_kebab_case_words,
    everything_a_reader_meets_has_a_name,
    elements_list_their_flows,
    event_definitions_have_ids,
    every_wait_has_a_timer,
    every_question_has_a_default,
    only_gateways_fork,
    every_element_can_be_reached,
    every_path_ends_in_an_end,
    no_event_sub_process,
)


# ---- walking


def _jobs(both: Comparison) -> Iterator[tuple[Process, JobTask]]:
    for process in both.processes:
        for task in process.jobs:
            yield process, task


def _nodes(both: Comparison) -> Iterator[tuple[Process, Node]]:
    for process in both.processes:
        for node in process.nodes.values():
            yield process, node


def _catches(process: Process, task: JobTask) -> tuple[ErrorCatch, ...]:
    return tuple(catch for catch in process.catches if catch.task == task.element)


def _waits(node: Node) -> bool:
    return node.kind == "receiveTask" or (
        node.kind == "intermediateCatchEvent" and node.event in {"message", "signal", "conditional"}
    )


def _has_timer(process: Process, node: Node) -> bool:
    if any(boundary.event == "timer" for boundary in process.attached(node.id)):
        return True
    timers = {timer.element for timer in process.timers}
    before = [process.nodes[flow.source] for flow in process.arriving(node.id) if flow.source in process.nodes]
    return bool(before) and all(
        source.kind == "eventBasedGateway" and any(flow.target in timers for flow in process.leaving(source.id))
        for source in before
    )


def _reached(process: Process) -> frozenset[str]:
    """Everything a token can get to, boundary events and the insides of sub-processes included."""
    waiting = [node.id for node in process.nodes.values() if node.kind == "startEvent" and node.within is None]
    waiting += [node.id for node in process.nodes.values() if node.triggered_by_event and node.within is None]
    reached: set[str] = set()
    while waiting:
        here = waiting.pop()
        if here in reached or here not in process.nodes:
            continue
        reached.add(here)
        waiting += [flow.target for flow in process.leaving(here)]
        waiting += [node.id for node in process.attached(here)]
        waiting += [
            node.id
            for node in process.nodes.values()
            if node.within == here and (node.kind == "startEvent" or node.triggered_by_event)
        ]
    return frozenset(reached)


def _known_variables(both: Comparison, process: Process, above: frozenset[str] = frozenset()) -> frozenset[str]:
    """What some element of this process, or of one that calls it, writes. Order in time is not looked at."""
    known: set[str] = set()
    for task in process.jobs:
        job = both.jobs.get(task.job_type)
        if job is not None and not process.nodes[task.element].outputs:
            known |= set(job.result_type().model_fields)
    for catch in process.messages:
        if catch.message in both.messages:
            known |= set(both.messages[catch.message].model_fields)
    known |= {call.result for call in process.decisions}
    for node in process.nodes.values():
        known |= set(node.outputs)
    for caller in both.processes:
        if caller.id not in above and any(call.process == process.id for call in caller.calls):
            known |= _known_variables(both, caller, above | {process.id})
    return frozenset(known)
