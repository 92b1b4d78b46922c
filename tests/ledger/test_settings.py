"""Where the book is."""

from __future__ import annotations

import pytest

from hub.settings import SettingsError, read
from ledger.settings import LedgerSettings


def test_the_address_of_the_book_is_needed_and_never_printed():
    with pytest.raises(SettingsError, match="PAYHUB_LEDGER_DATABASE_URL: is not set"):
        read(LedgerSettings)
    assert "hush" not in repr(read(LedgerSettings, database_url="postgresql+psycopg://u:hush@h/d"))


@pytest.mark.parametrize(("name", "value"), [("POOL_SIZE", "0"), ("EXPIRE_EVERY_SECONDS", "0")])
def test_a_setting_that_cannot_work_is_refused_by_its_name(monkeypatch, name, value):
    monkeypatch.setenv("PAYHUB_LEDGER_DATABASE_URL", "postgresql+psycopg://u@h/d")
    monkeypatch.setenv(f"PAYHUB_LEDGER_{name}", value)
    with pytest.raises(SettingsError, match=f"PAYHUB_LEDGER_{name}"):
        read(LedgerSettings)
