"""STP's operation dates: when a payment's day ends, and which days are none.

SPEI runs around the clock; its *operation date* changes at 18:00 in Mexico City, and what is sent later, or on a
Saturday, a Sunday or a bank holiday, belongs to the next banking day. Mexico City has had no daylight saving since
October 2022.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

MEXICO_CITY: Final = ZoneInfo("America/Mexico_City")
ROLLOVER: Final = time(18, 0)

_MONDAY: Final = 0
_SATURDAY: Final = 5


def easter(year: int) -> date:
    """Easter Sunday in the Gregorian calendar (the anonymous algorithm, valid for every year of it)."""
    golden, century = year % 19, year // 100
    skipped = century - century // 4 - (8 * century + 13) // 25 + 19 * golden + 15
    moon = skipped % 30
    moon -= (moon // 28) * (1 - (moon // 28) * (29 // (moon + 1)) * ((21 - golden) // 11))
    weekday = (year + year // 4 + moon + 2 - century + century // 4) % 7
    offset = moon - weekday
    month = 3 + (offset + 40) // 44
    return date(year, month, offset + 28 - 31 * (month // 4))


def _nth_monday(year: int, month: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(_MONDAY - first.weekday()) % 7 + 7 * (nth - 1))


@lru_cache(maxsize=64)
def bank_holidays(year: int) -> frozenset[date]:
    """The days on which Mexican banks are closed (yearly notice of the banking commission)."""
    days = {
        date(year, 1, 1),
        _nth_monday(year, 2, 1),  # constitution
        _nth_monday(year, 3, 3),  # Juárez
        easter(year) - timedelta(days=3),
        easter(year) - timedelta(days=2),
        date(year, 5, 1),
        date(year, 9, 16),
        date(year, 11, 2),
        _nth_monday(year, 11, 3),  # revolution
        date(year, 12, 12),  # bank employees
        date(year, 12, 25),
    }
    if (year - 2024) % 6 == 0:
        days.add(date(year, 10, 1))  # a president takes office
    return frozenset(days)


def is_banking_day(day: date) -> bool:
    return day.weekday() < _SATURDAY and day not in bank_holidays(day.year)


def next_banking_day(day: date) -> date:
    """The first banking day after `day`."""
    day += timedelta(days=1)
    while not is_banking_day(day):
        day += timedelta(days=1)
    return day


def operation_date(moment: datetime) -> date:
    """The operation date of something sent at `moment`. Raises `ValueError` for a moment without a time zone."""
    local = _local(moment)
    today = local.date()
    if is_banking_day(today) and local.time() < ROLLOVER:
        return today
    return next_banking_day(today)


def rollover_after(moment: datetime) -> datetime:
    """When the operation date of `moment` ends: 18:00 of that very date."""
    return datetime.combine(operation_date(moment), ROLLOVER, MEXICO_CITY)


def _local(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return moment.astimezone(MEXICO_CITY)
