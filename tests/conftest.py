"""The real servers of one test run, on free ports and in a folder of its own.

They end when the run ends, however it ends. `PAYHUB_TEST_ZEEBE_ADDRESS`, `PAYHUB_TEST_DATABASE_URL` (whose user may
create databases) and `PAYHUB_TEST_ELASTICSEARCH_URL` take servers that already run, which makes a single test quick to
repeat.
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

from hub.stack.state import load_state

SETTINGS_PREFIX = "PAYHUB_"


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


@pytest.fixture(scope="session")
def server_folder(_no_settings_from_outside: None) -> Iterator[Path]:
    """The data folder of a stack with Zeebe and PostgreSQL, without any process of the hub."""
    folder = Path(tempfile.mkdtemp(prefix="payhub-tests-"))
    folder.chmod(0o711)  # pytest's own folders are closed to the user that the servers run as when we are root
    command = [sys.executable, "-m", "hub.stack"]
    choices = ["--detach", "--free-ports", "--profile", "barebone", "--bound-to", str(os.getpid())]
    started = subprocess.run(
        [*command, "up", *choices, "--data-dir", str(folder)],
        check=False,
        text=True,
        capture_output=True,
    )
    assert started.returncode == 0, started.stderr
    yield folder
    subprocess.run([*command, "down", "--data-dir", str(folder)], check=True)
    shutil.rmtree(folder)


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
def elasticsearch_url(zeebe_address: str, database_server: str) -> Iterator[str]:
    """An Elasticsearch for tests that keep their documents under index prefixes of their own."""
    given = os.environ.get("PAYHUB_TEST_ELASTICSEARCH_URL")
    if given:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="payhub-tests-"))
    folder.chmod(0o711)
    command = [sys.executable, "-m", "hub.stack"]
    choices = ["--detach", "--free-ports", "--profile", "minimal", "--bound-to", str(os.getpid())]
    started = subprocess.run(
        [*command, "up", *choices, "--data-dir", str(folder)],
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, "PAYHUB_ZEEBE_ADDRESS": zeebe_address, "PAYHUB_DATABASE_URL": database_server},
    )
    assert started.returncode == 0, started.stderr
    state = load_state(folder)
    assert state is not None
    yield state.address("elasticsearch")
    subprocess.run([*command, "down", "--data-dir", str(folder)], check=True)
    shutil.rmtree(folder)


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
