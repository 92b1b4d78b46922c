"""What a search for payments asks, and how Elasticsearch understands it: terms and ranges, never a query language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from exporters.operations import NOTHING_TO_PAY
from exporters.privacy import search_digest
from hub.api import not_valid
from hub.money import MINOR_DIGITS, BadMoney, Money
from hub.transfer import Outcome, Rail, TransferState
from operations_app.cursors import MAX_LIMIT
from operations_app.views import Query
from operations_app.wire import moment

Sort = Literal["-acceptedAt", "acceptedAt", "-updatedAt", "-amount", "amount"]

SORTS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    sort: (
        {sort.lstrip("-"): {"order": order, "missing": "_last"}},
        {"paymentId": {"order": order}},  # unique: where a page ends is never in doubt
    )
    for sort, order in (
        ("-acceptedAt", "desc"),
        ("acceptedAt", "asc"),
        ("-updatedAt", "desc"),
        ("-amount", "desc"),
        ("amount", "asc"),
    )
}


def _known_currency(code: str) -> str:
    if code not in MINOR_DIGITS:
        raise ValueError("not an ISO 4217 currency")
    return code


def _within_a_lifetime(instant: datetime) -> datetime:
    if not 1970 <= instant.year < 2200:
        raise ValueError("an instant from 1970 to 2200")
    return instant


Instant = Annotated[AwareDatetime, AfterValidator(_within_a_lifetime)]
Word = Annotated[str, Field(min_length=1, max_length=256)]
Words = Annotated[list[Word], Field(default_factory=list, max_length=50)]
Decimal = Annotated[str, Field(pattern=r"^[0-9]{1,16}(\.[0-9]{1,4})?$", examples=["1250.00"])]


class Asking(BaseModel):
    """Base of what a list can be asked; its fields are the query's parameters."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class TransferFilter(Asking):
    """Which payments. Different parameters narrow; a parameter that stands twice widens."""

    id: Word | None = Field(None, description="Any id: payment, correlation id, process instance or tracking key.")
    correlation_id: Word | None = Field(None, description="The channel's `X-CorrelationID`.")
    state: list[TransferState] = Field([], description="As the channel is told.")
    outcome: list[Outcome] = Field([], description="How it ended.")
    reason: Words
    direction: Literal["INCOMING", "OUTGOING"] | None = None
    rail: list[Rail] = []
    payer: Word | None = Field(None, description="The payer's whole identifier.", examples=["525511110001"])
    payee: Word | None = Field(None, description="The payee's whole identifier.", examples=["012180001183597198"])
    party: Word | None = Field(None, description="The whole identifier of either.")
    payer_bank: Word | None = Field(None, description="The first three digits of the payer's CLABE.", examples=["646"])
    payee_bank: Word | None = Field(None, description="The first three digits of the payee's CLABE.", examples=["012"])
    currency: Annotated[str, AfterValidator(_known_currency)] | None = Field(None, examples=["MXN"])
    amount: Decimal | None = Field(None, description="Exactly so much; needs `currency`.")
    amount_from: Decimal | None = Field(None, description="At least so much; needs `currency`.")
    amount_to: Decimal | None = Field(None, description="At most so much; needs `currency`.")
    accepted_from: Instant | None = Field(None, description="The first instant, with its time zone.")
    accepted_to: Instant | None = Field(None, description="The first instant that no longer counts.")
    ended_from: Instant | None = None
    ended_to: Instant | None = None
    step: list[Word] = Field([], description="The element where it stands.", examples=[["wait-for-operator"]])
    process: list[Word] = Field([], description="The process that runs it.", examples=[["payer-transfer"]])
    process_state: list[Literal["ACTIVE", "COMPLETED", "TERMINATED"]] = []
    incident: bool | None = Field(None, description="Whether an incident is open.")
    reference_number: Word | None = None
    q: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Words of the concept or of the reason's detail, a tracking key or a reference number."
    )

    def clauses(self, search_secret: bytes | None) -> list[Query]:
        """All but the ids, which other tables know. Raises the 422 for what cannot be asked together."""
        found: list[Query] = []
        for field, values in (
            ("state", self.state),
            ("outcome", self.outcome),
            ("reason", self.reason),
            ("rail", self.rail),
            ("currentSteps", self.step),
            ("processId", self.process),
            ("processState", self.process_state),
        ):
            if values:
                found.append({"terms": {field: [str(value) for value in values]}})
        for field, value in (
            ("direction", self.direction),
            ("payer.bank", self.payer_bank),
            ("payee.bank", self.payee_bank),
            ("currency", self.currency),
            ("referenceNumber", self.reference_number),
        ):
            if value is not None:
                found.append({"term": {field: value}})
        if self.id is None and NOTHING_TO_PAY not in self.reason:  # it never became a payment
            found.append({"bool": {"must_not": [{"term": {"reason": NOTHING_TO_PAY}}]}})
        return [*found, *self._parties(search_secret), *self._amounts(), *self._instants(), *self._rest()]

    def _parties(self, secret: bytes | None) -> list[Query]:
        found: list[Query] = []
        for name, fields in (("payer", ["payer"]), ("payee", ["payee"]), ("party", ["payer", "payee"])):
            identifier: str | None = getattr(self, name)
            if identifier is None:
                continue
            if secret is None:
                raise _refused(name, "not-available", "Without PAYHUB_EXPORT_SEARCH_SECRET no party can be found.")
            digest = search_digest(secret, identifier)
            found.append(any_of([{"term": {f"{field}.digest": digest}} for field in fields]))
        return found

    def _amounts(self) -> list[Query]:
        bounds = {
            bound: self._minor(name)
            for bound, name in (("gte", "amount_from"), ("lte", "amount_to"))
            if getattr(self, name) is not None
        }
        if len(bounds) == 2 and bounds["gte"] > bounds["lte"]:
            raise _refused("amountTo", "not-valid", "It is less than amountFrom.")
        found: list[Query] = [{"range": {"amount": bounds}}] if bounds else []
        if self.amount is not None:
            found.append({"term": {"amount": self._minor("amount")}})
        return found

    def _minor(self, name: str) -> int:
        if self.currency is None:
            raise _refused("currency", "missing", "An amount is asked for with its currency.")
        try:
            return Money.parse(str(getattr(self, name)), self.currency).minor
        except BadMoney as error:
            raise _refused(to_camel(name), "not-valid", str(error)) from None

    def _instants(self) -> list[Query]:
        spans = (
            ("acceptedAt", self.accepted_from, self.accepted_to),
            ("endedAt", self.ended_from, self.ended_to),
        )
        return [within(field, since, until) for field, since, until in spans if since or until]

    def _rest(self) -> list[Query]:
        found: list[Query] = []
        if self.incident is not None:
            has: Query = {"exists": {"field": "openIncidents"}}
            found.append(has if self.incident else {"bool": {"must_not": [has]}})
        if self.q is not None:
            words = {"query": self.q, "fields": ["concept", "reasonDetail"], "operator": "and", "type": "cross_fields"}
            exact: list[Query] = [{"term": {field: self.q}} for field in ("trackingKey", "referenceNumber")]
            found.append(any_of([{"multi_match": words}, *exact]))
        return found


class TransferSearch(TransferFilter):
    """Which payments, in which order, and how many at once."""

    sort: Sort = "-acceptedAt"
    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="The most rows of a page.")
    cursor: str | None = Field(None, max_length=1024, description="`nextCursor` of the page before.")


def any_of(queries: Sequence[Query]) -> Query:
    """One of these at least."""
    return queries[0] if len(queries) == 1 else {"bool": {"should": list(queries), "minimum_should_match": 1}}


def within(field: str, since: datetime | None, until: datetime | None) -> Query:
    """A span of time, its beginning included and not its end. Raises the 422 when it ends before it begins."""
    if since is not None and until is not None and since > until:
        name = "at" if field == "@timestamp" else field.removesuffix("At")
        raise _refused(f"{name}To", "not-valid", f"It is before {name}From.")
    span = {bound: moment(at) for bound, at in (("gte", since), ("lt", until)) if at is not None}
    return {"range": {field: span}}


def _refused(parameter: str, code: str, detail: str) -> Exception:
    return not_valid([{"parameter": parameter, "code": code, "detail": detail}])
