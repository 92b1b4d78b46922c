"""`stack.json`: what one data folder's stack is made of, so that it comes back the same and other terminals find it."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SecretStr, ValidationError

from hub.stack.errors import StackError

STATE_FILE = "stack.json"
DATABASE = "payhub"
DATABASE_OWNER = "payhub_owner"
DATABASE_SUPERUSER = "postgres"

WrittenSecret = Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value(), when_used="json")]
"""A secret that prints as asterisks and is written out only to the file, which nobody else can read."""


class Profile(StrEnum):
    """How much of the stack runs."""

    BAREBONE = "barebone"
    """Zeebe and PostgreSQL."""
    MINIMAL = "minimal"
    """All servers."""
    FULL = "full"
    """All servers, for several instances of the hub's own processes."""

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers of this profile, in the order they are shown."""
        if self is Profile.BAREBONE:
            return ("postgres", "zeebe")
        return ("postgres", "kafka", "elasticsearch", "zeebe")


EXISTING_SERVER_VARIABLES: Mapping[str, str] = {
    "zeebe": "PAYHUB_ZEEBE_ADDRESS",
    "kafka": "PAYHUB_KAFKA_BOOTSTRAP_SERVERS",
    "elasticsearch": "PAYHUB_ELASTICSEARCH_URL",
    "postgres": "PAYHUB_DATABASE_URL",
}
"""Where a server is; set in the environment of `payhub up`, it names one that exists, which is then only watched."""


class StackState(BaseModel):
    """The stack of one data folder. Holds secrets: its file is readable by its owner only."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    profile: Profile
    ports: dict[str, int]
    """Port by name, of servers and of the hub's own processes."""
    server_folder: Path | None = None
    """Where the servers keep their data when that is not inside the data folder."""
    kafka_cluster_id: str
    owner_password: WrittenSecret
    superuser_password: WrittenSecret
    existing: dict[str, WrittenSecret] = Field(default_factory=dict)
    """Address by name of the servers that are not ours."""
    base_urls: dict[str, str] = Field(default_factory=dict)
    """What `payhub up --json` prints."""
    environment: dict[str, WrittenSecret] = Field(default_factory=dict)
    """Further `PAYHUB_*` variables, given by whoever planned the hub's processes."""

    def address(self, server: str) -> str:
        """Where a server is, in the form its clients expect. The database's holds its owner's password."""
        if server in self.existing:
            return self.existing[server].get_secret_value()
        port = self.ports[server]
        if server == "postgres":
            return _database_url(DATABASE_OWNER, self.owner_password, port)
        return f"http://127.0.0.1:{port}" if server == "elasticsearch" else f"127.0.0.1:{port}"

    @property
    def superuser_url(self) -> str | None:
        """The database as its superuser; None when the database is not ours."""
        if "postgres" in self.existing:
            return None
        return _database_url(DATABASE_SUPERUSER, self.superuser_password, self.ports["postgres"])

    def variables(self) -> dict[str, str]:
        """The `PAYHUB_*` environment with which any process of the hub finds this stack."""
        found = {EXISTING_SERVER_VARIABLES[server]: self.address(server) for server in self.profile.servers}
        return found | {name: value.get_secret_value() for name, value in self.environment.items()}


def _database_url(user: str, password: SecretStr, port: int) -> str:
    return f"postgresql+psycopg://{user}:{quote(password.get_secret_value(), safe='')}@127.0.0.1:{port}/{DATABASE}"


def new_state(profile: Profile, ports: Mapping[str, int]) -> StackState:
    """A stack that has not run yet, with fresh secrets."""
    return StackState(
        profile=profile,
        ports=dict(ports),
        kafka_cluster_id=base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="),
        owner_password=SecretStr(secrets.token_urlsafe(24)),
        superuser_password=SecretStr(secrets.token_urlsafe(24)),
    )


def existing_servers(environment: Mapping[str, str]) -> dict[str, SecretStr]:
    """The servers that an environment names, by name."""
    return {
        server: SecretStr(environment[variable])
        for server, variable in EXISTING_SERVER_VARIABLES.items()
        if environment.get(variable)
    }


def default_data_folder() -> Path:
    """`PAYHUB_DATA_DIR`, else `.payhub` where we are."""
    return Path(os.environ.get("PAYHUB_DATA_DIR", ".payhub"))


def load_state(data_folder: Path) -> StackState | None:
    """Read a folder's stack; None when it never had one. Raises StackError when the file is not readable as one."""
    path = data_folder / STATE_FILE
    try:
        return StackState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StackError(f"{path} cannot be read: {error.strerror}.", "Run payhub as the user who owns it.") from error
    except ValidationError as error:
        # Without the values, which are secrets.
        fields = ", ".join(".".join(str(key) for key in problem["loc"]) or "JSON" for problem in error.errors())
        raise StackError(
            f"{path} cannot be read as a stack: wrong or missing are {fields}.",
            "Restore it, or remove the folder to begin with an empty one.",
        ) from None


def save_state(data_folder: Path, state: StackState) -> None:
    """Write a folder's stack so that a crash leaves the old file or the new one, and only the owner can read it."""
    path = data_folder / STATE_FILE
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(state.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
