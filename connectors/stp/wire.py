"""STP's words exactly, and the translation both ways: orders out; answers, inquiries and callbacks in. All is pure.

Field names, codes and error numbers are STP's. The fields of `Orden` stand in the order in which they are signed.
"""
# ruff: noqa: N815

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from connectors.stp.accounts import STP, AccountKind, Beneficiary
from connectors.stp.cleaning import clean, tax_id
from connectors.stp.model import (
    AccountUnknown,
    ComplianceRefused,
    OrderRejected,
    OrderState,
    SendOutcome,
)
from connectors.stp.tracking import TrackingKey, is_tracking_key
from hub.errors import Rejected
from hub.money import Money
from hub.transfer import IdentifierType, Outcome, Party, Reason

# --- The order ------------------------------------------------------------------------------------------------------


def _whole(value: Any) -> int | None:
    """A whole number, from an integer or plain ASCII digits."""
    if value is None or (isinstance(value, str) and not value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,17}", value, re.ASCII):
        return int(value)  # with zeros before it, the number signed would not be the text sent
    raise ValueError("must be a whole number, written in digits without zeros before them")


def _amount(value: Any) -> Decimal | None:
    """An amount with at most two decimals: a decimal, an integer, or text such as `0.01`. Never a float."""
    if value is None or (isinstance(value, str) and not value):
        return None
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,17}(\.[0-9]+)?", value, re.ASCII):
        raise ValueError("must be an amount written like 12.50")
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError("must be an amount written like 12.50, never a binary float")  # noqa: TRY004
    amount = Decimal(value)
    if not amount.is_finite() or not 0 <= amount < Decimal(10) ** 17:
        raise ValueError("must be an amount of at most 17 digits before the point and no sign")
    exact = amount.quantize(Decimal("0.01"))
    if exact != amount:
        raise ValueError("has more than two decimals")
    return exact


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004 (pydantic reports ValueError by field)
    if "|" in value:
        raise ValueError("must not hold |, which separates the signed fields")
    if not value.isprintable() and any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in value):
        raise ValueError("must not hold control characters")
    return value


def _key(value: Any) -> str | None:
    text = _text(value)
    if text is not None and not is_tracking_key(text):
        raise ValueError("must be 1 to 30 letters and digits")
    return text


def _one_of(known: Collection[int | str], said: str) -> AfterValidator:
    """Lets through what STP's catalogue has."""

    def check(value: Any) -> Any:
        if value is not None and value not in known:
            raise ValueError(f"must be {said}")
        return value

    return AfterValidator(check)


PAYMENT_TYPES: Final = frozenset(range(37)) - {13}
"""`tipoPago`: the scheme's types of payment; 13 was never given out."""


def _date(value: Any) -> int | None:
    number = _whole(value)
    if number is not None:
        try:
            datetime.strptime(str(number), "%Y%m%d")  # noqa: DTZ007 (a date has no zone)
        except ValueError:
            raise ValueError("must be a date written as yyyymmdd") from None
    return number


Key = Annotated[str | None, BeforeValidator(_key)]
PaymentType = Annotated[
    int | None, BeforeValidator(_whole), _one_of(PAYMENT_TYPES, "a type of payment: 0 to 36, not 13")
]
AccountType = Annotated[
    int | None,
    BeforeValidator(_whole),
    _one_of(frozenset(map(int, AccountKind)), "3 (card), 10 (mobile) or 40 (CLABE)"),
]
Priority = Annotated[int | None, BeforeValidator(_whole), _one_of({0, 1}, "0 (normal) or 1 (high)")]
Topology = Annotated[str | None, BeforeValidator(_text), _one_of({"T", "V"}, "T or V")]
Code2 = Annotated[Annotated[int, Field(le=99)] | None, BeforeValidator(_whole)]
Code5 = Annotated[Annotated[int, Field(le=99_999)] | None, BeforeValidator(_whole)]
Reference = Annotated[Annotated[int, Field(ge=1, le=9_999_999)] | None, BeforeValidator(_whole)]
Amount = Annotated[Decimal | None, BeforeValidator(_amount)]
Day = Annotated[int | None, BeforeValidator(_date)]
Text10 = Annotated[Annotated[str, Field(max_length=10)] | None, BeforeValidator(_text)]
Text15 = Annotated[Annotated[str, Field(max_length=15)] | None, BeforeValidator(_text)]
Text18 = Annotated[Annotated[str, Field(max_length=18)] | None, BeforeValidator(_text)]
Text20 = Annotated[Annotated[str, Field(max_length=20)] | None, BeforeValidator(_text)]
Text40 = Annotated[Annotated[str, Field(max_length=40)] | None, BeforeValidator(_text)]
Text50 = Annotated[Annotated[str, Field(max_length=50)] | None, BeforeValidator(_text)]
Text150 = Annotated[Annotated[str, Field(max_length=150)] | None, BeforeValidator(_text)]


class Orden(BaseModel):
    """The 34 signed fields of an order, in the order in which they are signed. What is absent is signed as nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    institucionContraparte: Code5 = None
    empresa: Text15 = None
    fechaOperacion: Day = None
    folioOrigen: Text50 = None
    claveRastreo: Key = None
    institucionOperante: Code5 = None
    monto: Amount = None
    tipoPago: PaymentType = None
    tipoCuentaOrdenante: AccountType = None
    nombreOrdenante: Text40 = None
    cuentaOrdenante: Text20 = None
    rfcCurpOrdenante: Text18 = None
    tipoCuentaBeneficiario: AccountType = None
    nombreBeneficiario: Text40 = None
    cuentaBeneficiario: Text20 = None
    rfcCurpBeneficiario: Text18 = None
    emailBeneficiario: Text150 = None
    tipoCuentaBeneficiario2: AccountType = None
    nombreBeneficiario2: Text40 = None
    cuentaBeneficiario2: Text20 = None
    rfcCurpBeneficiario2: Text18 = None
    conceptoPago: Text40 = None
    conceptoPago2: Text40 = None
    claveCatUsuario1: Text50 = None
    claveCatUsuario2: Text50 = None
    clavePago: Text10 = None
    referenciaCobranza: Text40 = None
    referenciaNumerica: Reference = None
    tipoOperacion: Code2 = None
    topologia: Topology = None
    usuario: Text50 = None
    medioEntrega: Code2 = None
    prioridad: Priority = None
    iva: Amount = None

    def joined(self) -> str:
        """What is signed: `||`, the 34 values separated by `|`, `||`. A zero prints `0`, an amount two decimals."""
        return f"||{'|'.join([_plain(getattr(self, name)) for name in SIGNED])}||"

    def body(self, signature: str, unsigned: Mapping[str, str] | None = None) -> str:
        """The JSON that is sent: the fields that are present, `unsigned` ones, the signature. Always the same bytes."""
        present = [(name, value) for name in SIGNED if (value := getattr(self, name)) is not None]
        members = [f"{json.dumps(name)}:{_json(value)}" for name, value in (*present, *(unsigned or {}).items())]
        members.append(f'"firma":{json.dumps(signature)}')
        return "{" + ",".join(members) + "}"


SIGNED: Final = tuple(Orden.model_fields)
"""The names of the signed fields, in their order."""

UNSIGNED: Final = ("latitud", "longitud")
"""Fields of an order that newer clients send and nobody signs: the position of the device."""


def _plain(value: str | int | Decimal | None) -> str:
    return "" if value is None else str(value)


def _json(value: str | int | Decimal) -> str:
    return json.dumps(value) if isinstance(value, str) else str(value)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: what STP knows of one tenant, the same in each of its orders."""

    company: str
    payer_account: str
    operating_institution: int = STP
    constants: tuple[tuple[str, str | int], ...] = ()
    """What stands in each of its orders, by STP's names, beside or instead of `CONSTANTS`."""
    payer_name: str | None = None
    """Who pays where the tenant itself does; its company's alias when unset."""
    payer_tax_id: str | None = None

    def as_party(self) -> Party:
        """The tenant as a payer."""
        return Party(
            id_type=IdentifierType.CLABE,
            identifier=self.payer_account,
            name=self.payer_name or self.company,
            tax_id=self.payer_tax_id,
        )


CONSTANTS: Final[Mapping[str, str | int]] = {"tipoPago": 1, "topologia": "T", "medioEntrega": 3, "prioridad": 0}
"""What stands in every order: from one customer to another, by SPEI's usual way, with normal priority."""

FREE: Final = frozenset(CONSTANTS) | {
    "claveCatUsuario1",
    "claveCatUsuario2",
    "clavePago",
    "conceptoPago2",
    "referenciaCobranza",
    "tipoOperacion",
    "usuario",
}
"""The fields that a company's contract may fix; the rest follows from the payment."""


NO_NAME: Final = "ND"
"""*No disponible*: what the scheme's users write for a name they do not have."""

NO_CONCEPT: Final = "PAGO"
"""What stands in the concept when nothing of the given one can be carried; the field must not be blank."""


def orden(
    *,
    sender: Sender,
    key: TrackingKey,
    amount: Money,
    payer: Party,
    payee: Party,
    beneficiary: Beneficiary,
    concept: str,
    reference: int,
) -> Orden:
    """A payment in STP's words, its text cleaned. `fechaOperacion` stays absent: STP assigns it."""
    return Orden(
        **{**CONSTANTS, **dict(sender.constants)},  # type: ignore[arg-type]  # checked by the model
        institucionContraparte=beneficiary.institution,
        empresa=sender.company,
        folioOrigen=key,
        claveRastreo=key,
        institucionOperante=sender.operating_institution,
        monto=Decimal(amount.decimal()),
        tipoCuentaOrdenante=AccountKind.CLABE,
        nombreOrdenante=clean(payer.name) or NO_NAME,
        cuentaOrdenante=sender.payer_account,
        rfcCurpOrdenante=tax_id(payer.tax_id),
        tipoCuentaBeneficiario=beneficiary.kind,
        nombreBeneficiario=clean(payee.name) or NO_NAME,
        cuentaBeneficiario=beneficiary.account,
        rfcCurpBeneficiario=tax_id(payee.tax_id),
        conceptoPago=clean(concept) or NO_CONCEPT,
        referenciaNumerica=reference,
    )


# --- A deposit given back -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Devolucion:
    """An incoming transfer that is given back to its sender: `retornaOrden`. The company is sent and not signed."""

    company: str
    operation_date: date
    """Of the deposit."""
    sender_institution: int
    tracking_key: str
    """The deposit's, chosen by the sending bank: it may hold more than letters and digits."""
    amount: Decimal
    return_key: TrackingKey
    """The key of the transfer back, which is another."""

    def __post_init__(self) -> None:
        if "|" in self.tracking_key or not self.tracking_key.isprintable() or not 1 <= len(self.tracking_key) <= 30:
            raise ValueError("the deposit's tracking key cannot be signed: 1 to 30 printable characters, no |")
        if self.tracking_key == self.return_key:
            raise ValueError("a transfer back needs a tracking key of its own")

    def joined(self) -> str:
        """What is signed."""
        signed = (
            f"{self.operation_date:%Y%m%d}",
            str(self.sender_institution),
            self.tracking_key,
            f"{self.amount:.2f}",
            _BENEFICIARY_DIGIT,
            self.return_key,
            _DELIVERY,
        )
        return f"||{'|'.join(signed)}||"

    def body(self, signature: str) -> str:
        """The JSON that is sent, always the same bytes."""
        return json.dumps(
            {
                "fechaOperacion": int(f"{self.operation_date:%Y%m%d}"),
                "institucionOperante": self.sender_institution,
                "claveRastreo": self.tracking_key,
                "claveRastreoDevolucion": self.return_key,
                "empresa": self.company,
                "monto": f"{self.amount:.2f}",
                "digitoIdentificadorBeneficiario": _BENEFICIARY_DIGIT,
                "medioEntrega": _DELIVERY,
                "firma": signature,
            },
            separators=(",", ":"),
        )


_BENEFICIARY_DIGIT: Final = "2"
_DELIVERY: Final = "3"


# --- The answer to an order -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt to send an order came to."""

    outcome: SendOutcome
    stp_id: int | None = None
    error_id: int | None = None
    error_text: str = ""
    """STP's own text. It may hold personal data: it is kept in the database and goes nowhere else."""
    detail: str = ""
    """Our words for it, free of personal data."""
    documented: bool = True
    """False for a negative number that nobody documents: it is verified before it is believed."""


@dataclass(frozen=True, slots=True)
class _Error:
    outcome: SendOutcome
    text: str
    refusal: type[Rejected] = OrderRejected


def _no(text: str, refusal: type[Rejected] = OrderRejected) -> _Error:
    return _Error(SendOutcome.REJECTED, text, refusal)


ERRORS: Final[Mapping[int, _Error]] = {
    1: _no("a mandatory datum is missing"),
    2: _no("a datum is not in STP's catalogue"),
    3: _no("the account does not belong to the company"),
    4: _no("the account is not valid", AccountUnknown),
    5: _no("a datum is duplicated"),
    6: _no("the account is not associated"),
    7: _no("the account is not enabled"),
    8: _no("the RFC or CURP is not valid"),
    -1: _Error(SendOutcome.ALREADY_REGISTERED, "the tracking key is in use"),
    -2: _Error(SendOutcome.ALREADY_REGISTERED, "the order is a duplicate"),
    -3: _no("the key is not in the user's catalogue"),
    -5: _no("the counterpart is missing"),
    -6: _no("the company or the operating institution is not valid"),
    -7: _no("the payer's account does not exist"),
    -9: _no("the counterpart institution is not valid", AccountUnknown),
    -10: _no("the means of delivery is not valid"),
    -11: _no("the type of account is not valid", AccountUnknown),
    -12: _no("the type of operation is not valid"),
    -13: _no("the type of payment is not valid"),
    -14: _no("the user is not valid"),
    -16: _no("the operation date is not valid"),
    -17: _no("the user cannot be determined"),
    -18: _no("the operating institution is not associated"),
    -20: _no("the amount is not valid"),
    -21: _no("the check digit of the account is wrong", AccountUnknown),
    -22: _no("the account does not match the institution", AccountUnknown),
    -23: _no("the length of the account is wrong", AccountUnknown),
    -24: _no("payer and payee are the same account"),
    -26: _no("the tracking key is not valid"),
    -30: _Error(SendOutcome.RETRYABLE, "STP answers consults only for the moment"),
    -31: _no("the institution does not operate with this company"),
    -34: _no("a value or the tracking key holds characters that are not valid"),
    -200: _no("refused by the rules against money laundering", ComplianceRefused),
}
"""Every error number that a source documents. The rest of the negative ones is unknown and gets verified."""

NO_SUCH_DEPOSIT: Final = -1
"""What -1 means in the answer to a deposit given back, where no tracking key of ours can be in use."""

_FIELD_MISSING: Final = re.compile(r"el campo <?\s*([a-z0-9]+)\s*>? es obligatorio")


def classify(status: int, body: bytes) -> Answer:
    """What STP's answer means, by the id rule (L43) and the error table. Whatever is not certain is UNKNOWN.

    The page that the gateway shows to whoever comes from outside of the VPN is no answer of STP's: nothing passed it.
    """
    if status == 403 and body.lstrip()[:1] == b"<":
        return Answer(SendOutcome.NOT_SENT, detail="the gateway in front of STP turned us away (HTTP 403)")
    if status != 200:
        return Answer(SendOutcome.UNKNOWN, detail=f"HTTP {status}")
    result = _member(_json_object(body), "resultado")
    if not isinstance(result, dict):
        return Answer(SendOutcome.UNKNOWN, detail="the answer cannot be read")
    return _by_the_id_rule(result)


def classify_return(status: int, body: bytes) -> Answer:
    """What STP's answer to a deposit given back means: as of an order, but -1 says that there is no such deposit.

    It says the same of a deposit that has gone back already, so it is verified, and after an attempt in doubt it says
    nothing.
    """
    answer = classify(status, body)
    if answer.error_id != NO_SUCH_DEPOSIT:
        return answer
    text = f"STP {NO_SUCH_DEPOSIT}: there is no such deposit to give back"
    return Answer(SendOutcome.REJECTED, None, NO_SUCH_DEPOSIT, answer.error_text, text, documented=False)


def _by_the_id_rule(result: Mapping[str, Any]) -> Answer:
    number, text = _integer(result.get("id")), _described(result.get("descripcionError"))
    if number is None:
        return Answer(SendOutcome.UNKNOWN, error_text=text, detail="the answer holds no id")
    if number > 999 and not text:
        return Answer(SendOutcome.ACCEPTED, stp_id=number)
    if number == 0:
        return _by_text(text)
    if number < 0 or (number <= 8 and text):
        return _by_number(number, text)
    return Answer(SendOutcome.UNKNOWN, error_id=number, error_text=text, detail=f"STP {number}: no known meaning")


def _by_number(number: int, text: str) -> Answer:
    known = ERRORS.get(number)
    if known is None:
        detail = f"STP {number}: not documented"
        return Answer(SendOutcome.REJECTED, None, number, text, detail, documented=False)
    return Answer(known.outcome, None, number, text, f"STP {number}: {known.text}")


def _by_text(text: str) -> Answer:
    """The meaning of id 0, STP's number for everything else."""
    folded = _folded(html.unescape(text))
    if "firma" in folded and ("error validando" in folded or "invalida" in folded):
        detail = "STP 0: the signature, the certificate or the company is not accepted"
        return Answer(SendOutcome.CONFIG_ERROR, None, 0, text, detail)
    missing = _FIELD_MISSING.search(folded)
    if missing:
        name = next((name for name in SIGNED if name.lower() == missing.group(1)), "of the order")
        return Answer(SendOutcome.REJECTED, None, 0, text, f"STP 0: the field {name} is mandatory")
    detail = "STP 0: no answer from its own service" if "no se recibio respuesta" in folded else "STP 0: unknown text"
    return Answer(SendOutcome.UNKNOWN, None, 0, text, detail)


def refusal(error_id: int | None, detail: str) -> Rejected:
    """The refusal that belongs to a certain rejection."""
    known = ERRORS.get(error_id) if error_id is not None else None
    return (known.refusal if known else OrderRejected)(detail)


# --- States and causes ----------------------------------------------------------------------------------------------

_STATES: Final[Mapping[OrderState, str]] = {
    OrderState.SETTLED: "LQ TLQ CCO CXO CCE liquidacion liquidada liquidado success exito",
    OrderState.RETURNED: "D TD RE devolucion devuelta devuelto refund",
    OrderState.CANCELLED: "CN CL CA CR RL RA RB TCL EL cancelacion cancelada cancelado cancel decline",
    OrderState.PENDING: "C PL L PA A E EA XC XD XR R EP EC TC TL TA CCR",
}
STATE_OF: Final[Mapping[str, OrderState]] = {
    word.lower(): state for state, words in _STATES.items() for word in words.split()
}
"""Every state word of consults and of the three callback dialects, in lower case."""


def state_of(word: str) -> OrderState | None:
    """What a state word means; nothing for a word that nobody documents (pending, and somebody is told: L32)."""
    return STATE_OF.get(_folded(word))


@dataclass(frozen=True, slots=True)
class _Cause:
    text: str
    reason: Reason = Reason.SCHEME_RETURNED


CAUSES: Final[Mapping[int, _Cause]] = {
    0: _Cause("other"),
    1: _Cause("the account does not exist", Reason.ACCOUNT_UNKNOWN),
    2: _Cause("the account is blocked", Reason.ACCOUNT_FROZEN),
    3: _Cause("the account is cancelled", Reason.ACCOUNT_CLOSED),
    5: _Cause("the account is in another currency", Reason.CURRENCY_MISMATCH),
    6: _Cause("the account is not of the receiving bank", Reason.ACCOUNT_UNKNOWN),
    13: _Cause("the beneficiary does not recognise the payment"),
    14: _Cause("a mandatory datum is missing"),
    15: _Cause("the type of payment is wrong"),
    16: _Cause("the type of operation is wrong"),
    17: _Cause("the type of account does not match", Reason.ACCOUNT_UNKNOWN),
    18: _Cause("the sender asked for it"),
    19: _Cause("a character is not valid"),
    20: _Cause("the account's balance limit is exceeded", Reason.AMOUNT_NOT_ALLOWED),
    21: _Cause("the account's monthly deposits are exceeded", Reason.AMOUNT_NOT_ALLOWED),
    22: _Cause("the mobile number is not registered", Reason.ACCOUNT_UNKNOWN),
    23: _Cause("the additional account cannot receive"),
    24: _Cause("the additional data is not well formed"),
    25: _Cause("the dispersal instruction is missing"),
    26: _Cause("protection agreement"),
    27: _Cause("the beneficiary refused an optional payment"),
    28: _Cause("CoDi payment without notice"),
    30: _Cause("the tracking key is repeated by sender and day"),
    31: _Cause("the sender's certificate has expired"),
}
"""Causes of a return, by the scheme's numbers (which are not consecutive)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an order came back, as far as it was said."""

    code: int | None = None
    text: str = ""


def cause_of(value: Any) -> Cause:
    """A cause as STP writes it: a number, digits, a Spanish sentence, nothing at all."""
    code = _integer(value)
    if code is not None:
        return Cause(code) if 0 <= code <= 999 else Cause()
    return Cause(text=_safe(value) or "")


def outcome_of(state: OrderState, cause: int | None) -> tuple[Outcome, Reason, str | None]:
    """A final state in the hub's words: outcome, reason, and a detail for people.

    Raises `ValueError` for a state that is not final.
    """
    match state:
        case OrderState.SETTLED:
            return Outcome.SETTLED, Reason.NONE, None
        case OrderState.CANCELLED:
            return Outcome.CANCELLED, Reason.SCHEME_CANCELLED, "STP cancelled the order; it was never sent on"
        case OrderState.RETURNED:
            known = CAUSES.get(cause) if cause is not None else None
            if known is None:
                said = "no cause was given" if cause is None else f"cause {cause}"
                return Outcome.RETURNED, Reason.SCHEME_RETURNED, f"returned: {said}"
            return Outcome.RETURNED, known.reason, f"returned: cause {cause}, {known.text}"
        case OrderState.PENDING:
            raise ValueError("a pending order has no outcome")


# --- Inquiries ------------------------------------------------------------------------------------------------------


def inquiry_joined(company: str, key: str, day: date | None) -> str:
    """What is signed to ask for one order that we sent (E), on one operation date or, without it, the current one."""
    return f"||{company}|{key}|E|{_day(day)}||"


def inquiry_body(company: str, key: str, day: date | None, signature: str) -> bytes:
    asked: dict[str, Any] = {"empresa": company, "claveRastreo": key, "tipoOrden": "E"}
    if day is not None:
        asked["fechaOperacion"] = int(_day(day))
    asked["firma"] = signature
    return json.dumps(asked, separators=(",", ":")).encode()


def _day(day: date | None) -> str:
    return "" if day is None else day.strftime("%Y%m%d")


@dataclass(frozen=True, slots=True)
class FoundOrder:
    """An order as STP shows it."""

    key: str
    stp_id: int | None
    word: str
    state: OrderState | None
    amount: Decimal | None
    beneficiary_account: str | None
    cause: Cause
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class NotFound:
    """STP shows no such order on that date. Right after sending this is normal."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The question was not answered: nothing follows from it."""

    detail: str
    limited: bool = False
    """STP says that the company has asked too much."""


InquiryAnswer = FoundOrder | NotFound | NoAnswer

_NO_DATA, _FUTURE_DATE, _LIMIT = 6, 8, 3


def read_inquiry(status: int, body: bytes) -> InquiryAnswer:
    """What an answer to an inquiry means. STP answers HTTP 400 for an order it does not have."""
    answer = _json_object(body)
    result = _member(answer, "resultado")
    if isinstance(result, dict) and _integer(result.get("id")) == -100:
        return NotFound()
    state = _integer(_member(answer, "estado"))
    if state == 0 and status == 200:
        shown = _member(answer, "respuesta")
        return _found(shown) if isinstance(shown, dict) else NoAnswer("the answer holds no order")
    if state in {_NO_DATA, _FUTURE_DATE} and status in {200, 400}:
        return NotFound()
    if state == _LIMIT:
        return NoAnswer("the limit of inquiries is exceeded", limited=True)
    return NoAnswer(f"HTTP {status}, estado {state}")


def _found(shown: Mapping[str, Any]) -> InquiryAnswer:
    key, word = _safe(shown.get("claveRastreo")), _safe(shown.get("estado"))
    if key is None or word is None:
        return NoAnswer("the order that was shown has no key or no state")
    return FoundOrder(
        key=key,
        stp_id=_integer(shown.get("idEF")),
        word=word,
        state=state_of(word),
        amount=_decimal(shown.get("monto")),
        beneficiary_account=_safe(shown.get("cuentaBeneficiario")),
        cause=cause_of(shown.get("causaDevolucion")),
        settled_at=instant(shown.get("tsLiquidacion")),
    )


# --- Conciliation and balance ---------------------------------------------------------------------------------------


def conciliation_joined(company: str, kind: str, day: date | None) -> str:
    """What is signed to ask for a page of a date's orders, sent (E) or received (R). The page is not signed."""
    return f"||{company}|{kind}|{_day(day)}||"


def conciliation_body(company: str, kind: str, day: date | None, page: int, signature: str) -> bytes:
    asked: dict[str, Any] = {"empresa": company, "tipoOrden": kind, "page": page}
    if day is not None:
        asked["fechaOperacion"] = int(_day(day))
    asked["firma"] = signature
    return json.dumps(asked, separators=(",", ":")).encode()


def balance_joined(company: str, account: str, day: date | None) -> str:
    """What is signed to ask for an account's balance."""
    return f"||{company}|{account}|{_day(day)}||"


def balance_body(company: str, account: str, day: date | None, signature: str) -> bytes:
    asked: dict[str, Any] = {"empresa": company, "cuentaOrdenante": account}
    if day is not None:
        asked["fecha"] = int(_day(day))
    asked["firma"] = signature
    return json.dumps(asked, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What STP shows of Banco de México's electronic receipt (CEP). Evidence: it decides nothing."""

    seal: str | None
    url: str | None
    name: str | None
    tax_id: str | None


@dataclass(frozen=True, slots=True)
class ListedOrder:
    """One line of a conciliation page."""

    order: FoundOrder
    institution: int | None
    """The other side's."""
    payment_type: int | None
    return_key: str | None
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a date's orders. The total is not kept: on the current date it lags behind the lines."""

    lines: tuple[ListedOrder, ...]
    unreadable: int
    """Lines that hold no order; the null at the end of some lists is not counted."""


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """STP answers no more questions for the moment."""


def read_page(status: int, body: bytes) -> Page | LimitExceeded | NoAnswer:
    """What an answer to a question for a page means. An empty date is HTTP 400 to STP, and an empty page to us."""
    answer = _json_object(body)
    state = _integer(_member(answer, "estado"))
    if state == _LIMIT:
        return LimitExceeded()
    if state == _NO_DATA and status in {200, 400}:
        return Page((), 0)
    lines = _member(answer, "datos")
    if status != 200 or state != 0 or not isinstance(lines, list):
        return NoAnswer(f"HTTP {status}, estado {state}")
    read = [_listed(line) if isinstance(line, dict) else None for line in lines if line is not None]
    return Page(tuple(line for line in read if line is not None), read.count(None))


def _listed(line: Mapping[str, Any]) -> ListedOrder | None:
    found = _found(line)
    if not isinstance(found, FoundOrder) or found.stp_id is None or found.amount is None:
        return None
    receipt = Receipt(*(_safe(line.get(name)) for name in ("sello", "urlCEP", "nombreCep", "rfcCep")))
    return ListedOrder(
        order=found,
        institution=_integer(line.get("institucionContraparte")),
        payment_type=_integer(line.get("tipoPago")),
        return_key=_safe(line.get("claveRastreoDevolucion")),
        receipt=receipt if receipt.seal or receipt.url else None,
    )


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """What is on an account at STP, and what is being sent from it; MXN with two decimals."""

    balance: Decimal
    pending: Decimal


def read_balance(status: int, body: bytes) -> AccountBalance | LimitExceeded | NoAnswer:
    """What an answer to a question for a balance means. Amounts come as numbers or as text."""
    answer = _json_object(body)
    state, shown = _integer(_member(answer, "estado")), _member(answer, "respuesta")
    if state == _LIMIT:
        return LimitExceeded()
    if status == 200 and state == 0 and isinstance(shown, dict):
        balance, pending = _decimal(shown.get("saldo")), _decimal(shown.get("cargosPendientes"))
        if balance is not None and pending is not None:
            return AccountBalance(balance, pending)
    return NoAnswer(f"HTTP {status}, estado {state}")


# --- Callbacks ------------------------------------------------------------------------------------------------------


class MalformedCallback(ValueError):
    """A body that is no status of any dialect; the text says why and repeats none of it."""


@dataclass(frozen=True, slots=True)
class StatusNotice:
    """A status callback, whichever dialect it came in."""

    stp_id: int | None
    key: str | None
    folio: str | None
    company: str | None
    word: str
    state: OrderState | None
    cause: Cause
    settled_at: datetime | None


def read_status(body: bytes) -> StatusNotice:
    """Read a status callback. Raises `MalformedCallback`.

    The dialects differ in which names they use and how these are spelled: A (`id`, `Estado`, `Detalle`), B
    (`folioOrigen`, `estado` in English or Spanish words), C (`claveRastreo`, `estado` LQ, CN or D). All are read alike.
    """
    given = _json_object(body)
    if given is None:
        raise MalformedCallback("the body is no JSON object")
    said = {name.lower(): value for name, value in given.items()}
    word = _safe(said.get("estado"))
    if word is None:
        raise MalformedCallback("estado is missing")
    notice = StatusNotice(
        stp_id=_integer(said.get("id")),
        key=_safe(said.get("claverastreo")),
        folio=_safe(said.get("folioorigen")),
        company=_safe(said.get("empresa")),
        word=word,
        state=state_of(word),
        cause=cause_of(said.get("causadevolucion", said.get("detalle"))),
        settled_at=instant(said.get("tsliquidacion")),
    )
    if notice.stp_id is None and notice.key is None and notice.folio is None:
        raise MalformedCallback("id, claveRastreo and folioOrigen are all missing")
    return notice


# --- Deposits -------------------------------------------------------------------------------------------------------

MONEY_BACK: Final = frozenset({0, 16, 17, 18, 23, 24})
"""`tipoPago` of money that comes back: returns, reversals, late and special ones."""


@dataclass(frozen=True, slots=True)
class DepositNotice:
    """Money that arrived, as STP tells it (`sendabono`), in its newer or its older form."""

    stp_id: int | None
    sender_institution: int
    key: str
    """Chosen by the sending bank: any characters, and other banks may choose the same."""
    returned_key: str | None
    """`claveRastreoDevolucion`, on money that comes back."""
    operation_date: date | None
    amount: int
    """Centavos."""
    company: str | None
    payment_type: int | None
    account: str | None
    kind: AccountKind | None
    payer_account: str | None
    payer_kind: AccountKind | None
    payer_name: str | None
    payer_tax_id: str | None
    payee_name: str | None
    concept: str
    reference: int | None


def read_deposit(body: bytes) -> DepositNotice:
    """Read a deposit. Names count whatever their case. Raises `MalformedCallback` when it cannot be told apart."""
    given = _json_object(body)
    if given is None:
        raise MalformedCallback("the body is no JSON object")
    said = {name.lower(): value for name, value in given.items()}
    sender, key = _integer(said.get("institucionordenante")), _safe(said.get("claverastreo"))
    stp_id, day = _integer(said.get("id", said.get("clave"))), _day_of(said.get("fechaoperacion"))
    if sender is None or not 0 < sender <= 99_999:
        raise MalformedCallback("institucionOrdenante is missing")
    if key is None or len(key) > _LONGEST_KEY:
        raise MalformedCallback("claveRastreo is missing or too long")
    if stp_id is None and day is None:
        raise MalformedCallback("id and fechaOperacion are both missing")
    account, payer = _account(said.get("cuentabeneficiario")), _account(said.get("cuentaordenante"))
    reference = _integer(said.get("referencianumerica"))
    return DepositNotice(
        stp_id=stp_id,
        sender_institution=sender,
        key=key,
        returned_key=_safe(said.get("claverastreodevolucion")),
        operation_date=day,
        amount=_centavos(said.get("monto")),
        company=_safe(said.get("empresa")),
        payment_type=_integer(said.get("tipopago")),
        account=account,
        kind=_kind(said.get("tipocuentabeneficiario"), account),
        payer_account=payer,
        payer_kind=_kind(said.get("tipocuentaordenante"), payer),
        payer_name=_safe(said.get("nombreordenante")),
        payer_tax_id=_safe(said.get("rfccurpordenante")),
        payee_name=_safe(said.get("nombrebeneficiario")),
        concept=_safe(said.get("conceptopago")) or "",
        reference=reference if reference is not None and 0 <= reference <= 9_999_999 else None,
    )


_LONGEST_KEY: Final = 60
_KIND_BY_LENGTH: Final[Mapping[int, AccountKind]] = {
    10: AccountKind.MOBILE,
    15: AccountKind.CARD,
    16: AccountKind.CARD,
    18: AccountKind.CLABE,
}


def _centavos(value: Any) -> int:
    amount = _decimal(value)
    if amount is None or not 0 < amount < Decimal(10) ** 15:
        raise MalformedCallback("monto is missing or no amount")
    centavos = amount.scaleb(2)
    if centavos != centavos.to_integral_value():
        raise MalformedCallback("monto has more than two decimals")
    return int(centavos)


def _day_of(value: Any) -> date | None:
    number = _integer(value)
    try:
        return None if number is None else datetime.strptime(str(number), "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _account(value: Any) -> str | None:
    text = _safe(value)
    return text if text is not None and re.fullmatch(r"[0-9]{1,20}", text, re.ASCII) else None


def _kind(value: Any, account: str | None) -> AccountKind | None:
    """The kind of an account, where its length can be one; STP may leave the kind out."""
    by_length = _KIND_BY_LENGTH.get(len(account)) if account is not None else None
    said = _integer(value)
    return by_length if said is None or said == by_length else None


# --- Reading JSON that others wrote ---------------------------------------------------------------------------------

_BIGGEST: Final = 2**63 - 1


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _member(found: dict[str, Any] | None, name: str) -> Any:
    return None if found is None else found.get(name)


def _integer(value: Any) -> int | None:
    """An integer, or an integer in text, that a database can hold."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _BIGGEST:
        return None
    return value


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        return None
    try:
        found = Decimal(value)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _safe(value: Any) -> str | None:
    """Text that a database can hold: no control characters, no halves of characters, not endless; none when blank."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = "".join(letter for letter in str(value)[:200] if unicodedata.category(letter) not in {"Cc", "Cs"})
    return text.strip() or None


def _described(value: Any) -> str:
    """STP's error text; any value that is not blank text counts as one, so that it never passes for success."""
    if value is None:
        return ""
    return _safe(value if isinstance(value, str) else json.dumps(value, default=str)) or ""


def _folded(text: str) -> str:
    """Lower case without accents, for comparing."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).strip().lower()


def instant(value: Any) -> datetime | None:
    """A moment in epoch milliseconds. STP sends small durations in the same fields, so only 13 digits count."""
    number = _integer(value)
    if number is None or not 10**12 <= number < 10**13:
        return None
    return datetime.fromtimestamp(number / 1000, UTC)
