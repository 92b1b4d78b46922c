"""What can be refused about merchants, stores, options and credits before any balance is touched."""

from __future__ import annotations

from ledger.disbursement.model import DisbursementRefused


class MerchantUnknown(DisbursementRefused):
    """The tenant has no such merchant."""

    code = "merchant-unknown"


class OptionUnknown(DisbursementRefused):
    """The tenant has no such payment option."""

    code = "option-unknown"


class AccountUnknown(DisbursementRefused):
    """The store's bank account is another one by now, or there is none."""

    code = "account-unknown"


class AlreadyExists(DisbursementRefused):
    """The id is taken by something else; what is there stands."""

    code = "already-exists"


class NothingValidated(DisbursementRefused):
    """Validation goes from the option to the store to the merchant, and the link before is missing (L52)."""

    code = "nothing-validated-below"


class NotOffered(DisbursementRefused):
    """A merchant or store that is not validated is not offered (L54)."""

    code = "not-validated"


class OptionNotApplicable(DisbursementRefused):
    """The option does not apply to this amount at this time, or none does (L49)."""

    code = "option-not-applicable"


class TransferOpen(DisbursementRefused):
    """The store is being paid right now; what is paid out is not changed meanwhile."""

    code = "transfer-open"
