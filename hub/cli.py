"""`payhub`: the composition root, the one module that knows everybody.

Exit code 0 means success and nothing else. With `--json` a command prints one JSON object on standard output, errors
too. Commands that talk to a running hub take what they need from `PAYHUB_*` settings, else from the data folder of
`payhub up`.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.commands.audit import audit_app
from hub.commands.by_hand import incident_app, payment_app
from hub.commands.disburse import disburse_app
from hub.commands.ledger import ledger_app
from hub.commands.reconcile import reconcile
from hub.commands.stp import stp_app
from hub.connector import OpenService
from hub.settings import EngineSettings, read
from hub.terminal import AsJson, DataFolder, Host, LogsAsJson, databases, explained, fail, say, use_stack

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A payment hub: payment flows drawn in BPMN, run by Zeebe, carried out by workers.",
)
bpmn_app = typer.Typer(no_args_is_help=True, help="The drawings.")
for name, group in {
    "audit": audit_app,
    "bpmn": bpmn_app,
    "disburse": disburse_app,
    "stp": stp_app,
    "ledger": ledger_app,
    "payment": payment_app,
    "incident": incident_app,
}.items():
    app.add_typer(group, name=name)

app.command("reconcile")(reconcile)


def _stack_commands() -> None:
    from hub.stack.commands import add_stack_commands

    def local_hub(data_folder: Path) -> Any:
        from hub.local import LocalHub

        return LocalHub(data_folder)

    add_stack_commands(app, local_hub)


@app.command()
def work(
    connector: Annotated[str, typer.Argument(help="channel, ams or stp")],
    *,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the health page and the metrics; 0: any free one.")] = 0,
    as_json: LogsAsJson = False,
) -> None:
    """Do the jobs of one connector until told to stop."""
    from connectors.registry import by_name
    from hub import process

    with explained(KeyError, as_json=as_json):
        found = by_name(connector)
        process.run(f"work-{connector}", process.work(found, host, port), as_json=as_json)


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help="channel, stp-callbacks, ledger, disbursement, operations, ...")],
    *,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on; 0: any free one.")] = 0,
    as_json: LogsAsJson = False,
) -> None:
    """Serve one HTTP service until told to stop."""
    from connectors import registry
    from hub import process

    opened: OpenService
    if service == "ledger":
        from ledger.service import open_ledger_service

        opened = open_ledger_service
    elif service in registry.SERVICES:
        opened = registry.by_name(registry.SERVICES[service]).services[service]
    else:
        fail(f"there is no service {service!r}; there are ledger, {', '.join(registry.SERVICES)}", as_json=as_json)
    with explained(as_json=as_json):
        process.run(f"serve-{service}", process.provide(service, opened, host, port), as_json=as_json)


@app.command()
def export(
    view: Annotated[str, typer.Argument(help="audit or operations")],
    *,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the health page and the metrics; 0: any free one.")] = 0,
    as_json: LogsAsJson = False,
) -> None:
    """Keep one view in Elasticsearch up to date with the engine until told to stop. Several may run at once."""
    from exporters.service import exporter
    from exporters.views import VIEWS
    from hub import process

    if view not in VIEWS:
        fail(f"there is no view {view}; there are {', '.join(VIEWS)}", as_json=as_json)
    with explained(as_json=as_json):
        process.run(f"export-{view}", process.provide_alone(view, exporter(VIEWS[view]), host, port), as_json=as_json)


@app.command()
def rebuild(
    views: Annotated[list[str] | None, typer.Argument(help="audit, operations; both when none is named.")] = None,
    *,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Delete the indexes that are not in use any more.")
    ] = False,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make the views again from Kafka, switch to them, and fail when they differ from those that were in use."""
    from elastic_transport import TransportError
    from kafka.errors import KafkaError

    from exporters.rebuild import NothingToReplay, Overtaken
    from exporters.rebuild import rebuild as make_again
    from exporters.views import VIEWS
    from hub.elastic import ApiError

    chosen = views or list(VIEWS)
    if unknown := [name for name in chosen if name not in VIEWS]:
        fail(f"there is no view {', '.join(unknown)}; there are {', '.join(VIEWS)}", as_json=as_json)
    use_stack(data_dir)
    with explained(KafkaError, TransportError, ApiError, Overtaken, NothingToReplay, as_json=as_json):
        made = [make_again(VIEWS[name], drop_old=drop_old) for name in chosen]
    equal = all(one.equal for one in made)
    answer = {"equal": equal, "views": [one.as_json() for one in made]}
    say(answer, "\n".join(str(one) for one in made), as_json=as_json)
    if not equal:
        raise typer.Exit(1)


@app.command()
def deploy(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
    """Bring the tables to their newest form and give the drawings to the engine, unless a job has no worker."""
    from hub.errors import Unavailable
    from hub.local import NotServed, migrate_all
    from hub.local import deploy as give

    use_stack(data_dir)
    with explained(NotServed, Unavailable, as_json=as_json):
        migrate_all(*databases())
        deployed = asyncio.run(give(read(EngineSettings)))
    names = [f"{one.id} v{one.version}" for one in (*deployed.processes, *deployed.decisions)]
    say({"deployed": names}, "Deployed " + ", ".join(names) + ".", as_json=as_json)


@bpmn_app.command("check")
def bpmn_check(*, as_json: AsJson = False) -> None:
    """Compare what is drawn with what is coded, both ways."""
    import bpmn
    from hub.local import differences

    found = [str(finding) for finding in differences()]
    if found:
        fail("\n".join(found), as_json=as_json, findings=found)
    drawings = sorted(bpmn.resources())
    say({"findings": [], "drawings": drawings}, f"{', '.join(drawings)}: drawn as coded.", as_json=as_json)


@app.command()
def seed(
    file: Annotated[Path, typer.Argument(help="JSON as described in docs/seed.md")],
    *,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Load tenants, fees, accounts and allow-lists. Repeating it changes nothing."""
    from hub.errors import Unavailable
    from hub.seed import SeedError
    from hub.seed import seed as load

    use_stack(data_dir)
    with explained(SeedError, Unavailable, as_json=as_json):
        loaded = asyncio.run(load(file, *databases()))
    answer = {"tenants": loaded.tenants, "accounts": loaded.accounts}
    say(answer, f"{loaded.tenants} tenants with {loaded.accounts} accounts are in place.", as_json=as_json)


@app.command()
def token(
    *,
    role: Annotated[list[str], typer.Option(help="channel, viewer, operator, ...; may be repeated")],
    tenant: Annotated[str, typer.Option(help="The tenant the caller acts for.")],
    subject: Annotated[str, typer.Option(help="Who the caller is.")] = "local",
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long it is valid.")] = 60,
    data_dir: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Print a token of the local issuer, which the local hub believes."""
    from hub.stack.state import default_data_folder, load_state
    from hub.tokens import LocalIssuer

    folder = data_dir or default_data_folder()
    if load_state(folder) is None:
        fail(f"there is no stack in {folder}; start one with `payhub up`, or name it with --data-dir", as_json=as_json)
    with explained(PermissionError, TypeError, as_json=as_json):
        minted = LocalIssuer.open(folder / "issuer").mint(role, tenant, subject, timedelta(minutes=minutes))
    say({"token": minted, "expires_in": minutes * 60}, minted, as_json=as_json)


@app.command()
def demo(
    *,
    file: Annotated[Path, typer.Option(help="The payments to send.")] = Path("examples/payments.csv"),
    seed_file: Annotated[Path, typer.Option("--seed", help="The tenants and accounts.")] = Path("examples/seed.json"),
    leave: Annotated[bool, typer.Option("--exit", help="Leave when the payments are done.")] = False,
    data_dir: DataFolder = None,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Replace every port that is taken.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the hub, send the payments of a file through it and watch each one to its end."""
    from hub.demo import DemoFailed, run_demo
    from hub.stack.errors import StackError
    from hub.stack.state import default_data_folder

    folder = data_dir or default_data_folder()
    with explained(DemoFailed, StackError, as_json=as_json):
        run_demo(file, seed_file, folder, leave=leave, free_ports=free_ports, as_json=as_json)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="end-to-end, accept, worker, ledger, hot-account, orders, streamer, freshness, search, ...; or all."
        ),
    ] = None,
    *,
    rounds: Annotated[int, typer.Option(min=1, help="end-to-end: how often the two sides alternate.")] = 3,
    payments: Annotated[int, typer.Option(min=20, help="end-to-end: payments per round and side.")] = 400,
    as_json: AsJson = False,
) -> None:
    """Measure speed as ratios in one run: the hub against the same drawings with no-op workers, and its parts."""
    from benchmarks.run import END_TO_END, NAMES, run

    chosen = names or [END_TO_END]
    chosen = list(NAMES) if chosen == ["all"] else chosen
    if unknown := [name for name in chosen if name not in NAMES]:
        fail(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)} and all", as_json=as_json)
    raise typer.Exit(run(chosen, rounds=rounds, payments=payments, as_json=as_json))


def main() -> None:
    """The console script."""
    if sys.argv[1:2] not in (["work"], ["serve"], ["export"]):
        _stack_commands()
    app()


if __name__ == "__main__":
    main()
