"""What a person must look at is listed, without what STP posted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from connectors.stp.inbox import Inbox
from connectors.stp.orders import CallbackResult
from hub.cli import app
from hub.statements import open_statements


async def test_everything_that_came_to_nothing_waits_for_a_person(rail, monkeypatch):  # H4 L32 L41
    job = rail.job()
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    body = {"id": rail.at_stp(job)[0].id, "empresa": "TAMIZI", "claveRastreo": rail.key(job), "nombre": "Ana"}
    async with open_statements(rail.database_url) as database:
        newest = (await database.rows("SELECT coalesce(max(id), 0) FROM stp.callback"))[0][0]
        for _ in range(2):
            await rail.post_status(body | {"estado": "ZZ"})
        await rail.post_status(body | {"estado": "LQ"})
        await rail.post_status(body | {"estado": "CN"})
        await rail.post_status({"id": 1, "claveRastreo": f"X{newest}", "estado": "LQ"})
        await rail.post_status(f"[{newest}]".encode())
        found = [one for one in await Inbox(database).look() if one.id > newest]
        assert [(one.result, one.times, one.payment_id, one.state) for one in found] == [
            ("malformed", 1, None, None),
            ("unknown-order", 1, None, None),
            ("conflict", 1, job.payment_id, "SETTLED"),
            ("unknown-status", 2, job.payment_id, "SETTLED"),
        ]
        conflicts = await Inbox(database).look(result=CallbackResult.CONFLICT, before=found[2].id + 1, limit=1)
        assert [one.id for one in conflicts] == [found[2].id]
    assert "Ana" not in str([one.as_json() for one in found]) + "".join(map(str, found))


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_command_lists_them(migrated_url, monkeypatch, tmp_path, flags):
    monkeypatch.setenv("PAYHUB_DATABASE_URL", migrated_url)
    command = ["stp", "inbox", "--before", "1", "--data-dir", str(tmp_path), *flags]
    listed = CliRunner().invoke(app, command)
    assert listed.exit_code == 0, listed.output
    assert json.loads(listed.output) == {"callbacks": []} if flags else "Nothing waits for a person." in listed.output
    assert CliRunner().invoke(app, ["stp", "inbox", "--result", "moved", "--data-dir", str(tmp_path)]).exit_code == 1
