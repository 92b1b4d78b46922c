"""`payhub payment` and `payhub incident`: what whoever runs the hub mends past the operations API."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from hub.settings import DatabaseSettings, EngineSettings, read
from hub.terminal import AsJson, DataFolder, explained, fail, say, use_stack

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

payment_app = typer.Typer(no_args_is_help=True, help="What an operator can tell a payment.")
incident_app = typer.Typer(no_args_is_help=True, help="What is stuck in the hub's own processes.")

Note = Annotated[str, typer.Option(help="Why, for those who read it later.")]


@payment_app.callback()
def _group() -> None:
    """Keeps `decide` a word of its own while it is the only command."""


@payment_app.command("decide")
def payment_decide(
    payment_id: Annotated[str, typer.Argument(help="The transactionId.")],
    *,
    outcome: Annotated[str, typer.Option(help="SETTLED, REJECTED, RETURNED or CANCELLED")],
    note: Note,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Settle a payment that waits for an operator because nobody else can tell its outcome."""
    from pydantic import ValidationError

    from hub.errors import Unavailable
    from hub.operator import OutcomeDecided
    from hub.statements import open_statements
    from hub.zeebe.client import open_engine
    from operations_app.by_hand import decide

    use_stack(data_dir)
    try:
        decided = OutcomeDecided.model_validate({"payment_id": payment_id, "outcome": outcome, "reason_detail": note})
    except ValidationError:
        fail("--outcome must be one of SETTLED, REJECTED, RETURNED, CANCELLED", as_json=as_json)

    async def tell() -> str:
        async with (
            open_statements(read(DatabaseSettings).url, 2) as database,
            open_engine(read(EngineSettings)) as engine,
        ):
            return await decide(database, engine, decided)

    with explained(LookupError, Unavailable, as_json=as_json):
        published = asyncio.run(tell())
    say({"payment_id": payment_id, "published": published}, f"The engine knows ({published}).", as_json=as_json)


@incident_app.command("list")
def incident_list(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Open incidents of runs, reconciliations and operators' actions; a payment's are repaired by its operators."""
    from hub.errors import Unavailable
    from operations_app.by_hand import stuck
    from operations_app.views import open_views

    async def shown() -> list[dict[str, str | None]]:
        async with open_views() as views:
            return [one.model_dump(by_alias=True) for one in await stuck(views)]

    use_stack(data_dir)
    with explained(Unavailable, as_json=as_json):
        found = asyncio.run(shown())
    lines = [
        f"{one['incidentKey']}  {one['createdAt']}  {one['processId']} at {one['elementId']}: {one['errorMessage']}"
        for one in found
    ]
    say({"incidents": found}, "\n".join(lines) or "Nothing is stuck.", as_json=as_json)


@incident_app.command("resolve")
def incident_resolve(
    key: Annotated[str, typer.Argument(help="The incident's key, as `payhub incident list` shows it.")],
    *,
    note: Note,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Let the step of an incident be tried again. It fails anew when its cause is still there."""
    from hub.errors import Unavailable, Uncertain
    from hub.zeebe.client import open_engine
    from hub.zeebe.refusals import EngineRefused
    from operations_app.by_hand import NotRepairable, open_journal, resolve
    from operations_app.views import open_views

    async def tried_again() -> str:
        async with (
            open_journal() as journal,
            open_views() as views,
            open_engine(read(EngineSettings)) as engine,
        ):
            return (await resolve(views, journal, engine.operate, key, note)).element_id

    use_stack(data_dir)
    with explained(NotRepairable, EngineRefused, Unavailable, Uncertain, as_json=as_json):
        element = asyncio.run(tried_again())
    say({"incident": key, "element": element}, f"{element} is tried again.", as_json=as_json)
