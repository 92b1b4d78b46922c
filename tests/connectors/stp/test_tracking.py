"""Tracking keys and references come from the payment's id and from nothing else."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.stp.tracking import is_tracking_key, reference_number, tracking_key
from hub.transfer import PaymentId

PAYMENT = PaymentId("0197a3c4-0000-7000-8000-000000000001")


def test_a_payments_key_never_changes():
    assert tracking_key(PAYMENT) == "PHAGL2HRAAABYABAAAAAAAAAAAAE"
    assert tracking_key(PaymentId(PAYMENT.upper())) == tracking_key(PAYMENT)


@given(st.uuids(), st.uuids())
def test_two_payments_have_two_keys_that_stp_takes(one, other):
    keys = [tracking_key(PaymentId(str(each))) for each in (one, other)]
    assert all(is_tracking_key(key) for key in keys)
    assert (keys[0] == keys[1]) == (one == other)


@given(st.text(min_size=1, max_size=80))
def test_any_id_makes_a_key_and_a_reference_that_stp_takes(payment):
    try:
        payment.encode()
    except UnicodeEncodeError:
        return
    assert is_tracking_key(tracking_key(PaymentId(payment)))
    assert 1 <= reference_number(PaymentId(payment)) <= 9_999_999


def test_the_reference_of_a_payment_never_changes():
    assert reference_number(PAYMENT) == reference_number(PaymentId(PAYMENT.upper()))
    assert reference_number(PAYMENT) != reference_number(PaymentId(str(uuid.UUID(int=5))))


@pytest.mark.parametrize("prefix", ["ph", "PH-", "ABCDE", "Ñ"])
def test_a_prefix_that_stp_would_not_take_is_refused(prefix):
    with pytest.raises(ValueError, match="prefix"):
        tracking_key(PAYMENT, prefix)


def test_installations_that_share_a_company_have_keys_of_their_own():
    assert tracking_key(PAYMENT, "A") != tracking_key(PAYMENT, "B")
    assert len(tracking_key(PAYMENT, "ABCD")) == 30
