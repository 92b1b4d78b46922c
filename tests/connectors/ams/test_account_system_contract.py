"""What every account system behind the hub must do. It is written against `AccountSystem` alone, so that each backend
runs the same tests: a fixture `branch` opens accounts in it, everything else goes through the contract.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from connectors.ams.model import (
    AccountClosed,
    AccountFrozen,
    AccountSystemConflict,
    AccountUnknown,
    AmountNotAllowed,
    CurrencyMismatch,
    InsufficientFunds,
)
from hub.errors import Rejected
from hub.money import Money
from hub.transfer import ISO20022, IdentifierType, Party, PaymentId

P1, P2 = PaymentId("5f1f6d9e-0000-4000-8000-000000000001"), PaymentId("5f1f6d9e-0000-4000-8000-000000000002")
FREE = Money(0, "MXN")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


def phone(number: str) -> Party:
    return Party(id_type=IdentifierType.MSISDN, identifier=number)


@pytest.fixture
async def bank(branch):
    """Ana (100.00), Bruno, a dollar account, a closed one, one whose debits are frozen; the fee is 1.00 + 0.5 %."""

    def named(number: str) -> dict[str, Any]:
        return {"identifiers": [{"type": "MSISDN", "value": number}]}

    await branch.open(
        {
            "id": "ana",
            "opening_balance": "100.00",
            "holder_name": "Ana Prueba",
            "identifiers": [
                {"type": "MSISDN", "value": "1"},
                {"type": "CLABE", "value": "646180157000000017"},
                {"type": "ALIAS", "value": "ana.prueba"},
                {"type": "ACCOUNT_ID", "value": "ana"},
            ],
        },
        {"id": "bruno", **named("2")},
        {"id": "dollars", "currency": "USD", **named("3")},
        {"id": "shut", "status": "closed", **named("4")},
        {"id": "cold", "status": "frozen", "opening_balance": "9", **named("5")},
        fees=[{"currency": "MXN", "fixed": "1.00", "basis_points": 50, "amount_to": "5000.00"}],
    )
    return branch


async def balances(bank: Any, *accounts: str) -> list[tuple[str, str]]:
    found = [await bank.accounts.balance(bank.tenant, account, "MXN") for account in accounts]
    return [(balance.booked.decimal(), balance.held.decimal()) for balance in found]


class TestLookup:
    @pytest.mark.parametrize(
        ("id_type", "identifier"),
        [("MSISDN", "1"), ("CLABE", "646180157000000017"), ("ALIAS", "ana.prueba"), ("ACCOUNT_ID", "ana")],
    )
    async def test_finds_an_account_by_its_identifier(self, bank, id_type, identifier):
        found = await bank.accounts.lookup(bank.tenant, IdentifierType(id_type), identifier)
        assert (found.account, found.currency, found.holder_name) == ("ana", "MXN", "Ana Prueba")
        assert (found.takes_debits, found.takes_credits) == (True, True)

    async def test_tells_what_an_account_takes(self, bank):  # L85
        shut = await bank.accounts.lookup(bank.tenant, IdentifierType.MSISDN, "4")
        cold = await bank.accounts.lookup(bank.tenant, IdentifierType.MSISDN, "5")
        assert (shut.takes_debits, shut.takes_credits) == (False, False)
        assert (cold.takes_debits, cold.takes_credits) == (False, True)

    async def test_refuses_what_nobody_has(self, bank):
        with pytest.raises(AccountUnknown):
            await bank.accounts.lookup(bank.tenant, IdentifierType.MSISDN, "9")


class TestQuote:
    async def test_names_both_accounts_and_the_fee(self, bank):  # H1
        quote = await bank.accounts.quote(bank.tenant, phone("1"), phone("2"), mxn("50.00"))
        assert (quote.payer_account, quote.payee_account, quote.fee) == ("ana", "bruno", mxn("1.25"))

    async def test_rounds_the_fee_half_to_even(self, bank):  # L87
        fees = [await bank.accounts.quote(bank.tenant, phone("1"), phone("2"), mxn(each)) for each in ("1", "3", "5")]
        assert [quote.fee.minor for quote in fees] == [100, 102, 102]

    @pytest.mark.parametrize("id_type", ["CLABE", "CARD", "MSISDN"])
    async def test_leaves_a_payee_elsewhere_to_the_rails(self, bank, id_type):
        payee = Party(id_type=IdentifierType(id_type), identifier="072691004495711499")
        assert (await bank.accounts.quote(bank.tenant, phone("1"), payee, mxn("1"))).payee_account is None

    @pytest.mark.parametrize("id_type", ["ACCOUNT_ID", "ALIAS", "IBAN"])
    async def test_knows_no_payee_whom_no_rail_can_find(self, bank, id_type):
        payee = Party(id_type=IdentifierType(id_type), identifier="nobody")
        with pytest.raises(AccountUnknown, match="payee"):
            await bank.accounts.quote(bank.tenant, phone("1"), payee, mxn("1"))

    @pytest.mark.parametrize(
        ("payer", "payee", "amount", "refusal"),
        [
            ("9", "2", "1", AccountUnknown),
            ("4", "2", "1", AccountClosed),
            ("5", "2", "1", AccountFrozen),
            ("3", "2", "1", CurrencyMismatch),
            ("1", "4", "1", AccountClosed),
            ("1", "3", "1", CurrencyMismatch),
            ("1", "1", "1", AmountNotAllowed),
        ],
    )
    async def test_refuses_by_name(self, bank, payer, payee, amount, refusal):
        with pytest.raises(refusal):
            await bank.accounts.quote(bank.tenant, phone(payer), phone(payee), mxn(amount))


class TestHold:
    async def test_sets_amount_and_fee_aside_once_however_often_it_is_asked(self, bank):  # H1
        for _ in range(3):
            await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        assert await balances(bank, "ana") == [("100.00", "61.30")]

    @pytest.mark.parametrize(
        ("account", "amount", "refusal"),
        [
            ("nobody", "1", AccountUnknown),
            ("dollars", "1", CurrencyMismatch),
            ("shut", "1", AccountClosed),
            ("cold", "1", AccountFrozen),
            ("ana", "99.01", InsufficientFunds),
        ],
    )
    async def test_refuses_by_name_and_holds_nothing(self, bank, account, amount, refusal):
        with pytest.raises(refusal):
            await bank.accounts.hold(bank.tenant, P1, account, mxn(amount), mxn("1"))
        assert await balances(bank, "ana") == [("100.00", "0.00")]

    async def test_refuses_another_amount_under_the_same_payment(self, bank):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), FREE)
        with pytest.raises(AccountSystemConflict):
            await bank.accounts.hold(bank.tenant, P1, "ana", mxn("61"), FREE)
        assert await balances(bank, "ana") == [("100.00", "60.00")]


class TestEndOfAHold:
    async def test_booking_moves_the_principal_to_the_payee_once(self, bank):  # H1
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        for _ in range(3):
            await bank.accounts.book(bank.tenant, P1, "bruno")
        assert await balances(bank, "ana", "bruno") == [("38.70", "0.00"), ("60.00", "0.00")]

    async def test_capture_takes_the_money_out_once(self, bank):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        for _ in range(3):
            await bank.accounts.capture(bank.tenant, P1)
        assert await balances(bank, "ana") == [("38.70", "0.00")]

    async def test_release_gives_everything_back_once(self, bank):  # H1
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        for _ in range(3):
            await bank.accounts.release(bank.tenant, P1)
        assert await balances(bank, "ana") == [("100.00", "0.00")]

    @pytest.mark.parametrize(
        ("payee", "refusal"),
        [("nobody", AccountUnknown), ("shut", AccountClosed), ("dollars", CurrencyMismatch)],
    )
    async def test_a_refused_booking_keeps_the_hold_for_its_release(self, bank, payee, refusal):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), FREE)
        with pytest.raises(refusal):
            await bank.accounts.book(bank.tenant, P1, payee)
        assert await balances(bank, "ana") == [("100.00", "60.00")]
        await bank.accounts.release(bank.tenant, P1)

    async def test_what_was_captured_cannot_be_released_nor_the_other_way_round(self, bank):
        for payment, end, other in ((P1, "capture", "release"), (P2, "release", "capture")):
            await bank.accounts.hold(bank.tenant, payment, "ana", mxn("10"), mxn("1.05"))
            await getattr(bank.accounts, end)(bank.tenant, payment)
            with pytest.raises(AccountSystemConflict):
                await getattr(bank.accounts, other)(bank.tenant, payment)
        assert await balances(bank, "ana") == [("88.95", "0.00")]

    async def test_without_a_hold_there_is_nothing_to_end(self, bank):
        for attempt in (
            bank.accounts.capture(bank.tenant, P1),
            bank.accounts.release(bank.tenant, P1),
            bank.accounts.book(bank.tenant, P1, "bruno"),
        ):
            with pytest.raises(AccountSystemConflict):
                await attempt

    async def test_capture_and_release_at_once_end_it_one_way(self, bank):
        for number in range(4):
            payment = PaymentId(f"race-{number}")
            await bank.accounts.hold(bank.tenant, payment, "ana", mxn("10"), FREE)
            ended = await asyncio.gather(
                *(
                    step(bank.tenant, payment)
                    for step in (bank.accounts.capture, bank.accounts.release)
                    for _ in range(4)
                ),
                return_exceptions=True,
            )
            assert [ended[:4].count(None), ended[4:].count(None)] in ([4, 0], [0, 4])
            assert all(one is None or isinstance(one, AccountSystemConflict) for one in ended)
            assert (await balances(bank, "ana"))[0][1] == "0.00"


class TestCredit:
    async def test_puts_money_on_the_account_once(self, bank):  # H2
        for _ in range(3):
            await bank.accounts.credit(bank.tenant, P1, "bruno", mxn("12.34"))
        assert await balances(bank, "bruno") == [("12.34", "0.00")]

    async def test_reaches_an_account_whose_debits_are_frozen(self, bank):  # L85
        await bank.accounts.credit(bank.tenant, P1, "cold", mxn("1"))
        assert await balances(bank, "cold") == [("10.00", "0.00")]

    @pytest.mark.parametrize(
        ("account", "refusal"), [("nobody", AccountUnknown), ("shut", AccountClosed), ("dollars", CurrencyMismatch)]
    )
    async def test_refuses_by_name(self, bank, account, refusal):
        with pytest.raises(refusal):
            await bank.accounts.credit(bank.tenant, P1, account, mxn("1"))


class TestReversal:
    async def test_gives_back_what_was_captured_principal_and_fee_once(self, bank):  # L38
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        await bank.accounts.capture(bank.tenant, P1)
        for _ in range(3):
            await bank.accounts.reverse(bank.tenant, P1, reason="scheme-returned")
        assert await balances(bank, "ana") == [("100.00", "0.00")]

    async def test_takes_what_was_booked_from_the_payee_again(self, bank):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        await bank.accounts.book(bank.tenant, P1, "bruno")
        for _ in range(3):
            await bank.accounts.reverse(bank.tenant, P1, reason="operator")
        assert await balances(bank, "ana", "bruno") == [("100.00", "0.00"), ("0.00", "0.00")]

    async def test_moves_nothing_when_the_payee_has_spent_it(self, bank):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        await bank.accounts.book(bank.tenant, P1, "bruno")
        await bank.accounts.hold(bank.tenant, P2, "bruno", mxn("10"), mxn("1.05"))
        with pytest.raises(InsufficientFunds):
            await bank.accounts.reverse(bank.tenant, P1, reason="operator")
        assert await balances(bank, "ana", "bruno") == [("38.70", "0.00"), ("60.00", "11.05")]

    async def test_of_a_closed_account_is_refused_by_name(self, bank):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("98.50"), mxn("1.49"))
        await bank.accounts.capture(bank.tenant, P1)
        await bank.close("ana")
        with pytest.raises(AccountClosed):
            await bank.accounts.reverse(bank.tenant, P1, reason="scheme-returned")

    async def test_of_what_was_not_paid_is_a_conflict(self, bank):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        with pytest.raises(AccountSystemConflict):
            await bank.accounts.reverse(bank.tenant, P1, reason="operator")
        await bank.accounts.release(bank.tenant, P1)
        for payment in (P1, P2):
            with pytest.raises(AccountSystemConflict):
                await bank.accounts.reverse(bank.tenant, payment, reason="operator")
        assert await balances(bank, "ana") == [("100.00", "0.00")]


class TestStatement:
    async def test_tells_what_was_booked_newest_first_with_the_balance_after_it(self, bank):  # L66
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1.30"))
        await bank.accounts.capture(bank.tenant, P1)
        await bank.accounts.credit(bank.tenant, P2, "ana", mxn("5"))
        page = await bank.accounts.statement(bank.tenant, "ana", "MXN")
        told = [(line.amount.decimal(), line.balance_after.decimal()) for line in page.lines]
        assert told[0] == ("5.00", "43.70")
        assert told[-2:] == [("-60.00", "40.00"), ("100.00", "100.00")]
        assert sum(line.amount.minor for line in page.lines[1:-2]) == -130  # the fee, in one part or several
        for line, older in pairwise(page.lines):
            assert line.balance_after == older.balance_after + line.amount
        assert page.next is None
        payments = {line.amount.decimal(): line.payment for line in page.lines}
        assert (payments["5.00"], payments["-60.00"]) == (P2, P1)

    async def test_is_read_on_by_its_cursor_to_the_end(self, bank):
        for number in range(5):
            await bank.accounts.credit(bank.tenant, PaymentId(f"in-{number}"), "bruno", mxn("1"))
        pages, cursor = [], None
        for _ in range(3):
            page = await bank.accounts.statement(bank.tenant, "bruno", "MXN", limit=2, cursor=cursor)
            pages.append([line.balance_after.minor for line in page.lines])
            cursor = page.next
        assert (pages, cursor) == ([[500, 400], [300, 200], [100]], None)

    async def test_is_bounded_by_booking_time(self, bank):
        now = datetime.now(UTC)
        for since, until, lines in (
            (now - timedelta(days=2), None, 1),
            (now + timedelta(days=2), None, 0),
            (None, now + timedelta(days=2), 1),
            (None, now - timedelta(days=2), 0),
        ):
            page = await bank.accounts.statement(bank.tenant, "ana", "MXN", since=since, until=until)
            assert len(page.lines) == lines

    async def test_refuses_by_name(self, bank):
        with pytest.raises(AccountUnknown):
            await bank.accounts.statement(bank.tenant, "nobody", "MXN")
        with pytest.raises(CurrencyMismatch):
            await bank.accounts.statement(bank.tenant, "ana", "USD")
        with pytest.raises(ValueError, match="cursor"):
            await bank.accounts.statement(bank.tenant, "ana", "MXN", cursor="x")


class TestBalance:
    async def test_tells_what_is_booked_held_and_available(self, bank):
        await bank.accounts.hold(bank.tenant, P1, "ana", mxn("60"), mxn("1"))
        balance = await bank.accounts.balance(bank.tenant, "ana", "MXN")
        assert (balance.booked, balance.held, balance.available) == (mxn("100"), mxn("61"), mxn("39"))

    async def test_refuses_by_name(self, bank):
        with pytest.raises(AccountUnknown):
            await bank.accounts.balance(bank.tenant, "nobody", "MXN")
        with pytest.raises(CurrencyMismatch):
            await bank.accounts.balance(bank.tenant, "ana", "USD")


async def test_another_tenant_reaches_nothing(bank):  # H16
    other = f"{bank.tenant}-other"
    await bank.accounts.hold(bank.tenant, P1, "ana", mxn("1"), FREE)
    with pytest.raises(AccountUnknown):
        await bank.accounts.lookup(other, IdentifierType.MSISDN, "1")
    with pytest.raises(AccountUnknown):
        await bank.accounts.hold(other, P2, "ana", mxn("1"), FREE)
    with pytest.raises(AccountSystemConflict):
        await bank.accounts.release(other, P1)
    assert await balances(bank, "ana") == [("100.00", "1.00")]


async def test_a_refusal_tells_no_personal_data(bank):
    with pytest.raises(Rejected) as raised:
        await bank.accounts.quote(bank.tenant, phone("525500001111"), phone("2"), mxn("1"))
    assert "5255" not in str(raised.value)


async def test_a_tariff_of_ours_may_have_no_band_for_an_amount(ledger_branch):
    await ledger_branch.open(
        {"id": "ana", "opening_balance": "100.00", "identifiers": [{"type": "MSISDN", "value": "1"}]},
        {"id": "bruno", "identifiers": [{"type": "MSISDN", "value": "2"}]},
        fees=[{"currency": "MXN", "fixed": "1.00", "amount_to": "50.00"}],
    )
    with pytest.raises(AmountNotAllowed):
        await ledger_branch.accounts.quote(ledger_branch.tenant, phone("1"), phone("2"), mxn("50.01"))


def test_every_refusal_has_a_code_that_schemes_know():  # H2
    refusals = (AccountUnknown, AccountClosed, AccountFrozen, AmountNotAllowed, CurrencyMismatch, InsufficientFunds)
    assert [ISO20022[refusal.reason] for refusal in refusals] == ["AC01", "AC04", "AC06", "AM02", "AM03", "AM04"]
