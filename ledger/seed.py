"""Bring a book in: tenants with their fee tables, accounts, identifiers and opening balances (see docs/seed.md).

Repeating a seed changes nothing. What money depends on cannot be changed by a second seed: another currency, opening
balance, status or owner of an identifier is a `SeedConflict`. New accounts, identifiers and fee tables are added, and
names corrected. Each tenant is loaded in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.database import database_errors, open_database
from hub.money import MINOR_DIGITS, BadMoney, Money
from hub.transfer import IdentifierType
from ledger.book import raise_refusal
from ledger.model import OPENING_EQUITY, STANDARD_CHART, AccountKind, AccountRef, DuplicateOperation, asset_of

_ACTOR: Final = "seed"


class SeedConflict(Exception):
    """The book holds something else than the seed says; the text names the account and the field. Nothing was changed
    for that tenant."""


Number = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,64}$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Seed(BaseModel):
    # Other components read other keys of the same objects.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def _minor(amount: str, currency: str, field: str) -> int:
    try:
        return Money.parse(amount, currency).minor
    except BadMoney as error:
        raise ValueError(f"{field}: {error}") from None


class FeeSeed(_Seed):
    """What a transfer costs, in the band of amounts from `amount_from` to `amount_to` (both included).

    The fee is `fixed` plus `basis_points` ten-thousandths of the amount, rounded half to even, at least `min`, at most
    `max`. Several entries of one currency are its bands; an amount in none of them is not allowed.
    """

    currency: Currency
    amount_from: str | None = None
    """Decimal string; the smallest unit when absent."""
    amount_to: str | None = None
    """Decimal string; unbounded when absent."""
    fixed: str = "0"
    basis_points: int = Field(default=0, ge=0, le=10_000)
    min: str = "0"
    max: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lowest, highest, _, _, least, most = self.band
        if lowest < 1 or (highest is not None and highest < lowest):
            raise ValueError("amount_from: must be greater than zero and not above amount_to")
        if most is not None and most < least:
            raise ValueError("max: must not be below min")
        return self

    @property
    def band(self) -> tuple[int, int | None, int, int, int, int | None]:
        """From, to, fixed, basis points, min, max, in minor units: a row of the tariff."""
        of = self.currency
        return (
            1 if self.amount_from is None else _minor(self.amount_from, of, "amount_from"),
            None if self.amount_to is None else _minor(self.amount_to, of, "amount_to"),
            _minor(self.fixed, of, "fixed"),
            self.basis_points,
            _minor(self.min, of, "min"),
            None if self.max is None else _minor(self.max, of, "max"),
        )


class IdentifierSeed(_Seed):
    """A way to name an account."""

    type: Annotated[IdentifierType, Field(strict=False)]
    value: Number


class AccountSeed(_Seed):
    """A customer's account. `frozen` freezes debits: money still comes in (L85)."""

    id: Number
    currency: Currency
    opening_balance: str = "0"
    identifiers: tuple[IdentifierSeed, ...] = Field(default=(), strict=False)
    holder_name: Text | None = None
    status: Literal["open", "closed", "frozen"] = "open"

    @model_validator(mode="after")
    def _readable(self) -> Self:
        _ = self.opening
        return self

    @property
    def opening(self) -> int:
        """The opening balance in minor units."""
        return _minor(self.opening_balance, self.currency, "opening_balance")


class TenantSeed(_Seed):
    """A tenant: its book."""

    id: Number
    fees: tuple[FeeSeed, ...] = Field(default=(), strict=False)
    accounts: tuple[AccountSeed, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _refuse_repeats("accounts: id", [account.id for account in self.accounts])
        _refuse_repeats(
            "accounts: identifiers",
            [f"{one.type} {one.value}" for account in self.accounts for one in account.identifiers],
        )
        for bands in self.tariffs.values():
            for lower, upper in pairwise(bands):
                if lower[1] is None or lower[1] >= upper[0]:
                    raise ValueError("fees: bands of one currency overlap; give each amount_from and amount_to")
        return self

    @property
    def tariffs(self) -> dict[str, list[tuple[int, int | None, int, int, int, int | None]]]:
        """The bands of each currency, lowest first."""
        found: dict[str, list[tuple[int, int | None, int, int, int, int | None]]] = {}
        for fee in self.fees:
            found.setdefault(fee.currency, []).append(fee.band)
        for bands in found.values():
            bands.sort(key=lambda band: band[0])
        return found


class Seed(_Seed):
    """The ledger's part of a seed file."""

    tenants: tuple[TenantSeed, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _refuse_repeats("tenants: id", [tenant.id for tenant in self.tenants])
        return self


def _refuse_repeats(place: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{place}: {value} stands twice")
        seen.add(value)


_BOOK: Final = text("INSERT INTO ledger.book (code) VALUES (:code) ON CONFLICT DO NOTHING")
_BOOK_ID: Final = text("SELECT id FROM ledger.book WHERE code = :code")
_CHART: Final = text(
    "INSERT INTO ledger.chart (book_id, kind, side, auto_create, floor_default) "
    "VALUES (:book_id, :kind, :side, :auto_create, :floor) ON CONFLICT DO NOTHING"
)
_ASSET: Final = text("INSERT INTO ledger.asset (code, scale) VALUES (:code, :scale) ON CONFLICT DO NOTHING")
_SHARED: Final = text("SELECT f.account_id FROM ledger.find_account(:book_id, :kind, :asset) f")
_OTHER_ASSET: Final = text(
    "SELECT asset FROM ledger.account "
    "WHERE book_id = :book_id AND kind = :kind AND owner_id = :owner AND asset <> :asset"
)
_OPEN: Final = text("SELECT * FROM ledger.open_account(:book, :kind, 'customer', :owner, :asset)")
_OPENING: Final = text(
    "SELECT p.amount FROM ledger.txn t JOIN ledger.posting p ON p.txn_id = t.id "
    "WHERE t.book_id = :book_id AND t.idem_key = :operation"
)
_POST: Final = text(
    "SELECT * FROM ledger.post(:book, :operation, 'post', ARRAY[:debit], ARRAY[:credit], ARRAY[:asset], "
    "ARRAY[CAST(:amount AS bigint)], NULL, 'opening', NULL, :actor, NULL)"
)
_POLICY: Final = text("SELECT * FROM ledger.set_policy(:book, :account, :asset, :action, NULL, :actor, 'seed')")
_SEEDED_STATUS: Final = text(
    "SELECT action FROM ledger.account_policy_event "
    "WHERE account_id = :account_id AND actor = :actor ORDER BY id LIMIT 1"
)
_IDENTIFIER: Final = text(
    "INSERT INTO ledger.account_identifier (book_id, id_type, identifier, account_id) "
    "VALUES (:book_id, :type, :value, :account_id) ON CONFLICT DO NOTHING"
)
_IDENTIFIED: Final = text(
    "SELECT account_id FROM ledger.account_identifier "
    "WHERE book_id = :book_id AND id_type = :type AND identifier = :value"
)
_HOLDER: Final = text(
    "INSERT INTO ledger.account_holder (account_id, name) VALUES (:account_id, :name) "
    "ON CONFLICT (account_id) DO UPDATE SET name = excluded.name WHERE account_holder.name <> excluded.name"
)
_TARIFF_IN_FORCE: Final = text(
    "SELECT b.from_amount, b.to_amount, b.fixed, b.basis_points, b.min_fee, b.max_fee FROM ledger.tariff_band b "
    "WHERE b.tariff_id = (SELECT max(id) FROM ledger.tariff WHERE book_id = :book_id AND asset = :asset) "
    "ORDER BY b.from_amount"
)
_TARIFF: Final = text("INSERT INTO ledger.tariff (book_id, asset) VALUES (:book_id, :asset) RETURNING id")
_BAND: Final = text(
    "INSERT INTO ledger.tariff_band (tariff_id, from_amount, to_amount, fixed, basis_points, min_fee, max_fee) "
    "VALUES (:tariff_id, :from_amount, :to_amount, :fixed, :basis_points, :min_fee, :max_fee)"
)
_ONE_SEED_AT_A_TIME: Final = text("SELECT pg_advisory_xact_lock(7202)")

_STATUS_ACTION: Final = {"open": None, "closed": "close", "frozen": "freeze-debits"}


async def seed(url: str, wanted: Seed) -> None:
    """Load `wanted` into the book at `url`. Raises `SeedConflict`, and `Unavailable` when the database is away."""
    async with open_database(url, pool_size=1) as engine:
        with database_errors():
            for tenant in wanted.tenants:
                async with engine.begin() as connection:
                    await connection.execute(_ONE_SEED_AT_A_TIME)
                    await _Book(connection, tenant).load()


class _Book:
    """One tenant's book while it is loaded."""

    def __init__(self, connection: AsyncConnection, tenant: TenantSeed) -> None:
        self._connection = connection
        self._tenant = tenant
        self._id = 0

    async def load(self) -> None:
        await self._open()
        for currency, bands in self._tenant.tariffs.items():
            await self._tariff(asset_of(currency), bands)
        for account in self._tenant.accounts:
            await self._account(account)

    async def _open(self) -> None:
        connection = self._connection
        await connection.execute(_BOOK, {"code": self._tenant.id})
        self._id = (await connection.execute(_BOOK_ID, {"code": self._tenant.id})).scalar_one()
        for line in STANDARD_CHART:
            await connection.execute(
                _CHART,
                {
                    "book_id": self._id,
                    "kind": line.kind,
                    "side": line.side,
                    "auto_create": line.auto_create,
                    "floor": line.floor,
                },
            )
        currencies = {account.currency for account in self._tenant.accounts} | self._tenant.tariffs.keys()
        for currency in sorted(currencies):
            asset = asset_of(currency)
            await connection.execute(_ASSET, {"code": asset, "scale": MINOR_DIGITS[currency]})
            for line in STANDARD_CHART:
                if line.auto_create:  # opened now, so that no payment has to
                    await connection.execute(_SHARED, {"book_id": self._id, "kind": line.kind, "asset": asset})

    async def _tariff(self, asset: str, bands: list[tuple[int, int | None, int, int, int, int | None]]) -> None:
        here = {"book_id": self._id, "asset": asset}
        if [tuple(row) for row in await self._connection.execute(_TARIFF_IN_FORCE, here)] == bands:
            return
        tariff = (await self._connection.execute(_TARIFF, here)).scalar_one()
        for lowest, highest, fixed, points, least, most in bands:
            await self._connection.execute(
                _BAND,
                {
                    "tariff_id": tariff,
                    "from_amount": lowest,
                    "to_amount": highest,
                    "fixed": fixed,
                    "basis_points": points,
                    "min_fee": least,
                    "max_fee": most,
                },
            )

    async def _account(self, account: AccountSeed) -> None:
        connection, asset, kind = self._connection, asset_of(account.currency), AccountKind.CUSTOMER_DEPOSIT
        here = {"book_id": self._id, "kind": kind, "owner": account.id, "asset": asset}
        if (await connection.execute(_OTHER_ASSET, here)).first() is not None:
            raise self._conflict(account, "currency", "the account was opened in another currency")
        opened = (
            await connection.execute(
                _OPEN, {"book": self._tenant.id, "kind": kind, "owner": account.id, "asset": asset}
            )
        ).one()
        if opened.created:
            await self._begin(account, asset)
        else:
            await self._compare(account, opened.account_id)
        for one in account.identifiers:
            await self._identify(account, opened.account_id, one)
        if account.holder_name is not None:
            await connection.execute(_HOLDER, {"account_id": opened.account_id, "name": account.holder_name})

    async def _begin(self, account: AccountSeed, asset: str) -> None:
        address = str(AccountRef.customer(account.id))
        if account.opening:
            values = {
                "book": self._tenant.id,
                "operation": _opening(account),
                "debit": str(OPENING_EQUITY),
                "credit": address,
                "asset": asset,
                "amount": account.opening,
                "actor": _ACTOR,
            }
            try:
                await self._call(_POST, values)
            except DuplicateOperation:
                raise self._conflict(account, "opening_balance", "it was booked with another amount") from None
        action = _STATUS_ACTION[account.status]
        if action is not None:
            values = {"book": self._tenant.id, "account": address, "asset": asset, "action": action, "actor": _ACTOR}
            await self._call(_POLICY, values)

    async def _call(self, statement: TextClause, values: Mapping[str, Any]) -> None:
        answer = (await self._connection.execute(statement, values)).one()
        raise_refusal(answer.refusal, answer.detail)

    async def _compare(self, account: AccountSeed, account_id: int) -> None:
        here = {"book_id": self._id, "operation": _opening(account)}
        booked = (await self._connection.execute(_OPENING, here)).scalar_one_or_none() or 0
        if booked != account.opening:
            was = Money(booked, account.currency).decimal()
            raise self._conflict(account, "opening_balance", f"it was booked as {was}; book the difference instead")
        here = {"account_id": account_id, "actor": _ACTOR}
        seeded = (await self._connection.execute(_SEEDED_STATUS, here)).scalar_one_or_none()
        if seeded != _STATUS_ACTION[account.status]:
            raise self._conflict(account, "status", "it was brought in with another; change its policy instead")

    async def _identify(self, account: AccountSeed, account_id: int, one: IdentifierSeed) -> None:
        here = {"book_id": self._id, "type": one.type, "value": one.value}
        await self._connection.execute(_IDENTIFIER, {**here, "account_id": account_id})
        if (await self._connection.execute(_IDENTIFIED, here)).scalar_one() != account_id:
            raise self._conflict(account, "identifiers", f"a {one.type} of it belongs to another account")

    def _conflict(self, account: AccountSeed, field: str, problem: str) -> SeedConflict:
        return SeedConflict(f"tenant {self._tenant.id}, account {account.id}, {field}: {problem}")


def _opening(account: AccountSeed) -> str:
    return f"seed:{account.id}:opening"
