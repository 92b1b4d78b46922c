"""The operator log: gapless, chained, never changed; whoever changes it behind the hub's back is found out."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from hub.cli import app
from hub.migrations import migrate
from hub.statements import Statements, open_statements
from ledger.outbox import NotAcknowledged, Told
from operations_app.journal import COLUMNS, GENESIS, Act, Entry, Journal, canonical, entry_hash
from operations_app.mirror import Mirror
from operations_app.settings import APP_ROLE
from operations_app.verify import Evidence, LogReport, verify

SECRET = b"a secret of the test"


def act(number: int = 0, **given: object) -> Act:
    fields: dict[str, Any] = {
        "tenant_id": "acme",
        "actor": "ana",
        "roles": {"operator", "viewer"},
        "action": "action.request",
        "target": f"transfer:{number}",
        "payment_id": str(uuid.UUID(int=number)),
        "reason_code": "customer-asked",
        "reason": "The customer asked for it.",
        "before": {"state": "waiting", "amount": 1200},
        "after": {"state": "done", "job_key": 2251799813685249, "names": ["á", None, True]},
        "request_id": "r-1",
        "outcome": "done",
    }
    return Act(**{**fields, **given})


@pytest.fixture(scope="module")
def log_url(new_database: Callable[[], str]) -> str:
    url = new_database()
    migrate("operations_app.migrations", url)
    return url


@pytest.fixture
async def database(log_url: str) -> AsyncIterator[Statements]:
    """An empty log, worked on as the application does."""
    _empty(log_url)
    async with open_statements(log_url, 8, role=APP_ROLE) as opened:
        yield opened


def _empty(url: str) -> None:
    with _owner(url) as owner:
        owner.execute("ALTER TABLE operations.act DISABLE TRIGGER USER")
        owner.execute("TRUNCATE operations.act, operations.act_cursor")
        owner.execute("ALTER TABLE operations.act ENABLE ALWAYS TRIGGER append_only")
        owner.execute("ALTER TABLE operations.act ENABLE ALWAYS TRIGGER follows")


def _owner(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    )


def tamper(url: str, *statements: sql.Composed | sql.SQL) -> None:
    """What an administrator of the database can do: switch the triggers off, change, switch them on."""
    with _owner(url) as owner, owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        owner.execute("ALTER TABLE operations.act DISABLE TRIGGER USER")
        owner.execute("ALTER TABLE operations.act DROP CONSTRAINT IF EXISTS act_hash_key")
        owner.execute("ALTER TABLE operations.act DROP CONSTRAINT IF EXISTS act_prev_hash_key")
        for statement in statements:
            owner.execute(statement)


async def test_acts_written_at_once_get_numbers_without_gaps_and_one_chain(database: Statements, log_url: str) -> None:
    journal = Journal(database)

    async def rolled_back() -> None:
        async with database.connection() as connection, connection.transaction(force_rollback=True):
            await journal.append(act(99), connection)

    numbers = await asyncio.gather(*(journal.append(act(number)) for number in range(30)), rolled_back(), rolled_back())
    assert sorted(number for number in numbers if number is not None) == list(range(1, 31))
    report = await verify(log_url, Evidence())
    assert (report.sound, report.rows) == (True, 30)


async def test_an_act_belongs_to_its_callers_transaction(database: Statements) -> None:
    journal = Journal(database)
    async with database.connection() as connection, connection.transaction():
        await journal.append(act(1), connection)
        assert await journal.after(0) == []  # another connection: nothing is there before the commit
    assert [entry.seq for entry in await journal.after(0)] == [1]


async def test_the_application_can_neither_change_nor_remove_nor_slip_in_a_row(
    database: Statements, log_url: str
) -> None:
    await Journal(database).append(act())
    for statement in ("UPDATE operations.act SET actor = 'x'", "DELETE FROM operations.act", "TRUNCATE operations.act"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await database.rows(statement)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), _owner(log_url) as owner:
            owner.execute(statement.encode())  # whoever owns the table is stopped by its triggers
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await database.rows("ALTER TABLE operations.act DISABLE TRIGGER ALL")
    for seq, before in ((3, "prev_hash"), (2, "prev_hash")):
        with pytest.raises(psycopg.errors.IntegrityError):
            await database.rows(
                f"INSERT INTO operations.act ({COLUMNS}) SELECT {seq}, at, tenant_id, actor, roles, action, target, "
                "payment_id, reason_code, reason, before, after, request_id, outcome, "
                f"{before}, sha256(hash) FROM operations.act"
            )


CHANGES: Sequence[tuple[str, str]] = (
    ("at", "at + interval '1 microsecond'"),
    ("tenant_id", "'other'"),
    ("tenant_id", "NULL"),
    ("actor", "'eve'"),
    ("roles", "array_append(roles, 'admin')"),
    ("roles", "roles[2:2] || roles[1:1]"),
    ("action", "'action.approve'"),
    ("target", "'transfer:9'"),
    ("payment_id", "NULL"),
    ("reason_code", "'other'"),
    ("reason", "reason || ' '"),
    ("before", """jsonb_set(before, '{amount}', '1201')"""),
    ("before", "NULL"),
    ("after", """after - 'state'"""),
    ("after", "'null'::jsonb || '[]'"),
    ("request_id", "'r-2'"),
    ("outcome", "'refused'"),
    ("hash", "sha256(hash)"),
    ("prev_hash", "sha256(prev_hash)"),
)


@pytest.mark.parametrize("where", [1, 4])
async def test_a_change_of_any_column_is_found_and_its_row_named(
    database: Statements, log_url: str, where: int
) -> None:
    journal = Journal(database)
    for number in range(6):
        await journal.append(act(number))
    assert (await verify(log_url, Evidence())).sound
    for column, value in CHANGES:
        query = sql.SQL("UPDATE operations.act SET {} = {} WHERE seq = {}").format(
            sql.Identifier(column), sql.SQL(value), where
        )
        with _owner(log_url) as owner:
            owner.execute("DROP TABLE IF EXISTS public.kept; CREATE TABLE public.kept AS TABLE operations.act")
        tamper(log_url, query)
        report = await verify(log_url, Evidence())
        assert report.broken, (column, value)
        assert report.broken[0].startswith(f"row {where}: "), (column, value)
        tamper(
            log_url,
            sql.SQL("DELETE FROM operations.act"),
            sql.SQL("INSERT INTO operations.act SELECT * FROM public.kept ORDER BY seq"),
        )
    assert (await verify(log_url, Evidence())).sound


async def test_a_row_removed_or_slipped_in_is_found(database: Statements, log_url: str) -> None:
    journal = Journal(database)
    for number in range(4):
        await journal.append(act(number))
    tamper(log_url, sql.SQL("DELETE FROM operations.act WHERE seq = 2"))
    assert (await verify(log_url, Evidence())).broken == ["row 3: row 2 is missing before it"]
    tamper(log_url, sql.SQL("UPDATE operations.act SET seq = seq - 1 WHERE seq > 2"))
    assert (await verify(log_url, Evidence())).broken[0] == "row 2: it does not follow from the row before it"


async def _kafka_after(database: Statements) -> tuple[dict[int, str], list[Told]]:
    told: list[Told] = []

    async def publish(waiting: Sequence[Told]) -> None:
        told.extend(waiting)

    mirror = Mirror(database, publish, batch=4)
    while await mirror.tell():
        pass
    return {one.outbox_id: json.loads(one.value)["hash"] for one in told}, told


async def test_a_tail_that_was_cut_off_is_found_by_the_mirror_and_by_a_head_noted_down(
    database: Statements, log_url: str
) -> None:
    journal = Journal(database)
    for number in range(6):
        await journal.append(act(number))
    head = (await verify(log_url, Evidence())).head
    assert head is not None
    noted = (int(head.partition(":")[0]), head.partition(":")[2])
    mirror, _ = await _kafka_after(database)
    whole = await verify(log_url, Evidence(mirror=mirror, head=noted))
    assert (whole.sound, whole.mirrored) == (True, 6)
    tamper(log_url, sql.SQL("DELETE FROM operations.act WHERE seq > 4"))
    assert (await verify(log_url, Evidence())).sound  # from the inside it cannot be seen
    assert (await verify(log_url, Evidence(mirror=mirror))).broken[0] == "row 5: it was told to Kafka and is gone"
    assert (await verify(log_url, Evidence(head=noted))).broken == ["row 6: it was noted down and is gone"]


def _made_anew(entries: Sequence[Entry]) -> list[sql.Composed]:
    """What a forger does who knows how the chain is made: change one row and compute every hash after it."""
    before, statements = GENESIS, []
    for entry in entries:
        content = entry.content() | ({"actor": "eve"} if entry.seq == 2 else {})
        digest = entry_hash(before, content)
        after = entry.after
        if entry.action == "log.checkpoint":
            after = entry.after | {"hash": before.hex()}
            digest = entry_hash(before, content | {"after": after})
        statements.append(
            sql.SQL(
                "UPDATE operations.act SET actor = {}, after = {}::jsonb, prev_hash = {}, hash = {} WHERE seq = {}"
            ).format(content["actor"], json.dumps(after), before, digest, entry.seq)
        )
        before = digest
    return statements


async def test_a_log_made_anew_is_found_by_its_unsigned_checkpoint_and_by_the_mirror(
    database: Statements, log_url: str
) -> None:
    journal = Journal(database)
    for number in range(3):
        await journal.append(act(number))
    assert await journal.checkpoint(timedelta(hours=1), SECRET) == 4
    assert await journal.checkpoint(timedelta(hours=1), SECRET) is None
    await journal.append(act(5))
    mirror, _ = await _kafka_after(database)
    found = await verify(log_url, Evidence(secret=SECRET, mirror=mirror))
    assert (found.sound, found.checkpoints, found.signatures_checked) == (True, 1, True)
    tamper(log_url, *_made_anew(await journal.after(0)))
    assert (await verify(log_url, Evidence())).sound  # the chain by itself is whole
    assert (await verify(log_url, Evidence(secret=SECRET))).broken == [
        "row 4: the checkpoint does not bear our signature"
    ]
    assert (await verify(log_url, Evidence(mirror=mirror))).broken[0] == "row 2: it is another than was told to Kafka"


async def test_what_kafka_was_not_told_for_certain_is_told_again_and_proves_itself(database: Statements) -> None:
    journal = Journal(database)
    for number in range(5):
        await journal.append(act(number))
    attempts: list[Sequence[Told]] = []

    async def publish(waiting: Sequence[Told]) -> None:
        attempts.append(waiting)
        if len(attempts) == 1:
            raise NotAcknowledged("KafkaTimeoutError")

    mirror = Mirror(database, publish)
    with pytest.raises(NotAcknowledged):
        await mirror.tell()
    assert await mirror.tell() == 5
    assert await mirror.tell() == 0
    assert attempts[0] == attempts[1]
    records = [json.loads(one.value) for one in attempts[1]]
    before = GENESIS
    for record in records:  # with the topic alone the chain can be verified
        digest, previous = record.pop("hash"), record.pop("prevHash")
        assert (previous, entry_hash(before, record).hex()) == (before.hex(), digest)
        before = bytes.fromhex(digest)
    assert set(records[0]) == {
        "seq", "at", "tenantId", "actor", "roles", "action", "target", "paymentId", "reasonCode", "reason", "before",
        "after", "requestId", "outcome",
    }  # fmt: skip


TELLING = """
import asyncio, sys
from hub.statements import open_statements
from operations_app.mirror import Mirror

async def publish(waiting):
    print(*(one.outbox_id for one in waiting), flush=True)

async def main():
    async with open_statements(sys.argv[1], 2) as database:
        await Mirror(database, publish).tell()

asyncio.run(main())
"""


async def test_a_mirror_that_dies_after_kafka_acknowledged_tells_the_same_rows_again(
    database: Statements, log_url: str
) -> None:
    for number in range(3):
        await Journal(database).append(act(number))
    environment = os.environ | {"PAYHUB_FAILPOINT": "operations.mirror.after-acknowledgement"}
    command = [sys.executable, "-c", TELLING, log_url]
    died = await asyncio.to_thread(
        subprocess.run, command, env=environment, check=False, capture_output=True, text=True
    )
    assert (died.returncode, died.stdout) == (-9, "1 2 3\n"), died.stderr
    mirror, told = await _kafka_after(database)
    while not told:  # PostgreSQL has not noticed yet that who held the lock is dead
        mirror, told = await _kafka_after(database)
    assert [one.outbox_id for one in told] == [1, 2, 3]
    assert (await verify(log_url, Evidence(mirror=mirror))).sound


async def test_no_personal_data_gets_into_the_log_and_odd_text_does_not_break_it(
    database: Statements, log_url: str
) -> None:
    journal = Journal(database)
    party = {"name": "Luis Vega", "identifier": "012180001183597198", "tax_id": "VEGL800101AB1"}
    await journal.append(
        act(1, before={"payee": party}, after=None, reason="Cuenta 012180001183597198, \x00 \ud800 RFC VEGL800101AB1")
    )
    (entry,) = await journal.after(0)
    told = canonical(entry.record()).decode()
    assert entry.before == {"payee": {"name": "L*** V***", "identifier": "**************7198", "tax_id": "***"}}
    assert not [secret for secret in ("Luis", "012180001183597198", "VEGL800101AB1") if secret in told]
    assert (await verify(log_url, Evidence())).sound
    with pytest.raises(ValueError, match="fractions"):
        await journal.append(act(2, after={"amount": 12.5}))


def test_a_report_names_the_first_broken_row() -> None:
    report = LogReport(rows=3, broken=["row 2: it is not what was written"], head="3:ab")
    assert str(report).endswith("The operator log is NOT sound: row 2: it is not what was written.")
    assert report.as_json()["first_broken"] == "row 2: it is not what was written"


def test_the_command_names_the_first_broken_row_and_ends_with_one(
    log_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def written() -> None:
        async with open_statements(log_url, 2, role=APP_ROLE) as database:
            for number in range(3):
                await Journal(database).append(act(number))

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        ended = CliRunner().invoke(app, ["audit", "verify", "--json", *words])
        return ended.exit_code, json.loads(ended.stdout)

    _empty(log_url)
    asyncio.run(written())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAYHUB_DATABASE_URL", log_url)
    code, sound = run()
    assert code == 0, sound
    assert (code, sound["sound"], sound["rows"], sound["mirrored"]) == (0, True, 3, None)
    assert run("--head", sound["head"])[0] == 0
    assert run("--head", "three")[0] == 1
    tamper(log_url, sql.SQL("DELETE FROM operations.act WHERE seq = 3"))
    assert run()[0] == 0
    code, cut = run("--head", sound["head"])
    assert (code, cut["report"]["first_broken"]) == (1, "row 3: it was noted down and is gone")
    tamper(log_url, sql.SQL("UPDATE operations.act SET actor = 'eve' WHERE seq = 2"))
    code, changed = run("--no-mirror")
    assert (code, changed["report"]["first_broken"]) == (1, "row 2: it is not what was written")
