from hub.errors import Rejected
from hub.transfer import ISO20022, STATE_OF, Outcome, Reason


def test_every_outcome_has_a_state_for_the_channel():
    assert set(STATE_OF) == set(Outcome)


def test_every_reason_has_its_iso_20022_code():
    assert set(ISO20022) == set(Reason)
    assert all(len(code) == 4 for reason, code in ISO20022.items() if reason is not Reason.NONE)


def test_an_unknown_outcome_is_not_an_end():  # H3
    assert [outcome for outcome in Outcome if not outcome.is_final] == [Outcome.UNKNOWN]


def test_a_refusal_is_named_by_its_reason():
    class Closed(Rejected):
        reason = Reason.ACCOUNT_CLOSED

    assert Closed.code() == "account-closed"
    assert str(Closed("since May")) == "account-closed: since May"
