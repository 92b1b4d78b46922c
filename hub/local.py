"""The hub on one machine: its processes, their ports and settings, and what happens before they start."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

import bpmn
from connectors import registry
from connectors.stp.signature import generate_key_pair
from hub.api import serve
from hub.drawn import Finding, check
from hub.migrations import migrate
from hub.operator import OutcomeDecided
from hub.settings import EngineSettings
from hub.stack.plan import HubPlan, HubProcess, Preparation
from hub.stack.state import Profile, StackState
from hub.tokens import LocalIssuer, issuer_app
from hub.zeebe.client import Deployment, open_engine
from ledger.settings import APP_ROLE
from operations_app.settings import APP_ROLE as OPERATIONS_ROLE

SERVICES: Final[Mapping[str, int]] = {
    "channel": 8100,
    "stp-callbacks": 8101,
    "ledger": 8102,
    "stp-simulator": 8103,
    "disbursement": 8105,
    "operations": 8106,
}
"""Default port of each HTTP service."""

ISSUER_PORT: Final = 8104
WORKERS: Final[Mapping[str, int]] = {
    "channel": 8110,
    "ams": 8111,
    "stp": 8112,
    "disbursement": 8113,
    "operations": 8114,
}
"""Default port of each worker's health page."""
EXPORTERS: Final[Mapping[str, int]] = {"audit": 8120, "operations": 8121}
"""Default port of each exporter's health page; they run where there is a Kafka and an Elasticsearch."""

NEEDS_VIEWS: Final = frozenset({"operations"})
"""Services and workers that run only where the views are kept."""

_LEAN: Final[Mapping[str, str]] = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072"}
# glibc keeps an arena per thread and gives little back; a worker's memory is a third less with two arenas.

_SIMULATOR_ALLOWS: Final[Mapping[str, str]] = {"PAYHUB_STP_CONSULTS_PER_HOUR": "1000000", "PAYHUB_STP_PAGE_PAUSE": "0"}
"""What the simulator does not mind and STP would: never taken for another STP."""

SIMULATED_PAYER_ACCOUNT: Final = "646180157000000004"
SIMULATED_COMPANY: Final = "PAYHUB"


class NotServed(Exception):
    """What is drawn and what is coded differ; the text lists every difference."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("\n".join(str(finding) for finding in findings))


def differences() -> list[Finding]:
    """Every difference between the drawings and the workers, both ways."""
    return check(bpmn.processes(), bpmn.decisions(), registry.every(), extra_messages=(OutcomeDecided,))


async def deploy(settings: EngineSettings) -> Deployment:
    """Give the drawings to the engine. Raises `NotServed` before anything is given when a job has no worker."""
    findings = differences()
    if findings:
        raise NotServed(findings)
    async with open_engine(settings) as engine:
        return await engine.deploy(bpmn.resources())


def migrate_all(database_url: str, ledger_url: str) -> None:
    """Bring every component's tables to the newest revision."""
    migrate("ledger.migrations", ledger_url)
    migrate("ledger.disbursement.migrations", ledger_url)
    for connector in registry.every():
        if connector.migrations is not None:
            migrate(connector.migrations, database_url)


class LocalHub:
    """What `payhub up` runs on the servers, with the data folder that keeps its keys."""

    def __init__(self, data_folder: Path) -> None:
        self._folder = data_folder.resolve()

    def ports(self, profile: Profile) -> Mapping[str, int]:
        ports = {f"serve-{name}": port for name, port in _run(SERVICES, profile).items()}
        ports["issuer"] = ISSUER_PORT
        for name, port in _run(WORKERS, profile).items():
            ports[f"work-{name}"] = port
            if profile is Profile.FULL:
                ports[f"work-{name}-2"] = port + 20
        if profile is not Profile.BAREBONE:
            ports |= {f"export-{name}": port for name, port in EXPORTERS.items()}
        return ports

    def plan(self, state: StackState) -> HubPlan:
        def url(name: str) -> str:
            return f"http://127.0.0.1:{state.ports[name]}"

        environment = {**self._environment(state), **_kept(os.environ)}
        variables = {**state.variables(), **environment}
        engine = EngineSettings(address=variables["PAYHUB_ZEEBE_ADDRESS"])

        async def tables() -> None:
            await asyncio.to_thread(
                migrate_all, variables["PAYHUB_DATABASE_URL"], variables["PAYHUB_LEDGER_DATABASE_URL"]
            )

        async def drawings() -> None:
            await deploy(engine)

        return HubPlan(
            processes=tuple(self._processes(state)),
            preparations=(Preparation("tables", tables), Preparation("drawings", drawings)),
            services=(lambda: self._issuer(state.ports["issuer"]),),
            environment=environment,
            base_urls={
                "channel": url("serve-channel"),
                "stp_callbacks": url("serve-stp-callbacks"),
                "ledger": url("serve-ledger"),
                "stp_simulator": url("serve-stp-simulator"),
                "disbursement": url("serve-disbursement"),
                **({} if state.profile is Profile.BAREBONE else {"operations": url("serve-operations")}),
                "issuer": url("issuer"),
            },
            version=version("payment-hub"),
        )

    def _environment(self, state: StackState) -> dict[str, str]:
        keys = self._folder / "keys"
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        private_key, public_key = generate_key_pair(keys)
        known = {name: value.get_secret_value() for name, value in state.environment.items()}
        secret = known.get("PAYHUB_STP_CALLBACK_SECRET") or secrets.token_urlsafe(32)
        simulator = f"http://127.0.0.1:{state.ports['serve-stp-simulator']}"
        return {
            "PAYHUB_LEDGER_DATABASE_URL": state.address("postgres"),
            "PAYHUB_LEDGER_ROLE": APP_ROLE,
            # Fineract keeps books of its own: there is nothing of ours to compare with STP's.
            "PAYHUB_STP_RECONCILE_LEDGER": str(os.environ.get("PAYHUB_AMS_BACKEND") != "fineract").lower(),
            "PAYHUB_CHANNEL_ACCOUNT_SYSTEM_URL": f"http://127.0.0.1:{state.ports['work-ams']}/health/ready",
            "PAYHUB_TOKEN_JWKS_URL": f"http://127.0.0.1:{state.ports['issuer']}/jwks.json",
            "PAYHUB_STP_BASE_URL": simulator,
            "PAYHUB_STP_COMPANY": SIMULATED_COMPANY,
            "PAYHUB_STP_PAYER_ACCOUNT": SIMULATED_PAYER_ACCOUNT,
            "PAYHUB_STP_PRIVATE_KEY_FILE": str(private_key),
            "PAYHUB_STP_CALLBACK_SECRET": secret,
            "PAYHUB_STP_INQUIRE_AFTER": "5",
            **({} if "PAYHUB_STP_BASE_URL" in os.environ else _SIMULATOR_ALLOWS),
            "PAYHUB_STP_SIMULATOR_COMPANY": SIMULATED_COMPANY,
            "PAYHUB_STP_SIMULATOR_PAYER_ACCOUNT": SIMULATED_PAYER_ACCOUNT,
            "PAYHUB_STP_SIMULATOR_PUBLIC_KEY_FILE": str(public_key),
            "PAYHUB_STP_SIMULATOR_BOOK_FILE": str(self._folder / "stp-simulator.sqlite"),
            "PAYHUB_STP_SIMULATOR_CALLBACK_URL": f"http://127.0.0.1:{state.ports['serve-stp-callbacks']}/stp/order-status",
            "PAYHUB_STP_SIMULATOR_CALLBACK_SECRET": secret,
            "PAYHUB_STP_SIMULATOR_BY_CENTS": "false",
            "PAYHUB_EXPORT_SEARCH_SECRET": known.get("PAYHUB_EXPORT_SEARCH_SECRET") or secrets.token_urlsafe(32),
            "PAYHUB_OPERATIONS_CURSOR_SECRET": known.get("PAYHUB_OPERATIONS_CURSOR_SECRET")
            or secrets.token_urlsafe(32),
            "PAYHUB_OPERATIONS_LOG_SECRET": known.get("PAYHUB_OPERATIONS_LOG_SECRET") or secrets.token_urlsafe(32),
            "PAYHUB_OPERATIONS_ROLE": OPERATIONS_ROLE,
            "PAYHUB_OPERATIONS_PARTS": json.dumps(
                {name: f"http://127.0.0.1:{state.ports[name]}" for name in self.ports(state.profile)}
            ),
        }

    def _processes(self, state: StackState) -> list[HubProcess]:
        def process(name: str, *words: str) -> HubProcess:
            port = state.ports[name]
            return HubProcess(name, (sys.executable, "-m", "hub.cli", *words, "--port", str(port)), port, _LEAN)

        services = [process(f"serve-{name}", "serve", name) for name in _run(SERVICES, state.profile)]
        workers = [process(f"work-{name}", "work", name) for name in _run(WORKERS, state.profile)]
        if state.profile is Profile.FULL:
            workers += [process(f"work-{name}-2", "work", name) for name in WORKERS]
        exporters = [process(f"export-{name}", "export", name) for name in EXPORTERS if f"export-{name}" in state.ports]
        return services + workers + exporters

    def _issuer(self, port: int) -> AbstractAsyncContextManager[None]:
        return loopback_issuer(self.issuer(), port)

    def issuer(self) -> LocalIssuer:
        """The issuer whose tokens this stack believes."""
        return LocalIssuer.open(self._folder / "issuer")


def _run(parts: Mapping[str, int], profile: Profile) -> dict[str, int]:
    """Those of the services or workers that this profile runs, with their ports."""
    return {name: port for name, port in parts.items() if profile is not Profile.BAREBONE or name not in NEEDS_VIEWS}


def _kept(environment: Mapping[str, str]) -> dict[str, str]:
    """What the operator set by hand wins over the local defaults, the addresses of servers excepted."""
    prefixes = tuple(
        f"PAYHUB_{component}_"
        for component in ("STP", "TOKEN", "LEDGER", "CHANNEL", "AMS", "WORKER", "EXPORT", "DISBURSEMENT", "OPERATIONS")
    )
    return {name: value for name, value in environment.items() if name.startswith(prefixes)}


@asynccontextmanager
async def loopback_issuer(issuer: LocalIssuer, port: int) -> AsyncIterator[None]:
    """Publish the local issuer's keys on loopback while this context is open."""
    serving = asyncio.create_task(serve(issuer_app(issuer), "127.0.0.1", port))
    try:
        yield
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
