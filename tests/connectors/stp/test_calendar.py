"""Operation dates: the rollover at 18:00 in Mexico City, weekends and bank holidays."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.stp.calendar import (
    MEXICO_CITY,
    bank_holidays,
    easter,
    is_banking_day,
    next_banking_day,
    operation_date,
    rollover_after,
)


@pytest.mark.parametrize(
    "sunday",
    ["1818-03-22", "1943-04-25", "1961-04-02", "2000-04-23", "2008-03-23", "2019-04-21", "2020-04-12", "2021-04-04",
     "2022-04-17", "2023-04-09", "2024-03-31", "2025-04-20", "2026-04-05", "2027-03-28", "2028-04-16", "2029-04-01",
     "2030-04-21", "2035-03-25", "2038-04-25", "2049-04-18", "2076-04-19", "2106-04-18", "2285-03-22"],
)  # fmt: skip
def test_easter_falls_where_the_church_has_it(sunday):
    day = date.fromisoformat(sunday)
    assert easter(day.year) == day


def test_the_bank_holidays_of_2026():
    assert sorted(bank_holidays(2026)) == [
        date(2026, 1, 1), date(2026, 2, 2), date(2026, 3, 16), date(2026, 4, 2), date(2026, 4, 3), date(2026, 5, 1),
        date(2026, 9, 16), date(2026, 11, 2), date(2026, 11, 16), date(2026, 12, 12), date(2026, 12, 25),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("year", "days"),
    [
        (2024, "0101 0205 0318 0328 0329 0501 0916 1001 1102 1118 1212 1225"),
        (2025, "0101 0203 0317 0417 0418 0501 0916 1102 1117 1212 1225"),
        (2027, "0101 0201 0315 0325 0326 0501 0916 1102 1115 1212 1225"),
        (2028, "0101 0207 0320 0413 0414 0501 0916 1102 1120 1212 1225"),
        (2030, "0101 0204 0318 0418 0419 0501 0916 1001 1102 1118 1212 1225"),
    ],
)
def test_the_bank_holidays_of_other_years(year, days):
    assert " ".join(f"{day:%m%d}" for day in sorted(bank_holidays(year))) == days


@pytest.mark.parametrize(("year", "closed"), [(2024, True), (2025, False), (2026, False), (2030, True)])
def test_banks_close_when_a_president_takes_office(year, closed):
    assert (date(year, 10, 1) in bank_holidays(year)) is closed


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("2026-11-18T17:59:59", date(2026, 11, 18)),
        ("2026-11-18T18:00:00", date(2026, 11, 19)),
        ("2026-11-20T18:00:00", date(2026, 11, 23)),  # Friday evening
        ("2026-11-21T10:00:00", date(2026, 11, 23)),  # Saturday
        ("2026-11-22T23:00:00", date(2026, 11, 23)),  # Sunday
        ("2026-11-13T18:00:00", date(2026, 11, 17)),  # Monday is a holiday
        ("2026-04-01T18:00:00", date(2026, 4, 6)),  # Holy week
        ("2026-12-31T18:30:00", date(2027, 1, 4)),  # New Year's Day is a Friday
        ("2027-06-15T12:00:00", date(2027, 6, 15)),
        ("2026-06-15T17:30:00", date(2026, 6, 15)),  # no daylight saving since 2022
    ],
)
def test_the_operation_date_of_a_moment(local, expected):
    assert operation_date(datetime.fromisoformat(local).replace(tzinfo=MEXICO_CITY)) == expected


def test_the_rollover_is_at_midnight_utc_all_year():
    for month in (1, 7):
        assert operation_date(datetime(2027, month, 12, 23, 59, tzinfo=UTC)) == date(2027, month, 12)
        assert operation_date(datetime(2027, month, 13, 0, 0, tzinfo=UTC)) == date(2027, month, 13)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1)))  # noqa: DTZ001 (made aware below)
def test_operation_dates_are_banking_days_that_never_go_back(moment):
    aware = moment.replace(tzinfo=UTC)
    day = operation_date(aware)
    assert is_banking_day(day)
    assert day <= operation_date(aware + timedelta(hours=1))
    assert rollover_after(aware) > aware
    assert operation_date(rollover_after(aware)) == next_banking_day(day)


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        operation_date(datetime(2026, 1, 1))  # noqa: DTZ001 (that is the point)
