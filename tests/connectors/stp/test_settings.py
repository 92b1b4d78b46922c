"""Settings are checked before anything is opened, and secrets do not print."""

from __future__ import annotations

import pytest

from connectors.stp.model import StpConfigurationError
from connectors.stp.settings import StpCallbackSettings, StpSettings
from connectors.stp.tenants import profiles
from hub.settings import SettingsError, read
from hub.transfer import TenantId

GIVEN = {
    "PAYHUB_STP_BASE_URL": "http://127.0.0.1:1/",
    "PAYHUB_STP_COMPANY": "TAMIZI",
    "PAYHUB_STP_PAYER_ACCOUNT": "646180110400000007",
    "PAYHUB_STP_PRIVATE_KEY_FILE": "/nowhere/key.pem",
    "PAYHUB_STP_PRIVATE_KEY_PASSPHRASE": "very-secret-words",
}


@pytest.fixture
def environment(monkeypatch):
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_settings_come_from_the_environment(environment):
    environment.setenv("PAYHUB_STP_INSTITUTIONS", '{"999": 40999}')
    environment.setenv("PAYHUB_STP_DEMO_COUNTERPART", "true")
    settings = read(StpSettings)
    assert settings.base_url == "http://127.0.0.1:1"
    assert (settings.connect_timeout, settings.read_timeout, settings.inquire_after) == (5, 30, 30)
    known = settings.known_institutions().by_prefix
    assert (known["999"], known["846"], known["072"]) == (40999, 846, 40072)


def test_secrets_do_not_print(environment):
    environment.setenv("PAYHUB_STP_CALLBACK_SECRET", "another-secret-word")
    printed = repr(read(StpSettings)) + repr(read(StpCallbackSettings))
    assert "very-secret-words" not in printed
    assert "another-secret-word" not in printed


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PAYHUB_STP_PAYER_ACCOUNT", "646180110400000008", "check digit"),
        ("PAYHUB_STP_BASE_URL", "ftp://x", "https://"),
        ("PAYHUB_STP_BASE_URL", "https://", "name a host"),
        ("PAYHUB_STP_COMPANY", "A" * 16, "15"),
        ("PAYHUB_STP_TRACKING_PREFIX", "abc", "pattern"),
        ("PAYHUB_STP_READ_TIMEOUT", "39", "within 40 seconds"),
    ],
)
def test_a_wrong_setting_is_named(environment, name, value, said):
    environment.setenv(name, value)
    with pytest.raises(SettingsError, match=said):
        read(StpSettings)


def test_a_key_that_cannot_be_read_is_a_settings_error(environment):
    with pytest.raises(SettingsError, match=r"PAYHUB_STP_PRIVATE_KEY_FILE: /nowhere/key\.pem"):
        profiles(read(StpSettings))


def test_a_tenant_without_a_company_is_told_so(environment, key_files):  # H16
    environment.setenv("PAYHUB_STP_PRIVATE_KEY_FILE", str(key_files[0]))
    environment.setenv("PAYHUB_STP_TENANT_ID", "greenbank")
    known = profiles(read(StpSettings))
    assert known.of(TenantId("greenbank")).sender.company == "TAMIZI"
    with pytest.raises(StpConfigurationError, match="bluebank has no company"):
        known.of(TenantId("bluebank"))
