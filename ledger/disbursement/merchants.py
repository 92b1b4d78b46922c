"""Merchants and their stores: added, edited, validated, and the bank accounts that stores are paid on (L51 to L55).

A merchant is added first, then a store together with its bank account, then the store's first option; validation goes
the other way round. What is edited is not validated any more, nor is what stands above it. A bank account begins
unauthenticated, and the newest one of a store is its account. What a store is paid by is not edited while a transfer to
it is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

from hub.statements import Statements
from ledger.disbursement.edits import (
    Action,
    Connection,
    Edit,
    Object,
    lock_merchant,
    lock_store,
    record,
    reset_merchant,
    reset_store,
)
from ledger.disbursement.model import Frequency, StoreUnknown
from ledger.disbursement.refusals import (
    AccountUnknown,
    AlreadyExists,
    MerchantUnknown,
    NothingValidated,
    TransferOpen,
)


@dataclass(frozen=True, slots=True)
class Merchant:
    """Who has stores. `partner`: the subject of the tokens that may act for it."""

    id: str
    name: str
    tax_id: str
    partner: str | None = None
    automation: bool = True
    validated: bool = False


@dataclass(frozen=True, slots=True)
class BankAccount:
    """Where a store is paid."""

    clabe: str
    holder_name: str
    tax_id: str
    id: int = 0
    added_at: datetime | None = None
    authenticated_at: datetime | None = None
    authenticated_by: str | None = None

    def same_as(self, other: BankAccount | None) -> bool:
        """Whether it is the same account of the same holder."""
        return other is not None and (self.clabe, self.holder_name, self.tax_id) == (
            other.clabe,
            other.holder_name,
            other.tax_id,
        )


@dataclass(frozen=True, slots=True)
class Store:
    """One of a merchant's stores. `minimum_amount` in minor units of MXN: paid is only what is more (L28)."""

    id: str
    merchant_id: str
    name: str
    frequency: Frequency
    minimum_amount: int = 0
    manual_confirmation: bool = False
    validated: bool = False


_MERCHANT: Final = "id, name, tax_id, partner, automation, validated"
_STORE: Final = "id, merchant_id, name, frequency, minimum_amount, manual_confirmation, validated"
_ACCOUNT: Final = "clabe, holder_name, tax_id, id, added_at, authenticated_at, authenticated_by"
_ADD_MERCHANT: Final = (
    "INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, partner) "
    "VALUES (%(tenant)s, %(id)s, %(name)s, %(tax_id)s, %(partner)s) ON CONFLICT DO NOTHING RETURNING id"
)
_ADD_STORE: Final = (
    "INSERT INTO disbursement.store "
    "(tenant_id, id, merchant_id, name, frequency, minimum_amount, manual_confirmation) VALUES "
    "(%(tenant)s, %(id)s, %(merchant_id)s, %(name)s, %(frequency)s, %(minimum_amount)s, %(manual_confirmation)s) "
    "ON CONFLICT DO NOTHING RETURNING id"
)
_ADD_ACCOUNT: Final = (
    "INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id) "  # noqa: S608
    f"VALUES (%(tenant)s, %(store)s, %(clabe)s, %(holder_name)s, %(tax_id)s) RETURNING {_ACCOUNT}"
)
_ONE_MERCHANT: Final = f"SELECT {_MERCHANT} FROM disbursement.merchant WHERE tenant_id = %(tenant)s AND id = %(id)s"  # noqa: S608
_MERCHANTS: Final = (
    f"SELECT {_MERCHANT} FROM disbursement.merchant WHERE tenant_id = %(tenant)s AND id > %(after)s "  # noqa: S608
    "AND (%(partner)s::text IS NULL OR partner = %(partner)s) ORDER BY id LIMIT %(limit)s"
)
_ONE_STORE: Final = f"SELECT {_STORE} FROM disbursement.store WHERE tenant_id = %(tenant)s AND id = %(id)s"  # noqa: S608
_STORES: Final = (
    f"SELECT {_STORE} FROM disbursement.store s WHERE tenant_id = %(tenant)s "  # noqa: S608
    "AND (%(merchant)s::text IS NULL OR merchant_id = %(merchant)s::text) "
    "AND (%(frequency)s::text IS NULL OR frequency = %(frequency)s::text) "
    "AND (%(partner)s::text IS NULL OR EXISTS (SELECT FROM disbursement.merchant m WHERE m.tenant_id = s.tenant_id "
    "AND m.id = s.merchant_id AND m.partner = %(partner)s::text)) AND id > %(after)s ORDER BY id LIMIT %(limit)s"
)
_PRESENT_ACCOUNT: Final = (
    f"SELECT {_ACCOUNT} FROM disbursement.bank_account WHERE tenant_id = %(tenant)s AND store_id = %(store)s "  # noqa: S608
    "ORDER BY id DESC LIMIT 1"
)
_PRESENT_ACCOUNTS: Final = (
    f"SELECT DISTINCT ON (store_id) store_id, {_ACCOUNT} FROM disbursement.bank_account "  # noqa: S608
    "WHERE tenant_id = %(tenant)s AND store_id = ANY(%(stores)s::text[]) ORDER BY store_id, id DESC"
)
_EDIT_MERCHANT: Final = (
    "UPDATE disbursement.merchant SET name = %(name)s, tax_id = %(tax_id)s, partner = %(partner)s "
    "WHERE tenant_id = %(tenant)s AND id = %(id)s"
)
_EDIT_STORE: Final = (
    "UPDATE disbursement.store SET name = %(name)s, frequency = %(frequency)s, minimum_amount = %(minimum_amount)s, "
    "manual_confirmation = %(manual_confirmation)s WHERE tenant_id = %(tenant)s AND id = %(id)s"
)
_AUTOMATION: Final = (
    "UPDATE disbursement.merchant SET automation = %(automation)s WHERE tenant_id = %(tenant)s AND id = %(id)s"
)
_VALIDATE_MERCHANT: Final = (
    "UPDATE disbursement.merchant SET validated = true WHERE tenant_id = %(tenant)s AND id = %(id)s AND EXISTS "
    "(SELECT FROM disbursement.store s WHERE s.tenant_id = %(tenant)s AND s.merchant_id = %(id)s AND s.validated) "
    "RETURNING id"
)
_VALIDATE_STORE: Final = (
    "UPDATE disbursement.store SET validated = true WHERE tenant_id = %(tenant)s AND id = %(id)s AND EXISTS "
    "(SELECT FROM disbursement.payment_option o WHERE o.tenant_id = %(tenant)s AND o.store_id = %(id)s "
    "AND o.validated) RETURNING id"
)
_AUTHENTICATE: Final = (
    "UPDATE disbursement.bank_account SET authenticated_at = clock_timestamp(), authenticated_by = %(actor)s "  # noqa: S608
    f"WHERE id = %(account)s AND authenticated_at IS NULL RETURNING {_ACCOUNT}"
)
_OPEN_TRANSFER: Final = (
    "SELECT FROM disbursement.bank_transfer WHERE tenant_id = %(tenant)s AND store_id = %(store)s "
    "AND status IN ('WAITING_FOR_CONFIRMATION', 'IN_TRANSIT') LIMIT 1"
)
_EDITS: Final = (
    "SELECT id, object, object_id, action, before, after, actor, at FROM disbursement.edit "
    "WHERE tenant_id = %(tenant)s AND object = %(object)s AND object_id = %(id)s AND id < %(before)s "
    "ORDER BY id DESC LIMIT %(limit)s"
)

_LAST: Final = 2**63 - 1
_MERCHANT_FIELDS: Final = frozenset({"name", "tax_id", "partner"})
_STORE_FIELDS: Final = frozenset({"name", "frequency", "minimum_amount", "manual_confirmation"})


class Merchants:
    """The merchants and stores of all tenants. Each verb is one SQL transaction; repeating one changes nothing."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def add(self, tenant: str, merchant: Merchant, *, actor: str) -> bool:
        """The first step (L51); False: it was there, just like this. Raises `AlreadyExists`."""
        async with self._statements.connection() as connection, connection.transaction():
            return await add_merchant(connection, tenant, merchant, actor=actor)

    async def add_store(self, tenant: str, store: Store, account: BankAccount, *, actor: str) -> bool:
        """A store with its bank account, the second step (L51); False: it was there, just like this.

        Raises `MerchantUnknown`, `AlreadyExists`.
        """
        async with self._statements.connection() as connection, connection.transaction():
            return await add_store(connection, tenant, store, account, actor=actor)

    async def edit(self, tenant: str, merchant: str, changes: Mapping[str, Any], *, actor: str) -> Merchant:
        """Change name, tax id or partner; it is not validated any more (L53). What changes nothing resets nothing."""
        async with self._statements.connection() as connection, connection.transaction():
            await lock_merchant(connection, tenant, merchant)
            before = await find_merchant(connection, tenant, merchant)
            after = replace(before, **{name: changes[name] for name in changes if name in _MERCHANT_FIELDS})
            if after == before:
                return before
            await connection.execute(_EDIT_MERCHANT, {"tenant": tenant, **asdict(after)})
            told = {"before": asdict(before), "after": asdict(after)}
            await record(connection, tenant, (Object.MERCHANT, merchant), Action.EDITED, **told, actor=actor)
            await reset_merchant(connection, tenant, merchant, actor=actor)
            return replace(after, validated=False)

    async def edit_store(self, tenant: str, store: str, changes: Mapping[str, Any], *, actor: str) -> Store:
        """Change a store; it and its merchant are not validated any more (L53). What changes nothing resets nothing.

        Raises `StoreUnknown`, `TransferOpen`.
        """
        async with self._statements.connection() as connection, connection.transaction():
            await lock_store(connection, tenant, store)
            before = await find_store(connection, tenant, store)
            after = replace(before, **{name: changes[name] for name in changes if name in _STORE_FIELDS})
            if after == before:
                return before
            await _not_being_paid(connection, tenant, store)
            await connection.execute(_EDIT_STORE, {"tenant": tenant, **asdict(after)})
            told = {"before": asdict(before), "after": asdict(after)}
            await record(connection, tenant, (Object.STORE, store), Action.EDITED, **told, actor=actor)
            await reset_store(connection, tenant, store, actor=actor)
            return replace(after, validated=False)

    async def add_account(self, tenant: str, store: str, account: BankAccount, *, actor: str) -> BankAccount:
        """Another bank account for a store: it is to be authenticated (L55), the store to be validated again (L53).

        Raises `StoreUnknown`, `TransferOpen`.
        """
        async with self._statements.connection() as connection, connection.transaction():
            if await lock_store(connection, tenant, store) is None:
                raise StoreUnknown(store)
            before = await present_account(connection, tenant, store)
            if before is not None and account.same_as(before):
                return before
            await _not_being_paid(connection, tenant, store)
            added = await _new_account(connection, tenant, store, account, before=before, actor=actor)
            await reset_store(connection, tenant, store, actor=actor)
            return added

    async def authenticate_account(self, tenant: str, store: str, account: int, *, actor: str) -> BankAccount:
        """Somebody has made sure that the store's present account is its holder's (L55). Repeating changes nothing.

        `account`: the id of the account that was looked at. Raises `StoreUnknown`, `AccountUnknown` when the store has
        another one by now.
        """
        async with self._statements.connection() as connection, connection.transaction():
            if await lock_store(connection, tenant, store) is None:
                raise StoreUnknown(store)
            present = await present_account(connection, tenant, store)
            if present is None or present.id != account:
                raise AccountUnknown("this is not the store's present account")
            if present.authenticated_at is not None:
                return present
            return await _authenticated(connection, tenant, store, present, actor)

    async def validate(self, tenant: str, merchant: str, *, actor: str) -> Merchant:
        """The last link of the chain (L52). Raises `MerchantUnknown`, `NothingValidated` without a validated store."""
        async with self._statements.connection() as connection, connection.transaction():
            await validate_merchant(connection, tenant, merchant, actor=actor)
            return await find_merchant(connection, tenant, merchant)

    async def validate_store(self, tenant: str, store: str, *, actor: str) -> Store:
        """The middle link (L52). Raises `StoreUnknown`, `NothingValidated` without a validated option."""
        async with self._statements.connection() as connection, connection.transaction():
            await validate_store(connection, tenant, store, actor=actor)
            return await find_store(connection, tenant, store)

    async def switch_automation(self, tenant: str, merchant: str, *, on: bool, actor: str) -> Merchant:
        """Let triggers fire for a merchant's stores, or not (L30). Not an edit: validation stays as it is."""
        async with self._statements.connection() as connection, connection.transaction():
            await lock_merchant(connection, tenant, merchant)
            before = await find_merchant(connection, tenant, merchant)
            if before.automation is on:
                return before
            await connection.execute(_AUTOMATION, {"tenant": tenant, "id": merchant, "automation": on})
            told = {"before": {"automation": before.automation}, "after": {"automation": on}}
            await record(connection, tenant, (Object.MERCHANT, merchant), Action.AUTOMATION, **told, actor=actor)
            return replace(before, automation=on)

    async def find(self, tenant: str, merchant: str) -> Merchant:
        """Raises `MerchantUnknown`."""
        async with self._statements.connection() as connection:
            return await find_merchant(connection, tenant, merchant)

    async def find_store(self, tenant: str, store: str) -> Store:
        """Raises `StoreUnknown`."""
        async with self._statements.connection() as connection:
            return await find_store(connection, tenant, store)

    async def account(self, tenant: str, store: str) -> BankAccount | None:
        """A store's present bank account."""
        async with self._statements.connection() as connection:
            return await present_account(connection, tenant, store)

    async def accounts(self, tenant: str, stores: Sequence[str]) -> dict[str, BankAccount]:
        """The present bank accounts of stores, by store."""
        rows = await self._statements.rows(_PRESENT_ACCOUNTS, {"tenant": tenant, "stores": list(stores)})
        return {row[0]: BankAccount(*row[1:]) for row in rows}

    async def page(
        self, tenant: str, *, partner: str | None = None, after: str = "", limit: int = 100
    ) -> list[Merchant]:
        """Merchants in the order of their ids, all or one partner's."""
        rows = await self._statements.rows(
            _MERCHANTS, {"tenant": tenant, "partner": partner, "after": after, "limit": limit}
        )
        return [Merchant(*row) for row in rows]

    async def stores(
        self,
        tenant: str,
        merchant: str | None = None,
        *,
        frequency: Frequency | None = None,
        partner: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Store]:
        """Stores in the order of their ids: of a merchant, of a partner, of a frequency, or all."""
        asked = {"merchant": merchant, "frequency": frequency, "partner": partner}
        values = {"tenant": tenant, **asked, "after": after, "limit": limit}
        return [_store(row) for row in await self._statements.rows(_STORES, values)]

    async def edits(
        self, tenant: str, what: Object, object_id: str, *, before: int | None = None, limit: int = 100
    ) -> list[Edit]:
        """Who changed what of an object, newest first (L57)."""
        values = {"tenant": tenant, "object": what, "id": object_id, "before": before or _LAST, "limit": limit}
        rows = await self._statements.rows(_EDITS, values)
        return [Edit(row[0], Object(row[1]), row[2], Action(row[3]), *row[4:]) for row in rows]


async def add_merchant(connection: Connection, tenant: str, merchant: Merchant, *, actor: str) -> bool:
    """`Merchants.add` within a transaction of the caller's."""
    made = await (await connection.execute(_ADD_MERCHANT, {"tenant": tenant, **asdict(merchant)})).fetchone()
    if made is None:
        kept = await find_merchant(connection, tenant, merchant.id)
        if replace(kept, automation=merchant.automation, validated=merchant.validated) != merchant:
            raise AlreadyExists("another merchant has this id")
        return False
    what = (Object.MERCHANT, merchant.id)
    await record(connection, tenant, what, Action.ADDED, after=asdict(merchant), actor=actor)
    return True


async def add_store(connection: Connection, tenant: str, store: Store, account: BankAccount, *, actor: str) -> bool:
    """`Merchants.add_store` within a transaction of the caller's."""
    await find_merchant(connection, tenant, store.merchant_id)
    made = await (await connection.execute(_ADD_STORE, {"tenant": tenant, **asdict(store)})).fetchone()
    if made is None:
        kept = await find_store(connection, tenant, store.id)
        same_account = account.same_as(await present_account(connection, tenant, store.id))
        if replace(kept, validated=store.validated) != store or not same_account:
            raise AlreadyExists("another store has this id; a store is changed by editing it")
        return False
    await record(connection, tenant, (Object.STORE, store.id), Action.ADDED, after=asdict(store), actor=actor)
    await _new_account(connection, tenant, store.id, account, before=None, actor=actor)
    return True


async def authenticate_present_account(connection: Connection, tenant: str, store: str, *, actor: str) -> None:
    """Authenticate whatever account the store has, unless it is authenticated; for loading what was checked before."""
    present = await present_account(connection, tenant, store)
    if present is not None and present.authenticated_at is None:
        await _authenticated(connection, tenant, store, present, actor)


async def validate_store(connection: Connection, tenant: str, store: str, *, actor: str) -> None:
    """`Merchants.validate_store` within a transaction of the caller's."""
    found = await lock_store(connection, tenant, store)
    if found is None:
        raise StoreUnknown(store)
    if found[1]:
        return
    if await (await connection.execute(_VALIDATE_STORE, {"tenant": tenant, "id": store})).fetchone() is None:
        raise NothingValidated("validate one of the store's options first")
    what = (Object.STORE, store)
    await record(connection, tenant, what, Action.VALIDATED, after={"validated": True}, actor=actor)


async def validate_merchant(connection: Connection, tenant: str, merchant: str, *, actor: str) -> None:
    """`Merchants.validate` within a transaction of the caller's."""
    validated = await lock_merchant(connection, tenant, merchant)
    if validated is None:
        raise MerchantUnknown(merchant)
    if validated:
        return
    if await (await connection.execute(_VALIDATE_MERCHANT, {"tenant": tenant, "id": merchant})).fetchone() is None:
        raise NothingValidated("validate one of the merchant's stores first")
    what = (Object.MERCHANT, merchant)
    await record(connection, tenant, what, Action.VALIDATED, after={"validated": True}, actor=actor)


async def find_merchant(connection: Connection, tenant: str, merchant: str) -> Merchant:
    """Raises `MerchantUnknown`."""
    row = await (await connection.execute(_ONE_MERCHANT, {"tenant": tenant, "id": merchant})).fetchone()
    if row is None:
        raise MerchantUnknown(merchant)
    return Merchant(*row)


async def find_store(connection: Connection, tenant: str, store: str) -> Store:
    """Raises `StoreUnknown`."""
    row = await (await connection.execute(_ONE_STORE, {"tenant": tenant, "id": store})).fetchone()
    if row is None:
        raise StoreUnknown(store)
    return _store(row)


async def present_account(connection: Connection, tenant: str, store: str) -> BankAccount | None:
    """A store's newest account."""
    row = await (await connection.execute(_PRESENT_ACCOUNT, {"tenant": tenant, "store": store})).fetchone()
    return None if row is None else BankAccount(*row)


def _store(row: Any) -> Store:
    return Store(*(*row[:3], Frequency(row[3]), *row[4:]))


async def _new_account(
    connection: Connection, tenant: str, store: str, account: BankAccount, *, before: BankAccount | None, actor: str
) -> BankAccount:
    values = {"tenant": tenant, "store": store, **asdict(account)}
    (row,) = await (await connection.execute(_ADD_ACCOUNT, values)).fetchall()
    added = BankAccount(*row)
    what, was = (Object.BANK_ACCOUNT, store), None if before is None else asdict(before)
    await record(connection, tenant, what, Action.ADDED, before=was, after=asdict(added), actor=actor)
    return added


async def _authenticated(
    connection: Connection, tenant: str, store: str, account: BankAccount, actor: str
) -> BankAccount:
    (row,) = await (await connection.execute(_AUTHENTICATE, {"account": account.id, "actor": actor})).fetchall()
    after = BankAccount(*row)
    told = {"before": asdict(account), "after": asdict(after)}
    await record(connection, tenant, (Object.BANK_ACCOUNT, store), Action.AUTHENTICATED, **told, actor=actor)
    return after


async def _not_being_paid(connection: Connection, tenant: str, store: str) -> None:
    values = {"tenant": tenant, "store": store}
    if await (await connection.execute(_OPEN_TRANSFER, values)).fetchone() is not None:
        raise TransferOpen("a transfer to the store is open; edit it when that has ended, or cancel it first")
