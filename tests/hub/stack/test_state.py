"""`stack.json`: what survives between two runs, and what other programs learn from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from hub.stack.errors import StackError
from hub.stack.ports import SERVER_PORTS
from hub.stack.state import Profile, existing_servers, load_state, new_state, save_state


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path):
    state = new_state(Profile.MINIMAL, SERVER_PORTS).model_copy(update={"environment": {"PAYHUB_X": SecretStr("y")}})
    save_state(tmp_path, state)
    assert load_state(tmp_path) == state


def test_only_the_owner_can_read_the_secrets(tmp_path: Path):
    save_state(tmp_path, new_state(Profile.BAREBONE, SERVER_PORTS))
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600


def test_secrets_do_not_print():
    state = new_state(Profile.BAREBONE, SERVER_PORTS)
    assert state.owner_password.get_secret_value() not in repr(state)
    assert state.superuser_password.get_secret_value() not in str(state)


def test_each_stack_has_secrets_of_its_own():
    one, other = (new_state(Profile.BAREBONE, SERVER_PORTS) for _ in range(2))
    assert one.owner_password != other.owner_password
    assert one.kafka_cluster_id != other.kafka_cluster_id
    assert len(one.kafka_cluster_id) == 22


def test_variables_say_where_each_server_is():
    state = new_state(Profile.MINIMAL, SERVER_PORTS)
    password = state.owner_password.get_secret_value()
    assert state.variables() == {
        "PAYHUB_ZEEBE_ADDRESS": "127.0.0.1:26500",
        "PAYHUB_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
        "PAYHUB_ELASTICSEARCH_URL": "http://127.0.0.1:9200",
        "PAYHUB_DATABASE_URL": f"postgresql+psycopg://payhub_owner:{password}@127.0.0.1:5433/payhub",
    }


def test_barebone_speaks_of_no_server_that_does_not_run():
    variables = new_state(Profile.BAREBONE, SERVER_PORTS).variables()
    assert set(variables) == {"PAYHUB_ZEEBE_ADDRESS", "PAYHUB_DATABASE_URL"}


def test_a_server_named_in_the_environment_takes_the_place_of_ours():
    existing = existing_servers({"PAYHUB_KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092", "PAYHUB_ZEEBE_ADDRESS": ""})
    state = new_state(Profile.MINIMAL, SERVER_PORTS).model_copy(update={"existing": existing})
    assert set(existing) == {"kafka"}
    assert state.variables()["PAYHUB_KAFKA_BOOTSTRAP_SERVERS"] == "kafka.example:9092"
    assert state.variables()["PAYHUB_ZEEBE_ADDRESS"] == "127.0.0.1:26500"


def test_an_unreadable_state_is_named_with_its_remedy(tmp_path: Path):
    (tmp_path / "stack.json").write_text("{}")
    with pytest.raises(StackError, match=r"stack\.json cannot be read as a stack.*remove the folder"):
        load_state(tmp_path)


def test_a_folder_that_never_ran_has_no_state(tmp_path: Path):
    assert load_state(tmp_path) is None
