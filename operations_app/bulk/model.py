"""The words of bulk operations, and what they need of single actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from hub.transfer import PaymentId, TenantId

MOST_ITEMS: Final = 5_000


class BulkState(StrEnum):
    """How a bulk operation stands."""

    REQUESTED = "REQUESTED"
    """Waits for approvals."""
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    """No item begins; those that were begun end."""
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"
    EXPIRED = "EXPIRED"


class ItemState(StrEnum):
    """How one payment of the list stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    """Its action is being made."""
    SENT = "SENT"
    """Its action is made and not yet confirmed."""
    DONE = "DONE"
    """Confirmed; in a dry run, possible."""
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Item:
    """One payment of a bulk operation that is to be acted on."""

    bulk_id: str
    position: int
    round: int
    tenant_id: TenantId
    payment_id: PaymentId
    kind: str
    asked: Mapping[str, Any]
    """The action's own parameters, as its API takes them."""
    reason_code: str
    reason: str
    requested_by: str
    roles: Sequence[str]
    approved_by: Sequence[str]
    """Who approved the whole list; never `requested_by`."""
    dry_run: bool

    @property
    def idempotency_key(self) -> str:
        """The same however often this is tried: whoever dies half-way makes no second action."""
        return f"bulk:{self.bulk_id}:{self.position}:{self.round}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a single action stands. `confirmed`: nothing while it is open."""

    confirmed: bool | None
    code: str | None = None
    detail: str | None = None


class ItemRefused(Exception):
    """This payment cannot be acted on like that. `detail` holds no personal data."""

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


class SingleActions(Protocol):
    """What makes one action for one payment. Every method may raise `Unavailable`."""

    async def check(self, item: Item) -> None:
        """Whether it would be possible now. Raises `ItemRefused`."""
        ...

    async def make(self, item: Item) -> str:
        """Make the item's action and return its id; a second call with the same key returns the same id.

        The list's approvals count as the action's own. Raises `ItemRefused`.
        """
        ...

    async def find(self, item: Item) -> str | None:
        """The id of the item's action, if somebody made it."""
        ...

    async def standings(self, tenant_id: TenantId, action_ids: Sequence[str]) -> Mapping[str, Standing]:
        """How these actions stand."""
        ...


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """What is asked for by a bulk operation."""

    id: str
    tenant_id: TenantId
    kind: str
    asked: Mapping[str, Any]
    selection: Mapping[str, Any]
    reason_code: str
    reason: str
    dry_run: bool
    per_second: int
    at_once: int
    approvals_needed: int


@dataclass(frozen=True, slots=True)
class Bulk(BulkRequest):
    """A bulk operation as its row has it, with the counts of its items."""

    state: BulkState
    items: int
    totals: Mapping[str, int]
    """Minor units per currency."""
    list_sha256: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    request_hash: bytes
    expired: bool
    counts: Mapping[str, int]
    """Items by state."""


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One payment of the list as it stands."""

    position: int
    payment_id: str
    amount: int
    currency: str
    state: ItemState
    round: int
    attempts: int
    action_id: str | None
    code: str | None
    detail: str | None
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Chosen:
    """A payment that a selection found."""

    payment_id: str
    amount: int
    """Minor units."""
    currency: str
