"""The real servers of one test run, on free ports and in a folder of its own.

They end when the run ends, however it ends. `PAYHUB_TEST_ZEEBE_ADDRESS`, `PAYHUB_TEST_DATABASE_URL` (whose user may
create databases) and `PAYHUB_TEST_ELASTICSEARCH_URL` take servers that already run, which makes a single test quick to
repeat. `PAYHUB_TEST_STACK_FOLDER` is the data folder of a whole stack without processes of the hub.

`make test` runs two files at a time (`pytest -n 2`). Each of the two workers has servers of its own, because tests take
each other's jobs; the files that need a whole stack are run by one worker, which starts it once.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from sqlalchemy.engine import make_url
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from hub.stack.state import load_state

SETTINGS_PREFIX = "PAYHUB_"

ON_A_WHOLE_STACK = (
    "tests/actions/test_matrix.py",
    "tests/exporters/test_indexes.py",
    "tests/exporters/test_kibana.py",
    "tests/ledger/test_relay_to_kafka.py",
    "tests/operations_app/",
)
"""Files that use `stack_folder`. Two workers would start it twice."""
LONGEST = (
    "tests/crash/",
    *ON_A_WHOLE_STACK,
    "tests/docs/test_demo.py",
    "tests/docs/test_first_payment.py",
    "tests/hub/stack/test_stack.py",
    "tests/hub/zeebe/test_worker_restart.py",
    "tests/exporters/test_streaming.py",
    "tests/connectors/stp/test_conservation.py",
    "tests/e2e/",
)
"""Files that begin first, so that neither of two workers waits for the other at the end."""


class ByServers(LoadScopeScheduling):  # type: ignore[misc] # the package publishes no types
    """A worker takes a whole file, or all files that share a stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "on a whole stack" if file.startswith(ON_A_WHOLE_STACK) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServers:
    config.option.loadscopereorder = False
    return ByServers(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):
        rank = {part: number for number, part in enumerate(LONGEST)}
        items.sort(key=lambda item: next((rank[part] for part in LONGEST if item.nodeid.startswith(part)), len(rank)))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Settings of whoever runs the tests must not reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(SETTINGS_PREFIX) and not name.startswith(("PAYHUB_TEST_", "PAYHUB_STACK_")):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command or a process that is tried inside a test sets up logging on that test's standard error, then closed."""
    yield
    root = logging.getLogger()
    ours = [one for one in root.handlers if isinstance(one.formatter, structlog.stdlib.ProcessorFormatter)]
    if ours:
        for handler in ours:
            root.removeHandler(handler)
        root.setLevel(logging.WARNING)
        structlog.reset_defaults()


def _servers(profile: str, **existing: str) -> Iterator[Path]:
    """The data folder of a stack without any process of the hub, which ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="payhub-tests-"))
    folder.chmod(0o711)  # pytest's own folders are closed to the user that the servers run as when we are root
    command = [sys.executable, "-m", "hub.stack"]
    choices = ["--detach", "--free-ports", "--profile", profile, "--bound-to", str(os.getpid())]
    started = subprocess.run(
        [*command, "up", *choices, "--data-dir", str(folder)],
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, **existing},
    )
    assert started.returncode == 0, started.stderr
    yield folder
    subprocess.run([*command, "down", "--data-dir", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server_folder(_no_settings_from_outside: None) -> Iterator[Path]:
    """The data folder of a stack with Zeebe and PostgreSQL."""
    yield from _servers("barebone")


@pytest.fixture(scope="session")
def stack_folder(database_server: str) -> Iterator[Path]:
    """The data folder of a stack with a Zeebe of its own, Kafka and Elasticsearch, on this run's PostgreSQL.

    Nobody may stop its parts: other files use them too, under index prefixes and topics of their own.
    """
    given = os.environ.get("PAYHUB_TEST_STACK_FOLDER")
    if given:
        yield Path(given)
        return
    yield from _servers("minimal", PAYHUB_DATABASE_URL=database_server)


@pytest.fixture(scope="session")
def zeebe_address(request: pytest.FixtureRequest) -> str:
    """`host:port` of a Zeebe gateway whose jobs no worker of ours takes but the test's own."""
    given = os.environ.get("PAYHUB_TEST_ZEEBE_ADDRESS")
    if given:
        return given
    state = load_state(request.getfixturevalue("server_folder"))
    assert state is not None
    return state.address("zeebe")


@pytest.fixture(scope="session")
def database_server(request: pytest.FixtureRequest) -> str:
    """A PostgreSQL as somebody who may create databases, SQLAlchemy form."""
    given = os.environ.get("PAYHUB_TEST_DATABASE_URL")
    if given:
        return given
    state = load_state(request.getfixturevalue("server_folder"))
    assert state is not None
    assert state.superuser_url is not None
    return state.superuser_url


@pytest.fixture(scope="session")
def elasticsearch_url(request: pytest.FixtureRequest) -> str:
    """An Elasticsearch for tests that keep their documents under index prefixes of their own."""
    given = os.environ.get("PAYHUB_TEST_ELASTICSEARCH_URL")
    if given:
        return given
    state = load_state(request.getfixturevalue("stack_folder"))
    assert state is not None
    return state.address("elasticsearch")


@pytest.fixture(scope="session")
def new_database(database_server: str) -> Callable[[], str]:
    """Makes a new, empty database and returns its URL."""
    server = make_url(database_server)
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)

    def create() -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return server.set(database=name).render_as_string(hide_password=False)

    return create


@pytest.fixture(scope="session")
def database_url(new_database: Callable[[], str]) -> str:
    """A database that is empty when the run begins."""
    return new_database()
