"""What a handler's result, or its exception, means to the engine. Pure, without pyzeebe; the test kit uses it too.

    the result                      → Completed   its variables go into the process
    Rejected, declared by the job   → Thrown      BPMN error `code()`, with outcome, reason and reason_detail
    Unavailable, Uncertain          → Failed      tried again after a growing pause; after the last try an incident
    no answer within the deadline   → Failed      the same, because it may have been done (`Uncertain`)
    anything else                   → Failed      an incident at once: trying a defect again does not mend it

The engine keeps one number per job, its retries, which starts as drawn (3 when nothing is drawn). How often a job is
tried is said by its class, so this number carries our count as `COUNTED` + tries left from the first failure on. Any
smaller number is not ours: the job is new, or an operator has just given it retries, and it gets its full set of tries.
"""

from __future__ import annotations

import asyncio
import json
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pydantic import ValidationError

from hub.errors import Rejected, Unavailable, Uncertain
from hub.jobs import Handler, Job, Result
from hub.telemetry import MASK, redact_text
from hub.transfer import Outcome
from hub.zeebe.pauses import job_pause

COUNTED: Final = 1000
"""Retries from here on carry our own count; drawings and operators stay below."""

_MESSAGE_LENGTH: Final = 300
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_NOT_SECRET: Final = frozenset({"payment_id", "tenant_id", "currency"})


@dataclass(frozen=True, slots=True)
class Completed:
    """Done. `result` is what the handler returned."""

    result: Result

    @property
    def variables(self) -> dict[str, Any]:
        """What goes into the process."""
        return self.result.model_dump(mode="json", by_alias=True)

    def json(self) -> str:
        return self.result.model_dump_json(by_alias=True)


@dataclass(frozen=True, slots=True)
class Thrown:
    """A businesslike no: the drawing has a path for `code`."""

    code: str
    variables: Mapping[str, str]
    message: str

    def json(self) -> str:
        return json.dumps(self.variables)


@dataclass(frozen=True, slots=True)
class Failed:
    """Not done, or nobody knows. With no tries left an operator sees an incident."""

    tries_left: int
    back_off: timedelta
    message: str
    error: BaseException | None = field(default=None, compare=False, repr=False)

    @property
    def incident(self) -> bool:
        return self.tries_left == 0

    @property
    def retries(self) -> int:
        """The number given to the engine."""
        return COUNTED + self.tries_left if self.tries_left else 0


Ending = Completed | Thrown | Failed


def tries_left(retries: int, attempts: int) -> int:
    """How many tries a job still has, the coming one included, from the engine's number and the class's `attempts`."""
    counted = retries - COUNTED
    return min(counted, attempts) if counted > 0 else attempts


async def settle(handler: Handler, job: Job[Any], tries: int, within: float | None = None) -> Ending:
    """Run the handler and say what became of the job. Cancellation passes through.

    `tries` counts this one too. After `within` seconds the handler is interrupted and the job counts as uncertain.
    """
    try:
        async with asyncio.timeout(within) as clock:
            result = await handler.run(job)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled us: something the handler waited for was cancelled under it.
        return _again(Uncertain("what the handler waited for was cancelled"), job, tries)
    except Exception as error:  # noqa: BLE001 - every failure has one of four meanings
        late = isinstance(error, TimeoutError) and clock.expired()
        return _meaning(Uncertain(f"no answer from the handler within {within:.0f} s") if late else error, job, tries)
    wanted = _result_type(type(job))
    if not isinstance(result, wanted):
        return _defect(TypeError(f"the answer is {type(result).__name__}, not {wanted.__name__}"), job)
    return Completed(result)


@cache
def _result_type(job: type[Job[Any]]) -> type[Result]:
    return job.result_type()


def _meaning(error: Exception, job: Job[Any], tries: int) -> Ending:
    match error:
        case Rejected():
            return _thrown(error, job)
        case Unavailable() | Uncertain():
            return _again(error, job, tries)
        case _:
            return _defect(error, job)


def misfit(job: type[Job[Any]], error: Exception) -> Failed:
    """The variables in the process do not fit the job class: an incident that names the fields and shows no value."""
    found = faults(error) if isinstance(error, ValidationError) else type(error).__name__
    return Failed(0, timedelta(), f"the variables do not fit {job.__name__}: {found}", error)


def unwritable(error: Exception) -> Failed:
    """The handler's answer cannot be written as variables, or is too large for them: an incident, without the value."""
    told = str(error) if type(error) is ValueError else type(error).__name__
    return Failed(0, timedelta(), f"the answer cannot be written into the process: {told}", error)


def faults(error: ValidationError) -> str:
    """What pydantic found, as `payer.id_type (enum), amount (missing)`: names and kinds, never values."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        # A part of the path can be a key of a mapping, which is data; what does not look like a field name is masked.
        path = ".".join(p if isinstance(p, str) and _PLAIN_NAME.fullmatch(p) else "*" for p in one["loc"])
        found.append(f"{path or 'the whole'} ({one['type'].replace('_', ' ')})")
    return ", ".join(found)[:_MESSAGE_LENGTH]


def _thrown(refusal: Rejected, job: Job[Any]) -> Ending:
    code = refusal.code()
    if not any(isinstance(refusal, declared) and code == declared.code() for declared in job.rejections):
        return _defect(
            refusal, job, f"{type(refusal).__name__} ({code}) is not among the rejections of {type(job).__name__}"
        )
    detail = redact_text(refusal.detail)
    variables = {"outcome": Outcome.REJECTED.value, "reason": code, "reason_detail": detail}
    return Thrown(code, variables, detail or code)


def _again(trouble: Unavailable | Uncertain, job: Job[Any], tries: int) -> Failed:
    left = max(0, tries - 1)
    tried = max(1, job.attempts - left)
    message = f"{type(trouble).__name__}: {_scrubbed(str(trouble), job)} (try {tried} of {job.attempts})"
    pause = job_pause(job.backoff, tried, trouble.after) if left else timedelta()
    return Failed(left, pause, message, trouble)


def _defect(error: BaseException, job: Job[Any], message: str = "") -> Failed:
    if not message:
        said = faults(error) if isinstance(error, ValidationError) else _scrubbed(str(error), job)
        message = f"{type(error).__name__}: {said}" if said else type(error).__name__
    place = _place(error.__traceback__)
    return Failed(0, timedelta(), f"{message}{f' at {place}' if place else ''}", error)


def _scrubbed(text: str, job: Job[Any]) -> str:
    """The first line of an error's text, without anything that looks personal and without the job's own variables."""
    line = text.strip().partition("\n")[0]
    for value in sorted(set(_leaves(job.model_dump(mode="json", exclude=set(_NOT_SECRET)))), key=len, reverse=True):
        if value in line:
            line = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", MASK, line)
    return redact_text(line)[:_MESSAGE_LENGTH]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None and not isinstance(value, bool) and str(value).strip():
        yield str(value)


def _place(trace: TracebackType | None) -> str:
    """Where it happened: the innermost frame, as `store.py:41 hold`."""
    frames = traceback.extract_tb(trace)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else ""


def stack(error: BaseException) -> str:
    """The frames of an error for the log, without its text, because the text of a stranger's error may hold data."""
    while error.__cause__ is not None:
        error = error.__cause__
    return "".join(traceback.format_tb(error.__traceback__)[-8:])
