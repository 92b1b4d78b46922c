"""Payment options: what a purchase may be paid by, which of them applies, and who has validated it (L48 to L53).

An option applies when it is active and validated, the instant lies in [start, end] and the amount in [min, max] (L49).
Of those that apply for the same number of payments the one with the smaller priority is offered: 1 goes before 2, and
of equal ones the smaller id goes first, so that the same question always has the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, LiteralString

import psycopg

from hub.statements import Statements
from ledger.disbursement.edits import Action, Connection, Object, lock_store, record, reset_store
from ledger.disbursement.model import StoreUnknown
from ledger.disbursement.refusals import AlreadyExists, OptionUnknown

RATES: Final = tuple(f"{letter}{number}" for letter in "abc" for number in range(4))
"""`a0` to `c3`."""


class OptionType(StrEnum):
    """Who bears the cost of paying later."""

    INTEREST = "INTEREST"
    INTEREST_FREE = "INTEREST_FREE"


@dataclass(frozen=True, slots=True)
class PaymentOption:
    """All of L48. Rates, discount and commission are basis points, amounts minor units of MXN, bounds are included."""

    id: str
    merchant_id: str
    store_id: str
    code: str
    type: OptionType
    active: bool
    payments: int
    starts_at: datetime
    ends_at: datetime
    priority: int
    min_amount: int
    max_amount: int
    merchant_commission: int | None = None
    """None: the standard rate of the store or merchant is charged."""
    discount: int = 0
    first_payment_month_shift: int = 0
    promotion: bool = False
    auto_update: bool = False
    trial: bool = False
    trial_ends_at: datetime | None = None
    validated: bool = False
    rates: Mapping[str, int] = field(default_factory=dict)
    """`a0` to `c3`; those that are absent are 0."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for what contradicts itself."""
        if self.ends_at < self.starts_at:
            raise ValueError("the end must not come before the start")
        if self.max_amount < self.min_amount:
            raise ValueError("the largest amount must not be below the smallest")
        if self.trial != (self.trial_ends_at is not None):
            raise ValueError("a trial needs its end, and only a trial has one")
        if unknown := self.rates.keys() - set(RATES):
            raise ValueError(f"there is no rate {', '.join(sorted(unknown))}; there are a0 to c3")
        object.__setattr__(self, "rates", {name: self.rates.get(name, 0) for name in RATES})

    def on_trial(self, at: datetime) -> bool:
        """Whether the trial still runs (L50)."""
        return self.trial_ends_at is not None and at <= self.trial_ends_at

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def applies(option: PaymentOption, amount: int, at: datetime) -> bool:
    """Whether an option may be used for this amount (minor units) now (L49)."""
    return (
        option.active
        and option.validated
        and option.starts_at <= at <= option.ends_at
        and option.min_amount <= amount <= option.max_amount
    )


def matching(options: Iterable[PaymentOption], amount: int, at: datetime) -> list[PaymentOption]:
    """One option per number of payments, fewest payments first (L49)."""
    best: dict[int, PaymentOption] = {}
    for option in sorted(options, key=lambda one: (one.priority, one.id)):
        if applies(option, amount, at):
            best.setdefault(option.payments, option)
    return [best[payments] for payments in sorted(best)]


_EDITABLE: Final = tuple(
    one.name for one in fields(PaymentOption) if one.name not in {"id", "merchant_id", "store_id", "validated", "rates"}
)
_COLUMNS: Final = ("id", "merchant_id", "store_id", "validated", *_EDITABLE, *RATES)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM disbursement.payment_option "  # noqa: S608 -- names of columns
_INSERT: Final = (
    f"INSERT INTO disbursement.payment_option (tenant_id, {', '.join(_COLUMNS)}) "  # noqa: S608
    f"VALUES (%(tenant)s, {', '.join(f'%({name})s' for name in _COLUMNS)})"
)
_UPDATE: Final = (
    f"UPDATE disbursement.payment_option SET validated = false, "  # noqa: S608
    f"{', '.join(f'{name} = %({name})s' for name in (*_EDITABLE, *RATES))} "
    "WHERE tenant_id = %(tenant)s AND id = %(id)s"
)
_VALIDATE: Final = (
    "UPDATE disbursement.payment_option SET validated = true WHERE tenant_id = %(tenant)s AND id = %(id)s"
)
_ONE: Final = _SELECT + "WHERE tenant_id = %(tenant)s AND id = %(id)s"
_OF_STORE: Final = (
    _SELECT + "WHERE tenant_id = %(tenant)s AND store_id = %(store)s AND id > %(after)s ORDER BY id LIMIT %(limit)s"
)
_CANDIDATES: Final = (
    _SELECT + "WHERE tenant_id = %(tenant)s AND store_id = %(store)s AND active AND validated "
    "AND %(at)s BETWEEN starts_at AND ends_at AND %(amount)s BETWEEN min_amount AND max_amount"
)
_OF_STORES: Final = _SELECT + "WHERE tenant_id = %(tenant)s AND store_id = ANY(%(stores)s)"
_CHAIN: Final = (
    "SELECT m.validated, s.validated FROM disbursement.store s "
    "JOIN disbursement.merchant m ON m.tenant_id = s.tenant_id AND m.id = s.merchant_id "
    "WHERE s.tenant_id = %(tenant)s AND s.id = %(store)s"
)


class Options:
    """The options of a tenant's stores."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def add(self, tenant: str, option: PaymentOption, *, actor: str) -> bool:
        """Give a store an option, which begins unvalidated (L51); False: it was there already, just like this.

        Raises `StoreUnknown`, `AlreadyExists`, `DisbursementRefused` when the store belongs to another merchant.
        """
        async with self._statements.connection() as connection, connection.transaction():
            return await add_option(connection, tenant, option, actor=actor)

    async def edit(self, tenant: str, option_id: str, changes: Mapping[str, Any], *, actor: str) -> PaymentOption:
        """Change fields; the option, its store and its merchant are not validated any more (L53).

        What changes nothing resets nothing. Raises `OptionUnknown`, and `ValueError` for what contradicts itself.
        """
        async with self._statements.connection() as connection, connection.transaction():
            before = await locked_option(connection, tenant, option_id)
            after = replace(before, **{name: changes[name] for name in changes if name in {*_EDITABLE, "rates"}})
            if after == before:
                return before
            after = replace(after, validated=False)
            await _written(connection, _UPDATE, tenant, after)
            told = {"before": before.as_json(), "after": after.as_json()}
            await record(connection, tenant, (Object.OPTION, option_id), Action.EDITED, **told, actor=actor)
            await reset_store(connection, tenant, before.store_id, actor=actor)
            return after

    async def validate(self, tenant: str, option_id: str, *, actor: str) -> PaymentOption:
        """The first link of the chain (L52). Raises `OptionUnknown`."""
        async with self._statements.connection() as connection, connection.transaction():
            return await validate_option(connection, tenant, option_id, actor=actor)

    async def find(self, tenant: str, option_id: str) -> PaymentOption:
        """Raises `OptionUnknown`."""
        async with self._statements.connection() as connection:
            return await find_option(connection, tenant, option_id)

    async def of_store(self, tenant: str, store: str, *, after: str = "", limit: int = 100) -> list[PaymentOption]:
        """A store's options in the order of their ids."""
        values = {"tenant": tenant, "store": store, "after": after, "limit": limit}
        async with self._statements.connection() as connection:
            return await _read(connection, _OF_STORE, values)

    async def offered(self, tenant: str, store: str, amount: int, at: datetime) -> list[PaymentOption]:
        """What an application form may offer for an amount (minor units), fewest payments first (L49, L54).

        Nothing while the store or its merchant is not validated. Raises `StoreUnknown`.
        """
        async with self._statements.connection() as connection:
            return await offered(connection, tenant, store, amount, at)


async def add_option(connection: Connection, tenant: str, option: PaymentOption, *, actor: str) -> bool:
    """`Options.add` within a transaction of the caller's."""
    store = await lock_store(connection, tenant, option.store_id)
    if store is None:
        raise StoreUnknown(option.store_id)
    option = replace(option, merchant_id=store[0], validated=False)
    try:
        async with connection.transaction():
            await _written(connection, _INSERT, tenant, option)
    except psycopg.errors.UniqueViolation:
        kept = await _read(connection, _ONE, {"tenant": tenant, "id": option.id})
        if kept and replace(kept[0], validated=False) == option:
            return False
        raise AlreadyExists("another option has this id, or this code within the store") from None
    what = (Object.OPTION, option.id)
    await record(connection, tenant, what, Action.ADDED, after=option.as_json(), actor=actor)
    return True


async def validate_option(connection: Connection, tenant: str, option_id: str, *, actor: str) -> PaymentOption:
    """`Options.validate` within a transaction of the caller's."""
    option = await locked_option(connection, tenant, option_id)
    if not option.validated:
        await connection.execute(_VALIDATE, {"tenant": tenant, "id": option_id})
        what = (Object.OPTION, option_id)
        await record(connection, tenant, what, Action.VALIDATED, after={"validated": True}, actor=actor)
    return replace(option, validated=True)


async def offered(connection: Connection, tenant: str, store: str, amount: int, at: datetime) -> list[PaymentOption]:
    """`Options.offered` within a transaction of the caller's."""
    values = {"tenant": tenant, "store": store, "amount": amount, "at": at}
    chain = await (await connection.execute(_CHAIN, values)).fetchone()
    if chain is None:
        raise StoreUnknown(store)
    return await matching_options(connection, tenant, store, amount, at) if all(chain) else []


async def matching_options(
    connection: Connection, tenant: str, store: str, amount: int, at: datetime
) -> list[PaymentOption]:
    """A store's options that apply, one per number of payments (L49), whether or not the store is validated."""
    values = {"tenant": tenant, "store": store, "amount": amount, "at": at}
    return matching(await _read(connection, _CANDIDATES, values), amount, at)


async def options_of_stores(connection: Connection, tenant: str, stores: Iterable[str]) -> list[PaymentOption]:
    """All options of these stores, whatever their state."""
    return await _read(connection, _OF_STORES, {"tenant": tenant, "stores": list(stores)})


async def locked_option(connection: Connection, tenant: str, option_id: str) -> PaymentOption:
    """An option whose store's row is locked, so that nobody edits it meanwhile. Raises `OptionUnknown`."""
    option = await find_option(connection, tenant, option_id)
    await lock_store(connection, tenant, option.store_id)
    return await find_option(connection, tenant, option_id)


async def find_option(connection: Connection, tenant: str, option_id: str) -> PaymentOption:
    """Raises `OptionUnknown`."""
    found = await _read(connection, _ONE, {"tenant": tenant, "id": option_id})
    if not found:
        raise OptionUnknown(option_id)
    return found[0]


async def _read(connection: Connection, statement: LiteralString, values: Mapping[str, Any]) -> list[PaymentOption]:
    rows = await (await connection.execute(statement, values)).fetchall()
    return [_option(dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _option(row: dict[str, Any]) -> PaymentOption:
    rates = {name: row.pop(name) for name in RATES}
    return PaymentOption(**{**row, "type": OptionType(row["type"]), "rates": rates})


async def _written(connection: Connection, statement: LiteralString, tenant: str, option: PaymentOption) -> None:
    columns = {name: getattr(option, name) for name in _COLUMNS if name not in RATES}
    await connection.execute(statement, {"tenant": tenant, **columns, **option.rates})
