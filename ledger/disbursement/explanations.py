"""What a verdict means, for people, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ledger.disbursement.model import Verdict, VerdictCode

_EXPLAINED: Final[Mapping[VerdictCode, str]] = {
    VerdictCode.OTHER_FREQUENCY: "the store is paid at another frequency, {frequency}",
    VerdictCode.AUTOMATION_OFF: "automation is off for merchant {merchant}; switch it on to let triggers fire",
    VerdictCode.MERCHANT_NOT_VALIDATED: "merchant {merchant} is not validated; validate option, store, then merchant",
    VerdictCode.STORE_NOT_VALIDATED: "the store is not validated; validate one of its options, then the store",
    VerdictCode.NO_BANK_ACCOUNT: "the store has no bank account; add one",
    VerdictCode.ACCOUNT_NOT_AUTHENTICATED: "the store's bank account is not authenticated; authenticate it",
    VerdictCode.NOTHING_PENDING: "no balance update is pending",
    VerdictCode.NEGATIVE_TOTAL: "{updates} pending updates sum to {total}; later contributions must bring it up",
    VerdictCode.BELOW_MINIMUM: "{updates} pending updates sum to {total}, not more than the minimum of {minimum}",
    VerdictCode.PAY: "{updates} pending updates make a transfer of {total}",
}


def explanation(verdict: Verdict) -> str:
    """A sentence without its full stop."""
    return _EXPLAINED[verdict.code].format(
        frequency=verdict.frequency,
        merchant=verdict.merchant,
        updates=verdict.updates,
        total=verdict.total,
        minimum=verdict.minimum,
    )
