"""The routes of Payment Hub EE's operations application that only read, as its web application asks them.

They live under `/ph-ee/api/v1`, so that whoever points that application at `<this service>/ph-ee` need not change it.
Words and shapes are Payment Hub EE's; what they say is ours: `status` comes from the outcome that the process wrote,
amounts keep their cents, a date that cannot be read is refused, a page's total counts rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hub.api import Caller, Problem, faults, not_valid
from hub.transfer import STATE_OF, Outcome
from operations_app.access import allowed
from operations_app.transfers.api import LISTED, OLDEST_FIRST, AnyIds, Reading, Records, clauses
from operations_app.transfers.filters import TransferFilter, any_of
from operations_app.transfers.ids import Ids
from operations_app.transfers.records import Accepted, PaymentRecords
from operations_app.transfers.wire import StepShown, money, variables_of
from operations_app.views import COUNTED, STEPS, TRANSFERS, Body, Found, Views
from operations_app.views import Query as Clause

router = APIRouter(prefix="/ph-ee/api/v1", tags=["Payment Hub EE"])
"""Included as it is."""

Reader = Annotated[Caller, Depends(allowed("transfers:read"))]

Status = Literal["IN_PROGRESS", "COMPLETED", "FAILED", "UNKNOWN"]

_OUTCOMES: Final[Mapping[Status, Sequence[Outcome]]] = {
    "COMPLETED": (Outcome.SETTLED,),
    "FAILED": (Outcome.REJECTED, Outcome.RETURNED, Outcome.CANCELLED),
    "UNKNOWN": (Outcome.UNKNOWN,),
}
_STATUS: Final[Mapping[str, Status]] = {
    STATE_OF[outcome].value: status for status, outcomes in _OUTCOMES.items() for outcome in outcomes
}
_SORTED_BY: Final = {"startedAt": "acceptedAt", "completedAt": "endedAt", "amount": "amount"}


_THEIRS: Final = {"acceptedFrom": "startFrom", "acceptedTo": "startTo"}
"""What they call our parameters, where the values need our own checks."""


def _instant(text: Any) -> Any:
    """`2026-11-21 08:00:00` in UTC, as their web application writes it, or RFC 3339."""
    if not isinstance(text, str):
        return text
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a date is written like 2026-11-21 08:00:00") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


PheeInstant = Annotated[datetime, BeforeValidator(_instant)]
Word = Annotated[str, Field(min_length=1, max_length=256)]


class PheeSearch(BaseModel):
    """Payment Hub EE's filters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    page: int = Field(0, ge=0, description="The first is 0.")
    size: int = Field(20, ge=1, le=200)
    payerPartyId: Word | None = None  # noqa: N815 -- their words
    payeePartyId: Word | None = None  # noqa: N815
    partyId: Word | None = None  # noqa: N815
    partyIdType: Word | None = None  # noqa: N815
    payerDfspId: Word | None = None  # noqa: N815
    payeeDfspId: Word | None = None  # noqa: N815
    transactionId: Word | None = None  # noqa: N815
    clientCorrelationId: Word | None = None  # noqa: N815
    status: Status | None = None
    amount: str | None = Field(None, pattern=r"^[0-9]{1,16}(\.[0-9]{1,4})?$")
    currency: str | None = Field(None, pattern="^[A-Z]{3}$")
    startFrom: PheeInstant | None = None  # noqa: N815
    startTo: PheeInstant | None = None  # noqa: N815
    direction: Literal["INCOMING", "OUTGOING"] | None = None
    sortedBy: Literal["startedAt", "completedAt", "amount"] = "startedAt"  # noqa: N815
    sortedOrder: Literal["ASC", "DESC"] = "DESC"  # noqa: N815

    @model_validator(mode="before")
    @classmethod
    def _as_their_application_asks(cls, asked: Any) -> Any:
        """A field that was left empty is sent empty, and an order is written as their tables write it."""
        if not isinstance(asked, Mapping):
            return asked
        given = {name: value for name, value in asked.items() if value != ""}
        if isinstance(order := given.get("sortedOrder"), str):
            given["sortedOrder"] = order.upper()
        return given

    def narrowed(self) -> TransferFilter:
        """The same in our words, as far as we have them."""
        asked = {
            "payer": self.payerPartyId,
            "payee": self.payeePartyId,
            "party": self.partyId,
            "payerBank": self.payerDfspId,
            "payeeBank": self.payeeDfspId,
            "correlationId": self.clientCorrelationId,
            "amount": self.amount,
            "currency": self.currency,
            "acceptedFrom": self.startFrom,
            "acceptedTo": self.startTo,
            "direction": self.direction,
        }
        try:
            return TransferFilter.model_validate({name: value for name, value in asked.items() if value is not None})
        except ValidationError as error:
            found = faults(error.errors(include_url=False, include_input=False), "query")
            raise not_valid(
                [one | {"parameter": _THEIRS.get(one["parameter"], one["parameter"])} for one in found]
            ) from None

    def rest(self) -> list[Clause]:
        """What our words have no filter for."""
        found: list[Clause] = []
        if self.transactionId is not None:
            found.append({"term": {"paymentId": self.transactionId}})
        if self.status == "IN_PROGRESS":
            found.append({"bool": {"must_not": [{"exists": {"field": "outcome"}}]}})
        elif self.status is not None:
            found.append({"terms": {"outcome": [outcome.value for outcome in _OUTCOMES[self.status]]}})
        if self.partyIdType is not None:
            sides = [
                side for side, id_ in (("payer", self.payerPartyId), ("payee", self.payeePartyId)) if id_ is not None
            ]
            found.append(
                any_of([{"term": {f"{side}.idType": self.partyIdType}} for side in sides or ("payer", "payee")])
            )
        return found


class PheeTransfer(BaseModel):
    """A transfer in Payment Hub EE's words. Parties are masked; `amount` is a decimal string."""

    workflowInstanceKey: str | None  # noqa: N815
    transactionId: str  # noqa: N815
    clientCorrelationId: str | None  # noqa: N815
    startedAt: str | None  # noqa: N815
    completedAt: str | None  # noqa: N815
    status: Status
    statusDetail: str | None  # noqa: N815
    payerPartyId: str | None  # noqa: N815
    payerPartyIdType: str | None  # noqa: N815
    payerDfspId: str | None  # noqa: N815
    payeePartyId: str | None  # noqa: N815
    payeePartyIdType: str | None  # noqa: N815
    payeeDfspId: str | None  # noqa: N815
    amount: str | None
    currency: str | None
    direction: str | None
    errorInformation: str | None  # noqa: N815

    @classmethod
    def of(cls, body: Body, accepted: Accepted | None) -> PheeTransfer:
        payer, payee = body.get("payer", {}), body.get("payee", {})
        amount = money(body.get("amount"), body.get("currency"))
        return cls(
            workflowInstanceKey=body.get("processInstanceKey"),
            transactionId=body["paymentId"],
            clientCorrelationId=accepted.correlation_id if accepted else None,
            startedAt=body.get("acceptedAt"),
            completedAt=body.get("endedAt"),
            status=_STATUS.get(body["state"], "IN_PROGRESS"),
            statusDetail=body.get("reasonDetail"),
            payerPartyId=payer.get("identifier"),
            payerPartyIdType=payer.get("idType"),
            payerDfspId=payer.get("bank"),
            payeePartyId=payee.get("identifier"),
            payeePartyIdType=payee.get("idType"),
            payeeDfspId=payee.get("bank"),
            amount=amount.amount if amount else None,
            currency=body.get("currency"),
            direction=body.get("direction"),
            errorInformation=None if body.get("reason") in {None, "none"} else body["reason"],
        )


class PheePage(BaseModel):
    """A page as Spring's clients know it."""

    content: Sequence[PheeTransfer]
    totalElements: int  # noqa: N815
    totalPages: int  # noqa: N815
    number: int
    size: int
    numberOfElements: int  # noqa: N815
    first: bool
    last: bool
    empty: bool


class PheeTask(BaseModel):
    """A job, or another step that somebody else does."""

    workflowInstanceKey: str  # noqa: N815
    elementId: str | None  # noqa: N815
    type: str | None
    intent: str
    timestamp: str | None
    recordType: Literal["EVENT"] = "EVENT"  # noqa: N815


class PheeVariable(BaseModel):
    """A variable, masked."""

    workflowInstanceKey: str  # noqa: N815
    name: str
    value: Any
    timestamp: str


class PheeDetail(BaseModel):
    """A transfer with what happened."""

    transfer: PheeTransfer
    tasks: Sequence[PheeTask]
    variables: Sequence[PheeVariable]


class PheeBatches(BaseModel):
    """Batches; there are none yet, which the zeros say."""

    totalBatches: int = 0  # noqa: N815
    totalTransactions: int = 0  # noqa: N815
    totalAmount: str = "0"  # noqa: N815
    totalSubBatches: int = 0  # noqa: N815
    data: Sequence[Mapping[str, Any]] = ()


@router.get("/transfers")
async def phee_transfers(
    request: Request,
    who: Reader,
    views: Reading,
    ids: AnyIds,
    *,
    records: Records,
    asked: Annotated[PheeSearch, Query()],
) -> PheePage:
    """Transfers by page and size. Pages reach as far as the first 10,000; beyond, `/api/v1/transfers` has cursors."""
    return await _page(request, who, views, ids, records=records, asked=asked)


@router.get("/transactionRequests")
async def phee_transaction_requests(_: Reader, asked: Annotated[PheeSearch, Query()]) -> PheePage:
    """Requests to pay: none, since this hub has none yet."""
    return _as_page([], 0, asked)


@router.get("/transfer/{workflow_instance_key}")
async def phee_transfer(
    who: Reader,
    views: Reading,
    records: Records,
    workflow_instance_key: Annotated[str, Path(max_length=32, pattern="^[0-9]+$")],
) -> PheeDetail:
    """A transfer by the key of any of its process instances."""
    body = await _by_instance(views, who, workflow_instance_key)
    accepted = await records.accepted(who.tenant, [body["paymentId"]])
    steps = await _steps(views, who, body["paymentId"])
    return PheeDetail(
        transfer=PheeTransfer.of(body, accepted.get(body["paymentId"])),
        tasks=_tasks(steps),
        variables=_variables(steps),
    )


BusinessKey = Annotated[str, Query(alias="businessKey", min_length=1, max_length=256)]
KeyType = Annotated[
    Literal["transactionId"], Query(alias="businessKeyType", description="Any of our ids is taken for one.")
]


@router.get("/variables")
async def phee_variables(
    who: Reader, views: Reading, ids: AnyIds, key: BusinessKey, _: KeyType = "transactionId"
) -> list[PheeVariable]:
    """The newest values of a transfer's variables, masked."""
    return _variables(await _steps(views, who, await _payment(ids, who, key)))


@router.get("/tasks")
async def phee_tasks(
    who: Reader, views: Reading, ids: AnyIds, key: BusinessKey, _: KeyType = "transactionId"
) -> list[PheeTask]:
    """The jobs of a transfer's processes, in the order in which they began."""
    return _tasks(await _steps(views, who, await _payment(ids, who, key)))


@router.get("/batches")
async def phee_batches(_: Reader) -> PheeBatches:
    """Batches: none, since this hub takes in none yet."""
    return PheeBatches()


# --- What the routes share


async def _page(
    request: Request,
    who: Caller,
    views: Views,
    ids: Ids,
    *,
    records: PaymentRecords,
    asked: PheeSearch,
) -> PheePage:
    skipped = asked.page * asked.size
    if skipped + asked.size > COUNTED:
        fault = {"parameter": "page", "code": "too-deep", "detail": f"Pages reach as far as row {COUNTED}."}
        raise not_valid([fault])
    order = {"order": asked.sortedOrder.lower(), "missing": "_last"}
    page = await views.search(
        TRANSFERS,
        who.tenant,
        filters=[*await clauses(request, who, asked.narrowed(), ids), *asked.rest()],
        sort=[{_SORTED_BY[asked.sortedBy]: order}, {"paymentId": {"order": asked.sortedOrder.lower()}}],
        size=asked.size,
        skip=skipped,
        fields=[*LISTED, "reasonDetail"],
    )
    accepted = await records.accepted(who.tenant, [hit.body["paymentId"] for hit in page.hits])
    rows = [PheeTransfer.of(hit.body, accepted.get(hit.body["paymentId"])) for hit in page.hits]
    return _as_page(rows, page.total, asked)


def _as_page(rows: Sequence[PheeTransfer], total: int, asked: PheeSearch) -> PheePage:
    pages = -(-total // asked.size)
    return PheePage(
        content=rows,
        totalElements=total,
        totalPages=pages,
        number=asked.page,
        size=asked.size,
        numberOfElements=len(rows),
        first=asked.page == 0,
        last=asked.page >= pages - 1,
        empty=not rows,
    )


async def _by_instance(views: Views, who: Caller, key: str) -> Body:
    page = await views.search(
        TRANSFERS,
        who.tenant,
        filters=[{"term": {"instanceKeys": key}}],
        sort=[{"paymentId": "asc"}],
        size=1,
        count=False,
    )
    if not page.hits:
        raise _not_found()
    return page.hits[0].body


async def _payment(ids: Ids, who: Caller, key: str) -> str:
    found = await ids.matches(who.tenant, key)
    if not found:
        raise _not_found()
    return found[0].payment_id


async def _steps(views: Views, who: Caller, payment_id: str) -> Sequence[Found]:
    page = await views.search(
        STEPS,
        who.tenant,
        filters=[{"term": {"paymentId": payment_id}}],
        sort=OLDEST_FIRST,
        size=1000,
        count=False,
    )
    return page.hits


def _tasks(steps: Sequence[Found]) -> list[PheeTask]:
    jobs = (StepShown.of(hit) for hit in steps if hit.body.get("jobType"))
    return [
        PheeTask(
            workflowInstanceKey=job.process_instance_key,
            elementId=job.element_id,
            type=job.job_type,
            intent=job.job_state or job.state,
            timestamp=job.ended_at or job.started_at,
        )
        for job in jobs
    ]


def _variables(steps: Sequence[Found]) -> list[PheeVariable]:
    return [
        PheeVariable(workflowInstanceKey=one.process_instance_key, name=one.name, value=one.value, timestamp=one.at)
        for hit in steps
        if hit.body.get("elementType") == "PROCESS"
        for one in variables_of(hit)
    ]


def _not_found() -> Problem:
    return Problem(404, "not-found", "Your tenant has no such transfer.")
