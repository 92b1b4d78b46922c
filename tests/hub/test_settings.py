import pytest
from pydantic import SecretStr

from hub.settings import DatabaseSettings, Settings, SettingsError, prefixed, read


class RailSettings(Settings):
    model_config = prefixed("PAYHUB_TESTRAIL_")
    secret: SecretStr
    tries: int = 3


def test_a_missing_setting_is_named_as_it_is_written_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PAYHUB_DATABASE_URL", raising=False)
    with pytest.raises(SettingsError, match="PAYHUB_DATABASE_URL: is not set"):
        read(DatabaseSettings)


def test_a_wrong_setting_is_named_and_its_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAYHUB_TESTRAIL_SECRET", "s3cret-value")
    monkeypatch.setenv("PAYHUB_TESTRAIL_TRIES", "several")
    with pytest.raises(SettingsError, match="PAYHUB_TESTRAIL_TRIES") as caught:
        read(RailSettings)
    assert "s3cret-value" not in str(caught.value)


def test_a_secret_never_prints(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAYHUB_TESTRAIL_SECRET", "s3cret-value")
    assert "s3cret-value" not in repr(read(RailSettings))


def test_settings_do_not_change_once_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAYHUB_TESTRAIL_SECRET", "x")
    with pytest.raises(ValueError, match="frozen"):
        read(RailSettings).tries = 9
