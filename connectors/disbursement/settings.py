"""Settings of disbursements."""

from __future__ import annotations

from hub.settings import Settings, prefixed


class DisbursementSettings(Settings):
    """How stores are paid."""

    model_config = prefixed("PAYHUB_DISBURSEMENT_")
