"""Reports over HTTP: what a merchant was told about a transfer, how the telling went, and where it is told (L56).

A partner reads the reports of its own merchants; another's are not found. A report comes as JSON exactly as it was
sent, as CSV, or as a page to print: by the suffix of the path, else by `Accept`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, SecretStr

from connectors.disbursement.access import TREASURY, Asker, ObjectId, TransferId, asking
from connectors.disbursement.notices import HowTold, NoticeStore, ReportAddress
from connectors.disbursement.pages import STRICT
from connectors.disbursement.wire import NOON, TRANSFER, example
from hub.addresses import LONGEST
from hub.api import Problem, not_valid
from ledger.disbursement.refusals import MerchantUnknown
from ledger.disbursement.report import Report, ReportKind, Reports
from ledger.disbursement.report_forms import as_csv, as_html

READERS: Final = ("treasury", "operator", "auditor")
"""Roles that may read all reports."""

Reading = Annotated[Asker, Depends(asking(*READERS, partner=True))]
Watching = Annotated[Asker, Depends(asking(*READERS))]
Deciding = Annotated[Asker, Depends(asking(TREASURY))]
Kind = Annotated[
    ReportKind | None, Query(description="`CORRECTION` when the money came back. The latest one when not said.")
]

_TYPES: Final = {"json": "application/json", "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"}
_FORMS: Final[Mapping[str, Callable[[Report], str]]] = {
    "json": lambda report: report.body,
    "csv": lambda report: as_csv(report.content),
    "html": lambda report: as_html(report.content),
}
_EXAMPLES: Final = {
    "json": {"type": "disbursement.settlement", "transferId": TRANSFER, "currency": "MXN", "amount": "1184.38"},
    "csv": "transfer_id,store_id,sequence,section,type,credit_id,currency,amount,commission,net,...",
    "html": "<!DOCTYPE html>...",
}
_NOTHING_FROM_ELSEWHERE: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class AddressBody(BaseModel):
    """Where a merchant is to be told its reports; without `url` it is not told."""

    model_config = example(
        url="https://merchant.example/hooks/reports",
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwX2Zq4nYxbpI=",  # noqa: S106 (an example)
        allowList=["https://merchant.example/hooks/"],
    )

    url: str | None = Field(default=None, max_length=LONGEST)
    secret: SecretStr | None = None
    """`whsec_` and base64 of 24 to 64 bytes; never shown again."""
    allow_list: list[Annotated[str, Field(max_length=LONGEST)]] = Field(default=[], max_length=32)


class AddressView(BaseModel):
    """Where a merchant is told its reports. The secret is not shown."""

    model_config = example(url="https://merchant.example/hooks/reports", allowList=["https://merchant.example/hooks/"])

    url: str | None
    allow_list: Sequence[str]


class AttemptView(BaseModel):
    """What came of telling a report once."""

    model_config = example(number=1, answer="204", at=NOON)

    number: int
    answer: str
    at: datetime


class DeliveryView(BaseModel):
    """How the telling of a report stands."""

    model_config = example(
        kind="SETTLEMENT",
        state="DELIVERED",
        attempts=1,
        endedAt=NOON,
        answers=[{"number": 1, "answer": "204", "at": NOON}],
    )

    kind: ReportKind
    state: str
    attempts: int
    ended_at: datetime | None
    answers: Sequence[AttemptView]

    @classmethod
    def of(cls, told: HowTold) -> DeliveryView:
        answers = [AttemptView(number=one.number, answer=one.answer, at=one.at) for one in told.answers]
        return cls(
            kind=told.kind, state=told.state.value, attempts=told.attempts, ended_at=told.ended_at, answers=answers
        )


class Deliveries(BaseModel):
    """How the telling of a transfer's reports stands; empty when the merchant has no address."""

    deliveries: Sequence[DeliveryView]


def _forms(*forms: str) -> dict[int | str, dict[str, Any]]:
    """What a report looks like in these forms, all of them unless told otherwise."""
    content = {_TYPES[form].partition(";")[0]: {"example": _EXAMPLES[form]} for form in forms or _TYPES}
    return {200: {"description": "The report.", "content": content}}


router = APIRouter(tags=["reports"])


@router.get("/transfers/{transfer_id}/report", response_class=Response, dependencies=STRICT, responses=_forms())
async def report(request: Request, who: Reading, transfer_id: TransferId, kind: Kind = None) -> Response:
    """What the merchant was told about a transfer, in the form that `Accept` prefers."""
    return await _report(request, who, transfer_id, kind, _preferred(request.headers.get("accept", "")))


@router.get(
    "/transfers/{transfer_id}/report.json", response_class=Response, dependencies=STRICT, responses=_forms("json")
)
async def report_as_json(request: Request, who: Reading, transfer_id: TransferId, kind: Kind = None) -> Response:
    """The JSON exactly as it was sent."""
    return await _report(request, who, transfer_id, kind, "json")


@router.get(
    "/transfers/{transfer_id}/report.csv", response_class=Response, dependencies=STRICT, responses=_forms("csv")
)
async def report_as_csv(request: Request, who: Reading, transfer_id: TransferId, kind: Kind = None) -> Response:
    """A line per balance update, and the total last."""
    return await _report(request, who, transfer_id, kind, "csv")


@router.get(
    "/transfers/{transfer_id}/report.html", response_class=Response, dependencies=STRICT, responses=_forms("html")
)
async def report_as_html(request: Request, who: Reading, transfer_id: TransferId, kind: Kind = None) -> Response:
    """A page to print."""
    return await _report(request, who, transfer_id, kind, "html")


@router.get("/transfers/{transfer_id}/report/deliveries", dependencies=STRICT)
async def deliveries(request: Request, who: Watching, transfer_id: TransferId) -> Deliveries:
    """How telling the merchant went, attempt by attempt."""
    if not await Reports(request.app.state.statements).find(who.tenant, transfer_id):
        raise _not_found()
    found = await NoticeStore(request.app.state.statements).how_told(who.tenant, transfer_id)
    return Deliveries(deliveries=[DeliveryView.of(one) for one in found])


@router.get("/merchants/{merchant_id}/report-address", dependencies=STRICT)
async def report_address(request: Request, who: Watching, merchant_id: ObjectId) -> AddressView:
    """Where a merchant is told its reports."""
    try:
        found = await NoticeStore(request.app.state.statements).address(who.tenant, merchant_id)
    except MerchantUnknown:
        raise _not_found() from None
    return AddressView(url=found.url, allow_list=found.allow_list)


@router.put("/merchants/{merchant_id}/report-address")
async def set_report_address(request: Request, who: Deciding, merchant_id: ObjectId, body: AddressBody) -> AddressView:
    """Tell the merchant there from now on, also what is still due."""
    secret = body.secret.get_secret_value() if body.secret else None
    try:
        address = ReportAddress(body.url, secret, tuple(body.allow_list))
    except ValueError as error:
        raise not_valid([{"pointer": "", "code": "not-valid", "detail": str(error)}]) from None
    try:
        await NoticeStore(request.app.state.statements).set_address(who.tenant, merchant_id, address, actor=who.actor)
    except MerchantUnknown:
        raise _not_found() from None
    return AddressView(url=address.url, allow_list=address.allow_list)


async def _report(request: Request, who: Asker, transfer_id: str, kind: ReportKind | None, form: str) -> Response:
    found = await Reports(request.app.state.statements).find(who.tenant, transfer_id)
    wanted = [one for one in found if kind in (None, one.kind) and who.partner in (None, one.partner)]
    if not wanted:
        raise _not_found()
    headers = {"Vary": "Accept"}
    if form == "html":
        headers["Content-Security-Policy"] = _NOTHING_FROM_ELSEWHERE
    elif form == "csv":
        headers["Content-Disposition"] = f'attachment; filename="report-{transfer_id}.csv"'
    return Response(_FORMS[form](wanted[-1]), media_type=_TYPES[form], headers=headers)


def _preferred(accept: str) -> str:
    """The form that `Accept` likes best; JSON when it does not mind. Raises the 406."""
    best, liked = "", 0.0
    for form, media_type in _TYPES.items():
        quality = _quality(accept or "*/*", media_type.partition(";")[0])
        if quality > liked:
            best, liked = form, quality
    if not best:
        raise Problem(406, "not-acceptable", f"A report comes as {', '.join(_TYPES.values())}.")
    return best


def _quality(accept: str, media_type: str) -> float:
    """How much a media type is liked: the most specific range that covers it decides (RFC 9110)."""
    found: dict[int, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        if name in ranges:
            given = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
            found[ranges.index(name)] = float(given) if given.replace(".", "", 1).isdecimal() else 0.0
    return found[min(found)] if found else 0.0


def _not_found() -> Problem:
    return Problem(404, "not-found", "There is no such report, merchant or transfer of yours.")
