"""The accounts of our customers at STP: registered, in batches of a hundred, and removed.

STP registers the CLABE of each customer before it takes orders from it or money for it, of persons (*física*) and of
companies (*moral*). Each account carries its own signature over company, CLABE and tax id, also inside of a batch. The
numbers of these answers are not those of orders: 0 is a yes and every other number a no.

Registering twice does no harm (STP answers that the account is there), so what got lost is simply done again.
"""
# ruff: noqa: N815

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from connectors.stp.accounts import is_clabe
from connectors.stp.cleaning import clean, tax_id
from connectors.stp.client import StpHttp
from connectors.stp.signature import Signer
from connectors.stp.transport import NoReply, NotSent
from connectors.stp.wire import classify
from hub.errors import Unavailable, Uncertain

PATH: Final = "/speiws/rest/cuentaModule"
BATCH: Final = 100
"""Accounts in one call, by STP's rule."""

MEXICO: Final = 187
"""The country's number in STP's catalogue."""

_DROPPED: Final = re.compile(r"[-,.]")
_BLANKS: Final = re.compile(r" {2,}")


def plain(text: Any) -> str | None:
    """Text as the account module takes it: capital ASCII letters, with blanks for dashes, commas and full stops."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError("must be text")  # noqa: TRY004 (pydantic reports ValueError by field)
    return _BLANKS.sub(" ", _DROPPED.sub(" ", clean(text, longest=1000))).strip().upper() or None


def _clabe(value: str) -> str:
    if not is_clabe(value):
        raise ValueError("must be a CLABE: 18 digits with the right check digit")
    return value


def _known_tax_id(value: str) -> str:
    found = tax_id(value)
    if found == "ND":
        raise ValueError("must be an RFC or a CURP")
    return found


def _date(value: Any) -> str:
    text = str(value) if isinstance(value, int) else value
    if isinstance(text, str) and re.fullmatch(r"[0-9]{8}", text, re.ASCII):
        with suppress(ValueError):
            datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 (a date has no zone)
            return text
    raise ValueError("must be a date written as yyyymmdd")


Name = Annotated[Annotated[str, Field(max_length=50)], BeforeValidator(plain)]
Text5 = Annotated[Annotated[str, Field(max_length=5)] | None, BeforeValidator(plain)]
Text10 = Annotated[Annotated[str, Field(max_length=10)] | None, BeforeValidator(plain)]
Text20 = Annotated[Annotated[str, Field(max_length=20)] | None, BeforeValidator(plain)]
Text50 = Annotated[Annotated[str, Field(max_length=50)] | None, BeforeValidator(plain)]
Text60 = Annotated[Annotated[str, Field(max_length=60)] | None, BeforeValidator(plain)]
Clabe = Annotated[str, AfterValidator(_clabe)]
TaxId = Annotated[str, AfterValidator(_known_tax_id)]
Day = Annotated[str, BeforeValidator(_date)]


class Account(BaseModel):
    """What accounts of persons and of companies share. Field names are STP's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    batch_path: ClassVar[str]
    batch_member: ClassVar[str]

    cuenta: Clabe
    rfcCurp: TaxId

    def joined(self, company: str) -> str:
        """What is signed."""
        return f"||{company}|{self.cuenta}|{self.rfcCurp}||"

    def members(self, company: str, signature: str) -> dict[str, Any]:
        """The JSON object that is sent."""
        return {"empresa": company, **self.model_dump(exclude_none=True), "firma": signature}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***{self.cuenta[-4:]})"


class PersonAccount(Account):
    """*Cuenta física*: the account of a person."""

    kind = "fisica"
    batch_path = "fisicas"
    batch_member = "cuentasFisicas"

    nombre: Name
    apellidoPaterno: Name
    apellidoMaterno: Text50 = None
    paisNacimiento: int = Field(default=MEXICO, ge=1, le=999)
    fechaNacimiento: Day
    genero: Literal["H", "M"] | None = None
    entidadFederativa: int | None = Field(default=None, ge=1, le=32)
    actividadEconomica: int | None = Field(default=None, ge=28, le=74)
    calle: Text60 = None
    numeroExterior: Text10 = None
    numeroInterior: Text5 = None
    colonia: Text50 = None
    alcaldiaMunicipio: Text50 = None
    cp: str | None = Field(default=None, pattern="^[0-9]{5}$")
    email: str | None = Field(default=None, max_length=150, pattern=r"^[!-{}~]+@[!-{}~]+$")
    idIdentificacion: Text20 = None
    telefono: str | None = Field(default=None, pattern="^[0-9]{10}$")


class CompanyAccount(Account):
    """*Cuenta moral*: the account of a company."""

    kind = "moral"
    batch_path = "morales"
    batch_member = "cuentasMorales"

    nombre: Name
    pais: int = Field(default=MEXICO, ge=1, le=999)
    fechaConstitucion: Day


KINDS: Final[Mapping[str, type[Account]]] = {kind.kind: kind for kind in (PersonAccount, CompanyAccount)}


class AccountFileError(Exception):
    """The accounts cannot be used; the text names the account's place and the field, and repeats no value."""


def read_accounts(text: str, kind: str) -> list[Account]:
    """Accounts of one kind from a JSON list or one JSON object. Raises `AccountFileError`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise AccountFileError("the file is not JSON") from None
    listed = found if isinstance(found, list) else [found]
    return [_account(each, place, KINDS[kind]) for place, each in enumerate(listed)]


def _account(given: Any, place: int, kind: type[Account]) -> Account:
    if not isinstance(given, dict):
        raise AccountFileError(f"/{place}: must be a JSON object")
    given = {name: value for name, value in given.items() if name not in {"empresa", "firma"}}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problems = (
            f"/{place}/{'/'.join(str(part) for part in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise AccountFileError("; ".join(problems)) from None


# --- Answers --------------------------------------------------------------------------------------------------------


class Registration(StrEnum):
    """What became of an account at STP."""

    DONE = "done"
    """Registered (STP may still review it) or removed."""
    ALREADY_THERE = "already-there"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The answer cannot be read; doing it again does no harm."""


@dataclass(frozen=True, slots=True)
class Registered:
    """STP's answer about one account."""

    result: Registration
    error_id: int | None = None
    detail: str = ""
    """Our words for it, free of personal data."""


_PERSON_ERRORS: Final[Mapping[int, str]] = {
    1: "the signature, the RFC or CURP, or a field is not valid",
    2: "more than a hundred accounts at once",
    3: "the account is registered already",
    4: "the country is not valid",
    5: "a mandatory field is missing",
    6: "the date of birth is not valid",
    7: "refused for another cause, perhaps by the rules against money laundering",
}
_COMPANY_ERRORS: Final[Mapping[int, str]] = {
    1: "the signature is not valid",
    2: "more than a hundred accounts at once",
    3: "the account is registered already",
    4: "the RFC is not valid",
    5: "the name is not valid",
    6: "the company is not valid",
    7: "the country is not valid",
    8: "the date of constitution is not valid",
    9: "refused for another cause",
}
ERRORS: Final[Mapping[str, Mapping[int, str]]] = {
    PersonAccount.kind: _PERSON_ERRORS,
    CompanyAccount.kind: _COMPANY_ERRORS,
}
_DUPLICATE: Final = 3


def read_registered(kind: str, status: int, body: bytes, count: int) -> list[Registered]:
    """What STP answered about `count` accounts of one call, in their order."""
    unknown = [Registered(Registration.UNKNOWN, detail=f"HTTP {status}: the answer cannot be read")] * count
    if status != 200:
        return unknown
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return unknown
    if isinstance(found, list):
        return [_registered(kind, one) for one in found] if len(found) == count else unknown
    if isinstance(found, dict) and isinstance(found.get("resultado"), dict):
        # A removal was once answered in the form of an order, so the rule of orders applies to it.
        accepted = classify(status, body)
        done = Registered(Registration.DONE) if accepted.stp_id is not None else None
        return [done or Registered(Registration.UNKNOWN, accepted.error_id, accepted.detail)] * count
    one = _registered(kind, found)
    # One answer about many is only a no to all of them, never a yes.
    return [one] * count if count == 1 or one.result is Registration.REFUSED else unknown


def _registered(kind: str, answer: Any) -> Registered:
    number = answer.get("id") if isinstance(answer, dict) else None
    if isinstance(number, str) and re.fullmatch(r"-?[0-9]{1,9}", number, re.ASCII):
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool):
        return Registered(Registration.UNKNOWN, detail="the answer holds no id")
    if number == 0:
        return Registered(Registration.DONE)
    text = ERRORS[kind].get(number, "not documented")
    result = Registration.ALREADY_THERE if number == _DUPLICATE else Registration.REFUSED
    return Registered(result, number, f"STP {number}: {text}")


# --- The conversation -----------------------------------------------------------------------------------------------


class AccountRegistry:
    """One company's accounts at STP."""

    def __init__(self, stp: StpHttp, company: str, signer: Signer) -> None:
        self._stp = stp
        self._company = company
        self._signer = signer

    async def register(self, accounts: Sequence[Account]) -> list[Registered]:
        """Register accounts of one kind, a hundred at once; the answers stand in the order of the accounts.

        Raises `Unavailable` when nothing was sent and `Uncertain` when an answer got lost: do it again.
        """
        answers: list[Registered] = []
        for start in range(0, len(accounts), BATCH):
            batch = accounts[start : start + BATCH]
            kind, objects = batch[0], [await self._signed(account) for account in batch]
            path, body = f"{PATH}/{kind.batch_path}", {kind.batch_member: objects}
            if len(batch) == 1:
                path, body = f"{PATH}/{kind.kind}", objects[0]
            answers += await self._called("PUT", path, body, kind.kind, len(batch))
        return answers

    async def remove(self, account: Account) -> Registered:
        """Remove an account. Raises as `register` does."""
        body = await self._signed(account)
        wanted = {name: body[name] for name in ("empresa", "cuenta", "rfcCurp", "firma")}
        [answer] = await self._called("DELETE", f"{PATH}/{account.kind}", wanted, account.kind, 1)
        return answer

    async def _signed(self, account: Account) -> dict[str, Any]:
        return account.members(self._company, await self._signer.sign_aside(account.joined(self._company)))

    async def _called(self, method: str, path: str, body: Any, kind: str, count: int) -> list[Registered]:
        raw = json.dumps(body, separators=(",", ":")).encode()
        try:
            status, answer = await self._stp.command("accounts", method, path, raw)
        except NotSent as error:
            raise Unavailable(f"no connection to STP: {error}") from None
        except NoReply as error:
            raise Uncertain(f"no answer from STP: {error}") from None
        return read_registered(kind, status, answer, count)
