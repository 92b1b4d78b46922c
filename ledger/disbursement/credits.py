"""Credits: signed once, with the commission that stays theirs (L45); changed only through the store's balance (L17).

What a credit costs is reckoned here and only here; balances and transfers read what is stored on it (L7, L47).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from hub.money import Money
from hub.statements import Statements
from ledger.disbursement.balances import Balances
from ledger.disbursement.commission import commission, of_amount
from ledger.disbursement.edits import Action, Connection, Object, record
from ledger.disbursement.fields import CURRENCY
from ledger.disbursement.model import AmountChanged, CreditUnknown, NoCommission, StoreUnknown
from ledger.disbursement.options import PaymentOption, applies, find_option, matching_options
from ledger.disbursement.pricing import ZONE, Commissions, trace
from ledger.disbursement.refusals import AlreadyExists, NotOffered, OptionNotApplicable

_CLOCKS_DIFFER: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class NewCredit:
    """What was signed: an amount in minor units of MXN, and the option, or how many payments it has."""

    id: str
    store_id: str
    amount: int
    option_id: str | None = None
    payments: int | None = None
    signed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Credit:
    """A credit as it stands. `commission` None: not approved for disbursement (L45)."""

    id: str
    store_id: str
    merchant_id: str
    option_id: str | None
    amount: int
    commission: int | None
    signed_at: datetime
    disbursed: bool
    contributed: bool
    cancelled: bool

    @property
    def approved(self) -> bool:
        """Whether it may be disbursed at all."""
        return self.commission is not None


_SELECT: Final = (
    "SELECT c.id, c.store_id, s.merchant_id, c.option_id, c.amount, c.commission, c.signed_at, c.disbursed, "
    "coalesce(u.live > 0, false), coalesce(u.live = 0, false) FROM disbursement.credit c "
    "JOIN disbursement.store s ON s.tenant_id = c.tenant_id AND s.id = c.store_id "
    "LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE NOT b.overwritten) AS live FROM disbursement.balance_update b "
    "WHERE b.tenant_id = c.tenant_id AND b.credit_id = c.id AND b.type = 'CONTRIBUTION' HAVING count(*) > 0) u ON true "
)
_ONE: Final = _SELECT + "WHERE c.tenant_id = %(tenant)s AND c.id = %(id)s"
_OF_STORE: Final = (
    _SELECT
    + "WHERE c.tenant_id = %(tenant)s AND c.store_id = %(store)s AND c.id > %(after)s ORDER BY c.id LIMIT %(limit)s"
)
_INSERT: Final = (
    "INSERT INTO disbursement.credit (tenant_id, id, store_id, option_id, amount, commission, signed_at) "
    "VALUES (%(tenant)s, %(id)s, %(store)s, %(option)s, %(amount)s, %(commission)s, %(signed_at)s) "
    "ON CONFLICT DO NOTHING RETURNING id"
)
_SIGNED: Final = (
    "SELECT after FROM disbursement.edit WHERE tenant_id = %(tenant)s AND object = 'CREDIT' AND object_id = %(id)s "
    "AND action = 'ADDED' ORDER BY id LIMIT 1"
)
_CHAIN: Final = (
    "SELECT m.validated AND s.validated FROM disbursement.store s "
    "JOIN disbursement.merchant m ON m.tenant_id = s.tenant_id AND m.id = s.merchant_id "
    "WHERE s.tenant_id = %(tenant)s AND s.id = %(store)s"
)
_RATE: Final = (
    "SELECT s.option_id, (s.result->>'basis_points')::integer, EXISTS (SELECT FROM disbursement.commission_trace t "
    "WHERE t.tenant_id = s.tenant_id AND t.credit_id = s.credit_id AND t.kind = 'AMOUNT_CHANGED' "
    "AND t.inputs->>'operation' = %(operation)s) FROM disbursement.commission_trace s "
    "WHERE s.tenant_id = %(tenant)s AND s.credit_id = %(credit)s AND s.kind = 'SIGNATURE' ORDER BY s.id LIMIT 1"
)


class Credits:
    """The credits of all tenants' stores. Repeating a verb is safe."""

    def __init__(self, statements: Statements, zone: ZoneInfo = ZONE) -> None:
        self._statements = statements
        self._commissions = Commissions(statements, zone)
        self._balances = Balances(statements)

    async def sign(self, tenant: str, new: NewCredit, *, actor: str) -> tuple[Credit, bool]:
        """Keep a credit with the commission that its option, and everything else of L46, make of it.

        Answers it, and whether it is new: the same again changes nothing. Raises `StoreUnknown`, `OptionUnknown`,
        `NotOffered`, `OptionNotApplicable`, `AlreadyExists`, `ValueError` for an instant that is yet to come.
        """
        async with self._statements.connection() as connection, connection.transaction():
            made = await self.sign_within(connection, tenant, new, actor=actor)
            return await _found(connection, tenant, new.id), made

    async def sign_within(self, connection: Connection, tenant: str, new: NewCredit, *, actor: str) -> bool:
        """`sign` within a transaction of the caller's; whether the credit is new."""
        told = as_told(new)
        before = await (await connection.execute(_SIGNED, {"tenant": tenant, "id": new.id})).fetchone()
        if before is not None:
            return _repeated(before[0], told)
        at = new.signed_at or datetime.now(UTC)
        if at > datetime.now(UTC) + _CLOCKS_DIFFER:
            raise ValueError("the signature must not lie in the future")
        option = await _chosen(connection, tenant, new, at)
        inputs = await self._commissions.inputs(connection, tenant, option, new.amount, at)
        result = commission(inputs)
        values = {"tenant": tenant, "id": new.id, "store": new.store_id, "option": option.id, "amount": new.amount}
        row = {**values, "commission": result.amount, "signed_at": at}
        if await (await connection.execute(_INSERT, row)).fetchone() is None:  # signed at this moment by another
            before = await (await connection.execute(_SIGNED, values)).fetchone()
            return _repeated(None if before is None else before[0], told)
        what = (Object.CREDIT, new.id)
        await record(connection, tenant, what, Action.ADDED, after=told, actor=actor)
        went_in, came_out = inputs.as_json(), result.as_json()
        await trace(connection, tenant, "SIGNATURE", went_in, came_out, credit=new.id, option=option.id, actor=actor)
        return True

    async def find(self, tenant: str, credit: str) -> Credit:
        """Raises `CreditUnknown`."""
        async with self._statements.connection() as connection:
            return await _found(connection, tenant, credit)

    async def of_store(self, tenant: str, store: str, *, after: str = "", limit: int = 100) -> list[Credit]:
        """A store's credits in the order of their ids."""
        values = {"tenant": tenant, "store": store, "after": after, "limit": limit}
        return [Credit(*row) for row in await self._statements.rows(_OF_STORE, values)]

    async def change_amount(
        self, tenant: str, credit: str, amount: int, *, operation: str, actor: str
    ) -> AmountChanged:
        """Another amount (minor units) for a credit, charged at the rate of its signature (L7, L17).

        Raises `CreditUnknown`, `NoCommission`, and what `Balances.change_amount` raises.
        """
        async with self._statements.connection() as connection, connection.transaction():
            await _found(connection, tenant, credit)
            asked = {"tenant": tenant, "credit": credit, "operation": operation}
            fixed = await (await connection.execute(_RATE, asked)).fetchone()
            if fixed is None or fixed[1] is None:
                raise NoCommission(credit)
            option, rate, traced = fixed
            charged = of_amount(amount, CURRENCY, rate)
            inputs = {"amount": amount, "currency": CURRENCY, "basis_points": rate, "operation": operation}
            result = {"basis_points": rate, "amount": charged}
            if not traced:
                await trace(
                    connection, tenant, "AMOUNT_CHANGED", inputs, result, credit=credit, option=option, actor=actor
                )
        new, cost = Money(amount, CURRENCY), Money(charged, CURRENCY)
        return await self._balances.change_amount(tenant, credit, new, cost, operation=operation, actor=actor)


async def _chosen(connection: Connection, tenant: str, new: NewCredit, at: datetime) -> PaymentOption:
    """The option of a credit, which must apply (L49) at a merchant and store that are offered (L54)."""
    chain = await (await connection.execute(_CHAIN, {"tenant": tenant, "store": new.store_id})).fetchone()
    if chain is None:
        raise StoreUnknown(new.store_id)
    if not chain[0]:
        raise NotOffered("the store and its merchant must be validated first")
    if new.option_id is not None:
        option = await find_option(connection, tenant, new.option_id)
        return fitting(new, option, at)
    return option_for(new, await matching_options(connection, tenant, new.store_id, new.amount, at))


def fitting(new: NewCredit, option: PaymentOption, at: datetime) -> PaymentOption:
    """The option that was asked for by name, provided that it applies. Raises `OptionNotApplicable`."""
    if option.store_id != new.store_id or not applies(option, new.amount, at):
        raise OptionNotApplicable("the option is not this store's, not in force then, or not for this amount")
    if new.payments not in {None, option.payments}:
        raise OptionNotApplicable("the option has another number of payments")
    return option


def option_for(new: NewCredit, found: Sequence[PaymentOption]) -> PaymentOption:
    """Of the options that apply, the one that was asked for, or the one with fewest payments."""
    for option in found:
        if new.payments in {None, option.payments}:
            return option
    raise OptionNotApplicable("no option of the store applies to this amount and number of payments then")


async def _found(connection: Connection, tenant: str, credit: str) -> Credit:
    row = await (await connection.execute(_ONE, {"tenant": tenant, "id": credit})).fetchone()
    if row is None:
        raise CreditUnknown(credit)
    return Credit(*row)


def as_told(new: NewCredit) -> dict[str, Any]:
    """What was asked for, to tell a repeat by."""
    return {
        "store_id": new.store_id,
        "amount": new.amount,
        "option_id": new.option_id,
        "payments": new.payments,
        "signed_at": None if new.signed_at is None else new.signed_at.astimezone(UTC).isoformat(),
    }


def _repeated(before: dict[str, Any] | None, told: dict[str, Any]) -> bool:
    if before != told:
        raise AlreadyExists("another credit has this id")
    return False
