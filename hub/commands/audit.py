"""`payhub audit`: the operator log, proved."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated

import typer

from hub.settings import DatabaseSettings, KafkaSettings, read
from hub.terminal import AsJson, DataFolder, explained, fail, judge, use_stack

if TYPE_CHECKING:
    from operations_app.verify import LogReport

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

audit_app = typer.Typer(no_args_is_help=True, help="What operators did.")


@audit_app.callback()
def _group() -> None:
    """Keeps `verify` a word of its own while it is the only command."""


@audit_app.command("verify")
def audit_verify(
    *,
    head: Annotated[
        str | None, typer.Option(help="Number and hash of a row, noted down earlier, as in 12:9f86d0...")
    ] = None,
    mirror: Annotated[
        bool, typer.Option(help="Compare with what Kafka was told, which finds rows cut off at the end.")
    ] = True,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the operator log's chain of hashes; name the first row that does not agree."""
    from kafka.errors import KafkaError

    from hub.errors import Unavailable
    from operations_app.mirror import Contradiction

    known = None if head is None else re.fullmatch(r"([0-9]+):([0-9a-f]{64})", head)
    if head is not None and known is None:
        fail("--head is a row's number and its hash, as in 12:9f86d0...", as_json=as_json)
    noted = None if known is None else (int(known[1]), known[2])
    use_stack(data_dir)
    with explained(Unavailable, KafkaError, Contradiction, as_json=as_json):
        report = asyncio.run(_verified(noted, mirror=mirror))
    judge(report, sound=report.sound, as_json=as_json)


async def _verified(head: tuple[int, str] | None, *, mirror: bool) -> LogReport:
    from operations_app.mirror import mirrored
    from operations_app.settings import OperatorLogSettings
    from operations_app.verify import Evidence, verify

    settings, kafka = read(OperatorLogSettings), read(KafkaSettings)
    secret = settings.secret.get_secret_value().encode() if settings.secret else None
    # Kafka first: whatever it was told is in the database by then.
    told = await mirrored(kafka.bootstrap_servers, settings.topic) if mirror and kafka.bootstrap_servers else None
    return await verify(read(DatabaseSettings).url, Evidence(secret=secret, mirror=told, head=head))
