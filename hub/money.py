"""Money: whole minor units of one ISO 4217 currency, and nothing else.

Amounts travel as decimal strings outside (`"12.50"`) and as integers of minor units inside (`1250`). No float is ever
accepted, because a float cannot hold a cent exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from pydantic import ConfigDict

# ISO 4217 active currency codes by number of minor digits (list one of the standard). Precious metals, test codes and
# units without minor digits defined ("N.A.") are left out on purpose: nobody pays wages with them.
_BY_DIGITS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
        "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
        "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
        "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
        "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER "
        "ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
MINOR_DIGITS: Final = {code: digits for digits, codes in _BY_DIGITS.items() for code in codes.split()}
"""Number of minor digits of each currency, for example `MINOR_DIGITS["MXN"] == 2`."""

MAX_MINOR: Final = 2**63 - 1
"""The largest amount, in minor units: what a PostgreSQL bigint and the engine's integers hold."""

_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,18})(?:\.([0-9]+))?", re.ASCII)


class BadMoney(ValueError):
    """The text or number is no amount of money in this currency."""


class MixedCurrencies(TypeError):
    """Two amounts of different currencies were added or compared."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of `minor` units (cents, for MXN) of `currency`; may be negative where a balance may be.

    Raises `BadMoney` for a float, a boolean, an unknown currency or an amount beyond `MAX_MINOR`.
    """

    minor: int
    currency: str

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True)

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise BadMoney(f"minor units must be an integer, not {type(self.minor).__name__}")
        if self.currency not in MINOR_DIGITS:
            raise BadMoney(f"{self.currency!r} is not an ISO 4217 currency")
        if abs(self.minor) > MAX_MINOR:
            raise BadMoney("the amount is too large")

    @classmethod
    def parse(cls, amount: str, currency: str) -> Self:
        """Read a decimal string such as `"12.50"`.

        Trailing zeros beyond the currency's digits are no loss and pass; any other extra digit is over-precise and
        raises `BadMoney`, as do signs, exponents, blanks and separators.
        """
        if not isinstance(amount, str):
            raise BadMoney(f"an amount is a decimal string, not {type(amount).__name__}")
        digits = MINOR_DIGITS.get(currency)
        if digits is None:
            raise BadMoney(f"{currency!r} is not an ISO 4217 currency")
        found = _DECIMAL.fullmatch(amount)
        if found is None:
            raise BadMoney("an amount is written like 12.50: digits, at most one point, no sign or separators")
        whole, fraction = found.group(1), found.group(2) or ""
        if fraction[digits:].strip("0"):
            raise BadMoney(f"{currency} has {digits} decimal places, the amount has more")
        return cls(int(whole) * 10**digits + int(fraction[:digits].ljust(digits, "0") or "0"), currency)

    @classmethod
    def zero(cls, currency: str) -> Self:
        return cls(0, currency)

    def decimal(self) -> str:
        """The amount as the decimal string of the wire, always with all of the currency's digits."""
        digits = MINOR_DIGITS[self.currency]
        sign, text = ("-" if self.minor < 0 else ""), str(abs(self.minor)).rjust(digits + 1, "0")
        return f"{sign}{text[:-digits]}.{text[-digits:]}" if digits else f"{sign}{text}"

    def __str__(self) -> str:
        return f"{self.decimal()} {self.currency}"

    def _minor_of(self, other: Money) -> int:
        if self.currency != other.currency:
            raise MixedCurrencies(f"{self.currency} and {other.currency} do not mix")
        return other.minor

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._minor_of(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._minor_of(other), self.currency)

    def __neg__(self) -> Money:
        return Money(-self.minor, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.minor < self._minor_of(other)

    def __le__(self, other: Money) -> bool:
        return self.minor <= self._minor_of(other)

    def __gt__(self, other: Money) -> bool:
        return self.minor > self._minor_of(other)

    def __ge__(self, other: Money) -> bool:
        return self.minor >= self._minor_of(other)

    def share(self, basis_points: int) -> Money:
        """`basis_points` ten-thousandths of this amount, rounded half to even (L87)."""
        quotient, rest = divmod(self.minor * basis_points, 10_000)
        return Money(quotient + (rest * 2 > 10_000 or (rest * 2 == 10_000 and quotient % 2 == 1)), self.currency)
