"""`payhub ledger ...`: exit code 0 is success and nothing else, and the first broken row is named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner, Result

from hub.cli import app
from ledger.seed import Seed, seed


@pytest.fixture
def book(own_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[psycopg.Connection]:
    accounts = [{"id": "ana", "currency": "MXN", "opening_balance": "100"}]
    asyncio.run(seed(own_url, Seed.model_validate({"tenants": [{"id": "acme", "accounts": accounts}]})))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAYHUB_DATABASE_URL", own_url)
    monkeypatch.setenv("PAYHUB_LEDGER_DATABASE_URL", own_url)
    address = make_url(own_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        yield connection


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["ledger", *words])


def test_verify_and_rebuild_succeed_on_a_sound_book_and_name_the_first_broken_row_of_another(book):
    assert run("verify").exit_code == 0
    assert "all are equal" in run("rebuild").stdout
    book.execute("UPDATE ledger.balance SET credits = credits + 1 WHERE credits > 0 AND floor = 0")
    found = run("verify", "--json")
    assert found.exit_code == 1
    assert "book acme, MXN/2: debits 10000, credits 10001" in found.stdout
    made = run("rebuild", "--json")
    assert (made.exit_code, json.loads(made.stdout)["rebuilt"]["wrong"][0]["kept"]["credits"]) == (1, 10001)
    assert run("rebuild", "--write").exit_code == 1
    mended = run("rebuild", "--write", "--reason", "ticket 1", "--json")
    assert (mended.exit_code, json.loads(mended.stdout)["written"]) == (0, True)
    assert run("verify").exit_code == 0


def test_an_export_is_a_file_and_what_is_wrong_is_said(book, tmp_path):
    span = ("--book", "acme", "--from", "2020-01-01", "--to", "2190-01-01")
    done = run("export", *span, "--format", "parquet", "book.parquet", "--json")
    assert (done.exit_code, json.loads(done.stdout)["rows"]) == (0, 1)
    assert (tmp_path / "book.parquet").stat().st_size > 0
    wrong = run("export", *span, "--format", "xlsx", "book.xlsx", "--json")
    assert (wrong.exit_code, json.loads(wrong.stdout)["error"]) == (
        1,
        "there is no format 'xlsx'; there are csv and parquet",
    )
    assert run("export", *span, "nowhere/book.csv").exit_code == 1
