"""A job type is a class: its name, its inputs, its result and the refusals it may raise, in one place.

    class HoldFunds(Job[FundsHeld]):
        '''Set the payer's money aside. Safe to run twice: the operation id comes from the payment.'''
        job_type = "ams.hold-funds"
        rejections = (AccountUnknown, InsufficientFunds)
        payment_id: PaymentId
        total: int

    class AmsWorker:
        @handles(HoldFunds)
        async def hold_funds(self, job: HoldFunds) -> FundsHeld: ...

The fields are exactly the variables fetched from the engine; the fields of the result are exactly those written.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr

from hub.errors import Rejected

_MARK: Final = "__payhub_handles__"


class Result(BaseModel):
    """What a job writes back into the process. A job that writes nothing returns `Result()`."""

    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the engine, not the process, knows of a job."""

    key: int
    process_instance_key: int
    process_id: str
    element_id: str
    retries: int
    deadline: float
    """Seconds since the epoch; after it the engine hands the job to somebody else."""


R_co = TypeVar("R_co", bound=Result, covariant=True)


class Job(BaseModel, Generic[R_co]):
    """One unit of work that the engine asks for."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)

    job_type: ClassVar[str]
    """`<connector>.<verb>-<noun>`, as drawn."""

    rejections: ClassVar[tuple[type[Rejected], ...]] = ()
    """Every refusal the handler may raise; each must be caught where the job is drawn."""

    timeout: ClassVar[timedelta] = timedelta(seconds=60)
    """How long the engine waits before it gives the job to somebody else: longer than the slowest outside call."""

    attempts: ClassVar[int] = 60
    """How often an `Unavailable` or `Uncertain` job is tried before an operator sees an incident: nearly an hour."""

    backoff: ClassVar[timedelta] = timedelta(milliseconds=500)
    """The first pause; it doubles each time, with jitter, up to a minute."""

    _facts: JobFacts | None = PrivateAttr(default=None)

    @property
    def facts(self) -> JobFacts:
        """The engine's facts. Raises `LookupError` for a job that no engine handed out."""
        if self._facts is None:
            raise LookupError("this job was not handed out by an engine; pass facts in the test kit")
        return self._facts

    def with_facts(self, facts: JobFacts) -> None:
        """Attach the engine's facts; called once by the worker runtime."""
        self._facts = facts

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """The names of the process variables that this job reads."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def result_type(cls) -> type[Result]:
        """The class of the answer, as written in `Job[...]`."""
        for base in cls.__mro__:
            arguments: tuple[Any, ...] = getattr(base, "__pydantic_generic_metadata__", {}).get("args", ())
            for argument in arguments:
                if inspect.isclass(argument) and issubclass(argument, Result):
                    return argument
        raise TypeError(f"{cls.__name__} must be declared as Job[ItsResult]")


J = TypeVar("J", bound=Job[Any])
R = TypeVar("R", bound=Result)
W = TypeVar("W")


def handles(job: type[J]) -> Callable[[Callable[[W, J], Awaitable[R]]], Callable[[W, J], Awaitable[R]]]:
    """Mark a method as the one that does `job`. It only marks; the runtime finds marked methods and calls them."""

    def mark(handler: Callable[[W, J], Awaitable[R]]) -> Callable[[W, J], Awaitable[R]]:
        setattr(handler, _MARK, job)
        return handler

    return mark


@dataclass(frozen=True, slots=True)
class Handler:
    """A job class and the bound method that does it."""

    job: type[Job[Any]]
    run: Callable[[Any], Awaitable[Result]]


def handled_by(worker_class: type[object]) -> tuple[type[Job[Any]], ...]:
    """The job classes that a worker class does, without opening anything."""
    found = (getattr(member, _MARK, None) for _, member in inspect.getmembers(worker_class, inspect.isfunction))
    return tuple(job for job in found if job is not None)


def handlers_of(workers: Iterable[object]) -> tuple[Handler, ...]:
    """The handlers of these worker objects. Raises `ValueError` when two would do the same job type."""
    found: dict[str, Handler] = {}
    for worker in workers:
        for _, method in inspect.getmembers(worker, inspect.ismethod):
            job = getattr(method.__func__, _MARK, None)
            if job is None:
                continue
            if job.job_type in found:
                raise ValueError(f"{job.job_type} has two handlers")
            found[job.job_type] = Handler(job, method)
    return tuple(found.values())
