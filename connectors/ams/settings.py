"""Which account system a hub works with."""

from __future__ import annotations

from typing import Literal

from hub.settings import Settings, prefixed


class AmsSettings(Settings):
    """`PAYHUB_AMS_*`. Where our own ledger is says `PAYHUB_LEDGER_DATABASE_URL`."""

    model_config = prefixed("PAYHUB_AMS_")

    backend: Literal["ledger"] = "ledger"
    """`ledger`: the hub's own book."""
