"""The savings accounts of the pretend Fineract, with the real one's odd behaviour.

Written from Fineract's own sources, apart from the connector, so that it does not agree with the connector's mistakes:

- a hold looks at the balance before it looks whether its transfer code was used, and not at a block of the account;
- the two errors for a code that was used bear each other's codes;
- a transfer code is used up for ever on its account, by a released hold, too;
- a hold that was released can still be paid, as far as the balance goes;
- paying takes the amount and, as a withdrawal fee of the account's own, whatever its charges say; `fspFee` only has to
  make the hold's amount come out right;
- an unknown currency is an internal error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

ROUTING: Final = "INTEROPERATION"
CURRENCIES: Final = {"MXN": 2, "USD": 2, "EUR": 2, "JPY": 0}
_EIGHT: Final = Context(prec=8, rounding=ROUND_HALF_EVEN)
_SCALE: Final = Decimal("0.000001")


class Broken(Exception):
    """An error that Fineract does not expect: status 500."""


class No(Exception):
    """An error that Fineract means: status, code, text."""

    def __init__(self, status: int, code: str, text: str) -> None:
        self.status, self.code, self.text = status, code, text
        super().__init__(code)


@dataclass
class Transaction:
    id: int
    kind: str
    amount: Decimal
    balance: Decimal
    on: date
    code: str | None = None
    note: str = ""
    reversed: bool = False
    release: int | None = None

    @property
    def is_debit(self) -> bool:
        return self.kind in ("WITHDRAWAL", "WITHDRAWAL_FEE", "AMOUNT_HOLD")


@dataclass
class Charge:
    """A withdrawal fee of an account: a flat amount, or a percentage."""

    flat: Decimal = Decimal(0)
    percent: Decimal = Decimal(0)

    def on(self, amount: Decimal) -> Decimal:
        if self.percent:
            return _EIGHT.multiply(amount, _EIGHT.divide(self.percent, Decimal(100)))
        return self.flat


@dataclass
class Account:
    id: int
    external_id: str
    currency: str
    client: int
    status: str = "ACTIVE"
    sub_status: str = "NONE"
    charges: list[Charge] = field(default_factory=list)
    identifiers: list[tuple[str, str]] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)

    @property
    def balance(self) -> Decimal:
        """What is booked."""
        signs = {"DEPOSIT": 1, "WITHDRAWAL": -1, "WITHDRAWAL_FEE": -1}
        return sum((signs.get(one.kind, 0) * one.amount for one in self.transactions if not one.reversed), Decimal(0))

    @property
    def held(self) -> Decimal:
        return sum(
            (one.amount for one in self.transactions if one.kind == "AMOUNT_HOLD" and not one.release), Decimal(0)
        )

    @property
    def withdrawable(self) -> Decimal:
        return self.balance - self.held

    def fee(self, amount: Decimal) -> Decimal:
        return sum((charge.on(amount) for charge in self.charges), Decimal(0))

    def rounded(self, amount: Decimal) -> Decimal:
        return amount.quantize(Decimal(1).scaleb(-CURRENCIES[self.currency]), ROUND_HALF_EVEN)

    def find(self, kind: str, code: str) -> Transaction | None:
        return next((one for one in self.transactions if (one.kind, one.code) == (kind, code)), None)


class Tenant:
    """One bank's accounts and customers."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.clients: dict[int, str] = {}
        self._numbers: Iterator[int] = iter(range(1, 10**9))

    def open(
        self,
        external_id: str,
        currency: str,
        *,
        holder: str | None = None,
        balance: str = "0",
        status: str = "ACTIVE",
        sub_status: str = "NONE",
        identifiers: tuple[tuple[str, str], ...] = (),
        charges: tuple[Charge, ...] = (),
    ) -> Account:
        """Open an account or bring it up to date."""
        client = next(self._numbers)
        self.clients[client] = holder or external_id
        account = Account(next(self._numbers), external_id, currency, client, "ACTIVE", "NONE", list(charges))
        account.identifiers.extend(identifiers)
        if Decimal(balance):
            self._book(account, "DEPOSIT", Decimal(balance), None, "")
        account.status, account.sub_status = status, sub_status
        self.accounts[external_id] = account
        return account

    def party(self, id_type: str, value: str) -> Account:
        for account in self.accounts.values():
            if (id_type, value) in account.identifiers:
                return account
        raise No(404, "error.msg.interop.account.not.found", f"Account not found for identifier {id_type}/{value}")

    def account(self, external_id: str) -> Account:
        found = self.accounts.get(external_id)
        if found is None:
            text = f"Savings account with external identifier {external_id} does not exist"
            raise No(404, "error.msg.saving.account.id.invalid", text)
        return found

    def by_number(self, number: int) -> Account:
        for account in self.accounts.values():
            if account.id == number:
                return account
        raise No(404, "error.msg.saving.account.id.invalid", f"Savings account with identifier {number} does not exist")

    # --- The interoperation API ---

    def quote(self, request: Mapping[str, Any]) -> Decimal:
        account, amount, role = self._request(request)
        if role == "PAYEE":
            return Decimal(0)
        fee = account.fee(amount)
        if account.withdrawable < amount + fee:
            code = "error.msg.savingsaccount.transaction.insufficient.account.balance.withdraw"
            raise No(403, code, "Insufficient account balance.")
        return fee

    def prepare(self, request: Mapping[str, Any]) -> None:
        role = request.get("transactionRole", "PAYER")
        if role == "PAYEE":
            return  # accepted unread
        account, amount, _ = self._request(request)
        code, total = _code(request), amount + _fee(request, account)
        if account.withdrawable < total:
            raise _insufficient()
        if account.find("AMOUNT_HOLD", code) is not None:
            text = f"Transaction with transferCode {code} already committed for account {account.external_id}"
            raise No(403, "error.msg.interop.transfer.already.committed", text)
        self._book(account, "AMOUNT_HOLD", total, code, "")

    def create(self, request: Mapping[str, Any]) -> None:
        account, amount, role = self._request(request)
        code, note = _code(request), str(request.get("note") or "")
        kind = "WITHDRAWAL" if role == "PAYER" else "DEPOSIT"
        if account.find(kind, code) is not None:
            text = f"Transaction with transferCode {code} already on hold for account {account.external_id}"
            raise No(403, "error.msg.interop.transfer.already.on.hold", text)
        if role == "PAYEE":
            self._blocked(account, "BLOCK_CREDIT", "credit")
            self._book(account, "DEPOSIT", amount, code, note)
            return
        hold, total = account.find("AMOUNT_HOLD", code), amount + _fee(request, account)
        if hold is None or hold.amount != total:
            raise _missing(account, code)
        if account.withdrawable + hold.amount < total:
            raise _insufficient()
        self._blocked(account, "BLOCK_DEBIT", "debit")
        fees = [fee for fee in (account.rounded(charge.on(amount)) for charge in account.charges) if fee]
        free = account.withdrawable + (Decimal(0) if hold.release else hold.amount)
        if free < amount + sum(fees):
            raise _insufficient()
        if hold.release is None:
            self._release(account, hold)
        self._book(account, "WITHDRAWAL", amount, code, note)
        for fee in fees:
            self._book(account, "WITHDRAWAL_FEE", fee, None, "")

    def release(self, request: Mapping[str, Any]) -> None:
        account, _, _ = self._request(request)
        hold = account.find("AMOUNT_HOLD", _code(request))
        if hold is None or hold.release is not None:
            raise _missing(account, _code(request))
        self._release(account, hold)

    def undo(self, number: int, transaction: int) -> None:
        """`POST /savingsaccounts/{id}/transactions/{id}?command=undo`."""
        account = self.by_number(number)
        found = next((one for one in account.transactions if one.id == transaction), None)
        if found is None:
            raise No(404, "error.msg.saving.account.trasaction.id.invalid", "does not exist")
        if account.status != "ACTIVE":
            raise No(
                400, "validation.msg.savingsaccount.undotransaction.account.is.not.active", "Account is not active"
            )
        if found.reversed:
            raise No(403, "error.msg.saving.account.transaction.is.reversed", "The transaction is reversed")
        if not found.is_debit and account.withdrawable < found.amount:
            raise _insufficient()
        found.reversed = True

    def _request(self, request: Mapping[str, Any]) -> tuple[Account, Decimal, str]:
        for name in ("transactionCode", "accountId", "amount", "transactionRole"):
            if not request.get(name):
                raise No(
                    400, f"validation.msg.InteropApi.{name}.cannot.be.blank", f"The parameter {name} is mandatory."
                )
        account, money = self.account(str(request["accountId"])), request["amount"]
        if money.get("currency") not in CURRENCIES:
            raise Broken
        if money["currency"] != account.currency:
            text = f"Trying to transfer from {account.currency} to {money['currency']}"
            raise No(403, "error.msg.accounttransfer.different.currencies", text)
        if account.status != "ACTIVE":
            text = f"Transaction not allowed on account {account.external_id}"
            raise No(403, "error.msg.interop.transaction.not.allowed", text)
        return account, account.rounded(Decimal(str(money["amount"]))), str(request["transactionRole"])

    def _blocked(self, account: Account, how: str, side: str) -> None:
        if account.sub_status == "BLOCK":
            text = f"Any transaction to {account.id} is not allowed, since the account is blocked"
            raise No(403, "error.msg.saving.account.blocked.transaction.not.allowed", text)
        if account.sub_status == how:
            raise No(403, f"error.msg.savings.account.{side}.transaction.not.allowed", f"{side} not allowed")

    def _release(self, account: Account, hold: Transaction) -> None:
        hold.release = self._book(account, "AMOUNT_RELEASE", hold.amount, None, "").id

    def _book(self, account: Account, kind: str, amount: Decimal, code: str | None, note: str) -> Transaction:
        made = Transaction(next(self._numbers), kind, amount, Decimal(0), datetime.now(UTC).date(), code, note)
        account.transactions.append(made)
        made.balance = account.withdrawable if kind.startswith("AMOUNT") else account.balance
        return made

    # --- As Fineract shows it ---

    def shown(self, account: Account) -> dict[str, Any]:
        """`GET /interoperation/accounts/{id}`."""
        return {
            "clientId": account.client,
            "accountId": account.external_id,
            "savingProductId": "1",
            "productName": "Current",
            "shortProductName": "CUR",
            "currency": account.currency,
            "accountBalance": account.balance.quantize(_SCALE),
            "availableBalance": account.withdrawable.quantize(_SCALE),
            "status": account.status,
            "subStatus": account.sub_status,
            "accountType": "INDIVIDUAL",
            "depositType": "SAVINGS_DEPOSIT",
            "activatedOn": [2020, 1, 1],
            "identifiers": [{"idType": id_type, "idValue": value} for id_type, value in account.identifiers],
        }

    def listed(self, account: Account, *, debit: bool, credit: bool) -> dict[str, Any]:
        """`GET /interoperation/accounts/{id}/transactions`: newest first, days without times."""
        wanted = [one for one in account.transactions if one.is_debit == debit or one.is_debit != credit]
        return {
            "resourceId": account.id,
            "transactions": [
                {
                    "accountId": account.external_id,
                    "savingTransactionId": str(one.id),
                    "transactionType": one.kind,
                    "amount": one.amount.quantize(_SCALE),
                    "currency": account.currency,
                    "accountBalance": one.balance.quantize(_SCALE),
                    "bookingDateTime": [one.on.year, one.on.month, one.on.day],
                    "valueDateTime": [one.on.year, one.on.month, one.on.day],
                    "note": f"{one.kind.capitalize()} {one.note} " if one.note else one.kind.capitalize(),
                }
                for one in sorted(wanted, key=lambda one: (one.on, one.id), reverse=True)
            ],
        }

    def savings(self, account: Account, *, transactions: bool) -> dict[str, Any]:
        """`GET /savingsaccounts/external-id/{id}`."""
        shown: dict[str, Any] = {
            "id": account.id,
            "externalId": account.external_id,
            "clientId": account.client,
            "status": {"code": f"savingsAccountStatusType.{account.status.lower()}"},
            "currency": {"code": account.currency, "decimalPlaces": CURRENCIES[account.currency]},
        }
        if transactions:
            shown["transactions"] = [_savings_transaction(one) for one in reversed(account.transactions)]
        return shown


def _savings_transaction(one: Transaction) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": one.id,
        "transactionType": {
            "code": f"savingsAccountTransactionType.{one.kind.lower()}",
            "value": one.kind.capitalize(),
            "deposit": one.kind == "DEPOSIT",
            "withdrawal": one.kind == "WITHDRAWAL",
            "feeDeduction": one.kind == "WITHDRAWAL_FEE",
            "amountHold": one.kind == "AMOUNT_HOLD",
            "amountRelease": one.kind == "AMOUNT_RELEASE",
        },
        "date": [one.on.year, one.on.month, one.on.day],
        "amount": one.amount.quantize(_SCALE),
        "runningBalance": one.balance.quantize(_SCALE),
        "reversed": one.reversed,
    }
    if one.code is not None:
        shown["paymentDetailData"] = {"id": one.id, "routingCode": ROUTING, "receiptNumber": one.code}
    if one.release is not None:
        shown["releaseTransactionId"] = one.release
    return shown


def _code(request: Mapping[str, Any]) -> str:
    code = request.get("transferCode")
    if not code:
        raise No(
            400, "validation.msg.InteropApi.transferCode.cannot.be.blank", "The parameter transferCode is mandatory."
        )
    if len(str(code)) > 50:
        raise Broken  # Data too long for column 'receipt_number'
    return str(code)


def _fee(request: Mapping[str, Any], account: Account) -> Decimal:
    fee = request.get("fspFee")
    if fee is None:
        return Decimal(0)
    if fee.get("currency") != account.currency:
        raise No(403, "error.msg.accounttransfer.different.currencies", "Trying to transfer")
    return account.rounded(Decimal(str(fee["amount"])))


def _insufficient() -> No:
    code = "error.msg.savingsaccount.transaction.insufficient.account.balance"
    return No(403, code, "Insufficient account balance.")


def _missing(account: Account, code: str) -> No:
    text = f"No matching transaction with transferCode {code} found for account {account.external_id}"
    return No(404, "error.msg.interop.onhold.transfer.missing", text)
