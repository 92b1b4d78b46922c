"""What happens, drawn: one process per file, and the tables that decide. The only place where the flow is decided.

The engine reads the drawings; so do people, and so does this module. `processes()` and `decisions()` tell in plain
typed values what each drawing asks of the code: job types, messages, refusals caught, processes and decisions called,
waits and their timers, and whether everything is in the diagram. `hub.drawn` compares that with what is coded.
`resources()` are the files themselves, for deployment. README.md in this folder has the naming rules and the table
process → jobs → handlers.

Nothing of ours is imported here. A drawing that declares a document type is refused: an entity could read files or
never end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

_BPMN: Final = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
_DI: Final = "{http://www.omg.org/spec/BPMN/20100524/DI}"
_ZEEBE: Final = "{http://camunda.org/schema/zeebe/1.0}"
_DMN: Final = "{https://www.omg.org/spec/DMN/20191111/MODEL/}"
_DMNDI: Final = "{https://www.omg.org/spec/DMN/20191111/DMNDI/}"

_NOT_NODES: Final = frozenset({"sequenceFlow", "textAnnotation", "association", "group", "dataObject", "laneSet"})
_DEFINITION: Final = "EventDefinition"


class DrawingError(Exception):
    """A file cannot be read as a drawing; the text names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One element that a token can stand on: a task, a gateway, an event, a call, a sub-process."""

    id: str
    kind: str
    """BPMN's own word: `serviceTask`, `exclusiveGateway`, `boundaryEvent` ..."""
    name: str
    incoming: tuple[str, ...]
    outgoing: tuple[str, ...]
    """The flow ids listed inside the element. The engine validates by these lists: they must agree with the flows."""
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    """Variable mappings: target variable → FEEL expression. What is done for each element of a collection has that
    element as an input, from the collection's expression."""
    event: str | None = None
    """For events what they are about: `message`, `timer`, `error` ...; None for a plain start, end or marker."""
    event_id: str | None = None
    attached_to: str | None = None
    default: str | None = None
    within: str | None = None
    """The sub-process it stands in, None at the top."""
    triggered_by_event: bool = False

    @property
    def is_task(self) -> bool:
        return self.kind.endswith("Task") or self.kind == "task"

    @property
    def is_gateway(self) -> bool:
        return self.kind.endswith("Gateway")

    @property
    def is_event(self) -> bool:
        return self.kind.endswith("Event")


@dataclass(frozen=True, slots=True)
class Flow:
    """An arrow between two elements. `condition` is a FEEL expression."""

    id: str
    source: str
    target: str
    name: str
    condition: str | None


@dataclass(frozen=True, slots=True)
class JobTask:
    """A task that a worker of ours does. `retries` is None when the drawing does not say."""

    element: str
    job_type: str
    retries: str | None


@dataclass(frozen=True, slots=True)
class MessageCatch:
    """A place where a message starts the process or moves it on. `correlation` is the FEEL expression of the key."""

    element: str
    message: str
    correlation: str | None
    starts: bool


@dataclass(frozen=True, slots=True)
class ErrorCatch:
    """A boundary event that catches a refusal. `code` is None for one that catches them all."""

    element: str
    task: str
    code: str | None
    outputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class ProcessCall:
    """A call of another process. `hands_back` are the variables that come back; None means all of them."""

    element: str
    process: str
    hands_back: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class DecisionCall:
    """A question to a decision table."""

    element: str
    decision: str
    result: str


@dataclass(frozen=True, slots=True)
class Timer:
    """A wait that ends by itself. `expression` is the FEEL expression or ISO 8601 text of its time."""

    element: str
    expression: str


@dataclass(frozen=True, slots=True)
class Process:
    """One drawn process, as its file says."""

    file: str
    id: str
    name: str
    executable: bool
    nodes: Mapping[str, Node]
    flows: Mapping[str, Flow]
    jobs: tuple[JobTask, ...]
    messages: tuple[MessageCatch, ...]
    catches: tuple[ErrorCatch, ...]
    calls: tuple[ProcessCall, ...]
    decisions: tuple[DecisionCall, ...]
    timers: tuple[Timer, ...]
    pictured: frozenset[str]
    """Ids of the elements and flows that have a shape or an edge in the diagram."""
    annotations: frozenset[str]

    @property
    def ends(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.nodes.values() if node.kind == "endEvent")

    @property
    def starts(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.nodes.values() if node.kind == "startEvent" and node.within is None)

    def leaving(self, element: str) -> tuple[Flow, ...]:
        """The flows that start at this element."""
        return tuple(flow for flow in self.flows.values() if flow.source == element)

    def arriving(self, element: str) -> tuple[Flow, ...]:
        """The flows that end at this element."""
        return tuple(flow for flow in self.flows.values() if flow.target == element)

    def attached(self, element: str) -> tuple[Node, ...]:
        """The boundary events on this element."""
        return tuple(node for node in self.nodes.values() if node.attached_to == element)


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision table, as its file says."""

    file: str
    id: str
    name: str
    pictured: bool


def processes() -> tuple[Process, ...]:
    """Every process of this folder, by file name. Raises `DrawingError` for a file that is no drawing."""
    return tuple(read_process(name, data) for name, data in resources().items() if name.endswith(".bpmn"))


def decisions() -> tuple[Decision, ...]:
    """Every decision of this folder. Raises `DrawingError` for a file that is no decision table."""
    return tuple(
        decision
        for name, data in resources().items()
        if name.endswith(".dmn")
        for decision in read_decisions(name, data)
    )


def resources() -> dict[str, bytes]:
    """The drawings and tables themselves, by file name: what is deployed."""
    folder = sorted(files(__name__).iterdir(), key=lambda entry: entry.name)
    return {entry.name: entry.read_bytes() for entry in folder if entry.name.endswith((".bpmn", ".dmn"))}


def read_process(file: str, data: bytes) -> Process:
    """Read one drawing. Raises `DrawingError` when it is not XML, declares a document type, or is not one process."""
    root = _parse(file, data)
    found = root.findall(f"{_BPMN}process")
    if len(found) != 1:
        raise DrawingError(f"{file}: holds {len(found)} processes; keep one process per file")
    process = found[0]
    if not process.get("id"):
        raise DrawingError(f"{file}: the process has no id; give it the file's name")
    messages = _messages(root)
    errors = {e.get("id", ""): e.get("errorCode") for e in root.iter(f"{_BPMN}error")}
    elements = list(_elements(process))
    nodes = {node.id: node for node in (_node(element, within) for element, within in elements)}
    return Process(
        file=file,
        id=process.get("id", ""),
        name=process.get("name", ""),
        executable=process.get("isExecutable") == "true",
        nodes=MappingProxyType(nodes),
        flows=MappingProxyType({flow.id: flow for flow in _flows(process)}),
        jobs=tuple(_jobs(elements)),
        messages=tuple(_message_catches(elements, messages)),
        catches=tuple(_error_catches(elements, errors)),
        calls=tuple(_process_calls(elements)),
        decisions=tuple(_decision_calls(elements)),
        timers=tuple(_timers(elements)),
        pictured=frozenset(
            shape.get("bpmnElement", "")
            for kind in ("BPMNShape", "BPMNEdge")
            for shape in root.iter(f"{_DI}{kind}")
            if len(shape)
        ),
        annotations=frozenset(
            item.get("id", "") for kind in ("textAnnotation", "association") for item in process.iter(f"{_BPMN}{kind}")
        ),
    )


def read_decisions(file: str, data: bytes) -> tuple[Decision, ...]:
    """Read the decisions of one file. Raises `DrawingError` when there is none."""
    root = _parse(file, data)
    pictured = {shape.get("dmnElementRef") for shape in root.iter(f"{_DMNDI}DMNShape")}
    found = tuple(
        Decision(file, item.get("id", ""), item.get("name", ""), item.get("id") in pictured)
        for item in root.iter(f"{_DMN}decision")
    )
    if not found:
        raise DrawingError(f"{file}: holds no decision; draw one with the file's name as its id")
    return found


def _parse(file: str, data: bytes) -> ElementTree.Element:
    def refuse(*_: object) -> NoReturn:
        raise DrawingError(f"{file}: declares a document type; remove the <!DOCTYPE ...>")

    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = refuse
    try:
        guard.Parse(data, True)
        return ElementTree.fromstring(data)  # noqa: S314  a document type was refused above, so there is no entity
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise DrawingError(f"{file}: is not well-formed XML ({error})") from None


Placed = tuple[ElementTree.Element, str | None]


def _elements(scope: ElementTree.Element, within: str | None = None) -> Iterator[Placed]:
    for child in scope:
        if not child.tag.startswith(_BPMN) or child.get("id") is None or _kind(child) in _NOT_NODES:
            continue
        yield child, within
        if _kind(child) in {"subProcess", "transaction", "adHocSubProcess"}:
            yield from _elements(child, child.get("id"))


def _kind(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(_BPMN)


def _definition(element: ElementTree.Element) -> ElementTree.Element | None:
    return next((child for child in element if child.tag.endswith(_DEFINITION)), None)


def _extension(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return element.find(f"{_BPMN}extensionElements/{_ZEEBE}{name}")


def _mappings(element: ElementTree.Element, direction: str) -> Mapping[str, str]:
    found = element.iterfind(f"{_BPMN}extensionElements/{_ZEEBE}ioMapping/{_ZEEBE}{direction}")
    return MappingProxyType({item.get("target", ""): item.get("source", "") for item in found})


def _each(element: ElementTree.Element) -> Mapping[str, str]:
    """The variable that holds one element of the collection for which this is done again and again, and the latter."""
    loop = element.find(f"{_BPMN}multiInstanceLoopCharacteristics")
    given = None if loop is None else _extension(loop, "loopCharacteristics")
    return {} if given is None else {given.get("inputElement", ""): given.get("inputCollection", "")}


def _node(element: ElementTree.Element, within: str | None) -> Node:
    definition = _definition(element)
    return Node(
        id=element.get("id", ""),
        kind=_kind(element),
        name=element.get("name", ""),
        incoming=tuple(item.text or "" for item in element.iterfind(f"{_BPMN}incoming")),
        outgoing=tuple(item.text or "" for item in element.iterfind(f"{_BPMN}outgoing")),
        event=None if definition is None else _kind(definition).removesuffix(_DEFINITION),
        event_id=None if definition is None else definition.get("id"),
        attached_to=element.get("attachedToRef"),
        default=element.get("default"),
        within=within,
        triggered_by_event=element.get("triggeredByEvent") == "true",
        inputs=MappingProxyType({**_mappings(element, "input"), **_each(element)}),
        outputs=_mappings(element, "output"),
    )


def _flows(process: ElementTree.Element) -> Iterator[Flow]:
    for item in process.iter(f"{_BPMN}sequenceFlow"):
        condition = item.findtext(f"{_BPMN}conditionExpression")
        yield Flow(
            item.get("id", ""), item.get("sourceRef", ""), item.get("targetRef", ""), item.get("name", ""), condition
        )


def _messages(root: ElementTree.Element) -> dict[str, tuple[str, str | None]]:
    found = {}
    for message in root.iter(f"{_BPMN}message"):
        subscription = _extension(message, "subscription")
        key = None if subscription is None else subscription.get("correlationKey")
        found[message.get("id", "")] = (message.get("name", ""), key)
    return found


def _jobs(elements: list[Placed]) -> Iterator[JobTask]:
    for element, _ in elements:
        definition = _extension(element, "taskDefinition")
        if definition is not None or _kind(element) in {"serviceTask", "sendTask"}:
            given = {} if definition is None else definition.attrib
            yield JobTask(element.get("id", ""), given.get("type", ""), given.get("retries"))


def _message_catches(elements: list[Placed], messages: Mapping[str, tuple[str, str | None]]) -> Iterator[MessageCatch]:
    for element, within in elements:
        definition = _definition(element)
        receives = _kind(element) == "receiveTask"
        if not receives and (definition is None or _kind(definition) != "messageEventDefinition"):
            continue
        if _kind(element) in {"endEvent", "intermediateThrowEvent"}:
            continue
        source = element if receives or definition is None else definition
        name, key = messages.get(source.get("messageRef", ""), ("", None))
        yield MessageCatch(element.get("id", ""), name, key, _kind(element) == "startEvent" and within is None)


def _error_catches(elements: list[Placed], errors: Mapping[str, str | None]) -> Iterator[ErrorCatch]:
    for element, _ in elements:
        definition = _definition(element)
        if _kind(element) == "boundaryEvent" and definition is not None and _kind(definition) == "errorEventDefinition":
            reference = definition.get("errorRef")
            yield ErrorCatch(
                element.get("id", ""),
                element.get("attachedToRef", ""),
                None if reference is None else errors.get(reference),
                frozenset(_mappings(element, "output")),
            )


def _process_calls(elements: list[Placed]) -> Iterator[ProcessCall]:
    for element, _ in elements:
        if _kind(element) == "callActivity":
            called = _extension(element, "calledElement")
            given = {} if called is None else called.attrib
            everything = given.get("propagateAllChildVariables", "true") != "false"
            outputs = frozenset(_mappings(element, "output"))
            yield ProcessCall(element.get("id", ""), given.get("processId", ""), None if everything else outputs)


def _decision_calls(elements: list[Placed]) -> Iterator[DecisionCall]:
    for element, _ in elements:
        called = _extension(element, "calledDecision")
        if called is not None:
            yield DecisionCall(element.get("id", ""), called.get("decisionId", ""), called.get("resultVariable", ""))


def _timers(elements: list[Placed]) -> Iterator[Timer]:
    for element, _ in elements:
        definition = _definition(element)
        if definition is not None and _kind(definition) == "timerEventDefinition":
            texts = [child.text or "" for child in definition if child.tag.startswith(f"{_BPMN}time")]
            yield Timer(element.get("id", ""), "".join(texts).strip())
