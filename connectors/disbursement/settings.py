"""Settings of disbursements."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from hub.settings import Settings, prefixed
from ledger.disbursement.model import Frequency
from ledger.disbursement.runs import BadSchedule, Defaults


class DisbursementSettings(Settings):
    """How stores are paid."""

    model_config = prefixed("PAYHUB_DISBURSEMENT_")

    notice_look_every: float = Field(default=1, gt=0)
    """Seconds between looks for reports that are to be told to merchants."""

    notice_timeout: float = Field(default=10, gt=0, le=30)
    """Seconds in which a merchant must answer when it is told a report."""

    notice_days: float = Field(default=3, gt=0)
    """Days for which it is tried to tell a report."""

    notice_first_pause: float = Field(default=5, gt=0)
    """Seconds before the second attempt to tell a report; it doubles each time, up to four hours, with jitter."""

    notices_at_once: int = Field(default=16, ge=1)
    """Reports being told at once; one merchant gets half of them at most."""

    notice_internal: bool = False
    """Whether a host name on a merchant's allow-list may resolve to an address of a private network."""

    time_zone: str = "America/Mexico_City"
    """The time zone of the schedules below; a tenant may set its own schedules."""

    hourly: str = "0 * * * *"
    """When `HOURLY` stores are due: a cron line of five fields."""

    daily: str = "0 9 * * *"
    """When `DAILY` stores are due."""

    weekly: str = "0 9 * * 1"
    """When `WEEKLY` stores are due."""

    monthly: str = "0 9 1 * *"
    """When `MONTHLY` stores are due."""

    instant: str = "30 * * * *"
    """When it is looked for `INSTANT` stores that became payable without a new update."""

    page: int = Field(default=200, ge=1, le=1000)
    """Stores that one step of a run looks at."""

    confirm_within: int = Field(default=72 * 3600, ge=1)
    """Seconds after which a transfer that nobody confirmed is cancelled."""

    concept: str = Field(default="Pago a comercio", min_length=1, max_length=40)
    """What the payee reads in its statement."""

    publish_every: float = Field(default=0.5, gt=0)
    """Seconds between looks for messages to the engine that were left with what they are about."""

    publish_lease: int = Field(default=30, ge=1)
    """Seconds for which a message stays with the process that took it, before any other may publish it."""

    recalculate_every: float = Field(default=3600, gt=0)
    """Seconds between looks for payment options that have yet to take the month's commission."""

    def defaults(self) -> Defaults:
        """When the stores of tenants that set nothing are paid."""
        lines = {frequency: str(getattr(self, frequency.lower())) for frequency in Frequency}
        return Defaults(self.time_zone, lines)

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        for frequency in Frequency:
            try:
                self.defaults().cron(frequency)
            except BadSchedule as error:
                raise ValueError(f"{frequency}: {error.detail}") from None
        return self
