import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.money import MAX_MINOR, MINOR_DIGITS, BadMoney, MixedCurrencies, Money

amounts = st.builds(Money, st.integers(0, MAX_MINOR), st.sampled_from(sorted(MINOR_DIGITS)))


@given(amounts)
def test_an_amount_survives_the_wire_unchanged(money: Money):
    assert Money.parse(money.decimal(), money.currency) == money


@given(amounts, st.integers(0, 10_000))
def test_a_share_and_the_rest_make_the_whole(money: Money, basis_points: int):  # L87
    part = money.share(basis_points)
    assert part + (money - part) == money
    assert Money.zero(money.currency) <= part <= money


def test_halves_round_to_the_even_cent():  # L87
    assert [Money(minor, "MXN").share(5_000).minor for minor in (1, 3, 5, 7)] == [0, 2, 2, 4]


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("12.50", "MXN", 1250),
        ("12.5", "MXN", 1250),
        ("12.500", "MXN", 1250),
        ("0", "MXN", 0),
        ("7", "JPY", 7),
        ("1.005", "KWD", 1005),
    ],
)
def test_decimal_strings_become_minor_units(text: str, currency: str, minor: int):
    assert Money.parse(text, currency).minor == minor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1.",
        ".5",
        "01",
        "1e3",
        "1,000.00",
        "NaN",
        "Infinity",
        " 1",
        "1 ",
        "١٢",
        "1.005",
        "1_0",
        "99999999999999999999",
    ],
)
def test_what_is_no_amount_is_refused(text: str):
    with pytest.raises(BadMoney):
        Money.parse(text, "MXN")


@pytest.mark.parametrize("minor", [1.0, 1.5, True, "1", None])
def test_only_whole_minor_units_are_money(minor: object):
    with pytest.raises(BadMoney, match="integer"):
        Money(minor, "MXN")  # type: ignore[arg-type] # the wrong type is the point


@pytest.mark.parametrize("currency", ["mxn", "XXX", "", "MX", "XAU"])
def test_an_unknown_currency_is_refused(currency: str):
    with pytest.raises(BadMoney, match="ISO 4217"):
        Money(1, currency)


def test_currencies_do_not_mix():
    with pytest.raises(MixedCurrencies):
        Money(1, "MXN") + Money(1, "USD")
    with pytest.raises(MixedCurrencies):
        _ = Money(1, "MXN") < Money(1, "USD")


def test_an_amount_beyond_a_bigint_is_refused():
    assert Money(MAX_MINOR, "MXN").minor == 2**63 - 1
    with pytest.raises(BadMoney, match="too large"):
        Money(MAX_MINOR, "MXN") + Money(1, "MXN")


def test_an_amount_prints_with_all_its_digits():
    assert [Money(5, c).decimal() for c in ("JPY", "MXN", "KWD")] == ["5", "0.05", "0.005"]
    assert str(Money(-1250, "MXN")) == "-12.50 MXN"
