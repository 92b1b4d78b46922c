"""What the channel needs to know."""

from __future__ import annotations

from pydantic import Field

from hub.settings import Settings, prefixed


class ChannelSettings(Settings):
    """How accepted payments go to the engine and outcomes to the channel."""

    model_config = prefixed("PAYHUB_CHANNEL_")

    window: int = Field(default=20, ge=1, le=500)
    """Payments that the engine was given and has not yet begun; the others wait in the table."""

    window_age: float = Field(default=30, gt=0)
    """Seconds after which a payment that the engine was given and never began no longer fills the window."""

    lease: float = Field(default=10, ge=6)
    """Seconds for which a payment stays with the process that accepted it, before any other may publish it."""

    sweep_every: float = Field(default=1, gt=0)
    """Seconds between looks for payments and callbacks that nobody has in hand."""

    publish_again_after: float = Field(default=600, ge=60)
    """Seconds after which a payment that the engine was given and never began is given to it again."""

    callback_timeout: float = Field(default=10, gt=0, le=30)
    """Seconds in which a receiver must answer an outcome callback."""

    callback_days: float = Field(default=3, gt=0)
    """Days for which an outcome callback is tried (H5)."""

    callback_first_pause: float = Field(default=5, gt=0)
    """Seconds before the second attempt of a callback; the pause doubles each time, up to four hours, with jitter."""

    callbacks_at_once: int = Field(default=16, ge=1)
    """Callbacks under way at once; one tenant gets half of them at most."""

    callback_internal: bool = False
    """Whether a host name on an allow-list may resolve to an address of a private network."""

    account_system_url: str | None = None
    """A page that answers 2xx while the account system can be used, such as `/health/ready` of the ams worker. Without
    it there is no stand-in: payments are accepted without a limit (H8)."""

    account_system_look_every: float = Field(default=1, gt=0)
    """Seconds between looks at that page; after three plain noes, or nine silences, the account system is away."""

    stand_in_payments: int = Field(default=10_000, ge=0)
    """Payments of one tenant that may wait while the account system is away, where the seed says nothing else."""
