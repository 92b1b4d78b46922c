"""A whole hub for tests and benchmarks: its processes on given servers, started, killed and started again at will.

async with TrialHub.open(folder, zeebe_address, database_url) as hub:
    await hub.start_all()
    hub.fail_at("work-ams", "ams.hold.after-call:20")
    payment = await hub.pay(...)
    await hub.until_final([payment])
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
from pydantic import SecretStr

from hub.local import LocalHub, deploy, migrate_all
from hub.seed import seed
from hub.settings import EngineSettings
from hub.stack.plan import HubProcess
from hub.stack.ports import choose_free
from hub.stack.state import Profile, new_state

_FINAL = frozenset({"COMMITTED", "ABORTED", "RETURNED"})


@dataclass
class _Kept:
    """One process that is started again whenever it dies."""

    process: HubProcess
    environment: dict[str, str]
    running: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None
    deaths: int = 0


class Disagreement(Exception):
    """Ledger, scheme book and engine do not say the same of a payment."""


@dataclass
class TrialHub:
    """The hub's processes and a client of its channel. Only tests and benchmarks start it."""

    folder: Path
    urls: Mapping[str, str]
    environment: dict[str, str]
    processes: Mapping[str, HubProcess]
    issuer_folder: Path
    http: httpx.AsyncClient
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, zeebe_address: str, database_url: str, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[TrialHub]:
        """Tables, drawings and example accounts in place; no process runs yet."""
        local = LocalHub(folder)
        names = local.ports(Profile.BAREBONE)
        servers = {"zeebe": SecretStr(zeebe_address), "postgres": SecretStr(database_url)}
        state = new_state(Profile.BAREBONE, choose_free(dict.fromkeys(names, 0))).model_copy(
            update={"existing": servers}
        )
        local.issuer()
        plan = local.plan(state)
        environment = {
            **os.environ,
            **state.variables(),
            **plan.environment,
            "PAYHUB_TOKEN_JWKS_FILE": str(folder / "issuer" / "jwks.json"),
            **(settings or {}),
        }
        environment.pop("PAYHUB_TOKEN_JWKS_URL", None)
        await asyncio.to_thread(migrate_all, database_url, database_url)
        await deploy(EngineSettings(address=zeebe_address))
        await seed(Path("examples/seed.json"), database_url, database_url)
        async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=50)) as http:
            hub = cls(
                folder=folder,
                urls=plan.base_urls,
                environment=environment,
                processes={process.name: process for process in plan.processes},
                issuer_folder=folder / "issuer",
                http=http,
            )
            try:
                yield hub
                await hub.prove()
            finally:
                await hub.stop_all()

    async def prove(self) -> None:
        """Compare ledger, scheme book and engine for every payment so far. Raises `Disagreement`."""
        from hub.statements import open_statements  # noqa: PLC0415
        from operations_app.truth import Truth  # noqa: PLC0415 -- only who proves carries it

        is_ours = self.environment.get("PAYHUB_AMS_BACKEND", "ledger") == "ledger"
        async with (
            open_statements(self.environment["PAYHUB_DATABASE_URL"], 1) as database,
            open_statements(self.environment["PAYHUB_LEDGER_DATABASE_URL"], 1) as ledger,
        ):
            truth = Truth(database, ledger if is_ours else None, None)
            report = await truth.check(datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1))
        if not report.agree:
            raise Disagreement(str(report))

    async def start_all(self, fail_at: Mapping[str, Sequence[str]] | None = None) -> None:
        """Start every process and wait until each is ready. `fail_at`: process name → failpoints, one per life."""
        for name in self.processes:
            self.start(name, (fail_at or {}).get(name, ()))
        await asyncio.gather(*(self.ready(name) for name in self.processes))

    def start(self, name: str, fail_at: Sequence[str] = ()) -> None:
        """Start a process and keep it: when it dies it is started again, with the next failpoint or without one."""
        kept = self._kept[name] = _Kept(self.processes[name], dict(self.environment))
        kept.keeper = asyncio.create_task(self._keep(kept, fail_at))

    async def _keep(self, kept: _Kept, fail_at: Sequence[str]) -> None:
        deadly = iter(fail_at)
        log = (self.folder / f"{kept.process.name}.log").open("ab")
        with log:
            while True:
                environment = kept.environment | {"PAYHUB_FAILPOINT": next(deadly, "")}
                kept.running = await asyncio.create_subprocess_exec(
                    *kept.process.arguments, env=environment, stderr=log, stdout=log
                )
                try:
                    await kept.running.wait()
                except asyncio.CancelledError:
                    with suppress(ProcessLookupError):
                        kept.running.terminate()
                    await kept.running.wait()
                    raise
                kept.deaths += 1
                await asyncio.sleep(0.2)

    async def stop(self, name: str) -> None:
        """Ask a process to leave, and wait until it has."""
        kept = self._kept.pop(name, None)
        if kept is not None and kept.keeper is not None:
            kept.keeper.cancel()
            with suppress(asyncio.CancelledError):
                await kept.keeper

    async def stop_all(self) -> None:
        await asyncio.gather(*(self.stop(name) for name in list(self._kept)))

    def kill(self, name: str) -> None:
        """SIGKILL a process; it is started again."""
        running = self._kept[name].running
        if running is not None and running.returncode is None:
            running.kill()

    def deaths(self, name: str) -> int:
        """How often a process died and was started again."""
        return self._kept[name].deaths

    def cpu_seconds(self) -> float:
        """Processor time that the running processes have used, the pretend STP's included."""
        running = (kept.running for kept in self._kept.values())
        used = (psutil.Process(process.pid).cpu_times() for process in running if process is not None)
        return sum(times.user + times.system for times in used)

    async def ready(self, name: str, within: float = 120) -> None:
        """Wait until a process answers that it is ready. Raises `TimeoutError`."""
        url, end = f"http://127.0.0.1:{self.processes[name].port}/health/ready", time.monotonic() + within
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if (await self.http.get(url)).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{name} did not become ready; see {self.folder / name}.log")

    # --- The channel's side

    def headers(self, tenant: str = "acme", role: str = "channel", **more: str) -> dict[str, str]:
        """Headers of a caller of this tenant."""
        key = f"{tenant}/{role}"
        if key not in self._tokens:
            from hub.tokens import LocalIssuer  # noqa: PLC0415 -- keeps the signing key out of every other import

            self._tokens[key] = LocalIssuer.open(self.issuer_folder).mint(role, tenant)
        return {"Authorization": f"Bearer {self._tokens[key]}", "Platform-TenantId": tenant, **more}

    async def ask(self, body: Mapping[str, Any], correlation_id: str | None = None, **headers: str) -> httpx.Response:
        """One POST of a transfer, whatever comes of it."""
        sent = self.headers(**{"X-CorrelationID": correlation_id or uuid.uuid4().hex}, **headers)
        return await self.http.post(f"{self.urls['channel']}/channel/transfer", json=body, headers=sent)

    async def pay(
        self, body: Mapping[str, Any], correlation_id: str | None = None, within: float = 60, **headers: str
    ) -> str:
        """Send a transfer as a patient client does: the same key again until it is answered 202. Returns its id."""
        key, end = correlation_id or uuid.uuid4().hex, time.monotonic() + within
        while True:
            answer: httpx.Response | None = None
            with suppress(httpx.HTTPError):
                answer = await self.ask(body, key, **headers)
                if answer.status_code == httpx.codes.ACCEPTED:
                    return str(answer.json()["transactionId"])
            if time.monotonic() > end:
                raise TimeoutError(f"not accepted: {answer.status_code if answer is not None else 'no answer'}")
            await asyncio.sleep(0.2)

    async def state(self, payment_id: str, tenant: str = "acme") -> dict[str, Any]:
        """What the channel is told of a payment. Raises `httpx.HTTPError`."""
        answer = await self.http.get(
            f"{self.urls['channel']}/channel/transfer/{payment_id}", headers=self.headers(tenant)
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, payment_id: str, *states: str, within: float = 60) -> dict[str, Any]:
        """Wait until a payment is in one of these states. Raises `TimeoutError` that tells where it is."""
        end, last = time.monotonic() + within, {}
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                last = await self.state(payment_id)
                if last["transferState"] in states:
                    return last
            await asyncio.sleep(0.1)
        raise TimeoutError(f"payment {payment_id} is {last.get('transferState')}, not {' or '.join(states)}")

    async def until_final(self, payment_ids: Iterable[str], within: float = 120) -> dict[str, dict[str, Any]]:
        """Wait until every payment has its final state."""
        ids = list(payment_ids)
        ended = await asyncio.gather(*(self.until(one, *_FINAL, within=within) for one in ids))
        return dict(zip(ids, ended, strict=True))

    async def simulated_orders(self) -> list[dict[str, Any]]:
        """The pretend STP's book."""
        answer = await self.http.get(f"{self.urls['stp_simulator']}/control/orders")
        answer.raise_for_status()
        found = answer.json()
        return list(found["orders"] if isinstance(found, dict) else found)

    async def simulate(self, match: Mapping[str, str], do: str | Mapping[str, Any], uses: int | None = None) -> None:
        """Tell the pretend STP what happens to the orders that match."""
        rule = {"match": dict(match), "do": do} | ({"uses": uses} if uses else {})
        (await self.http.post(f"{self.urls['stp_simulator']}/control/rules", json=rule)).raise_for_status()


def transfer(
    amount: str,
    *,
    payee: str = "525511110002",
    payer: str = "525511110001",
    payee_type: str = "MSISDN",
    note: str = "Test",
    name: str = "Luis Vega",
) -> dict[str, Any]:
    """The body of a transfer in the channel's words; from Ana to Bruno when nothing else is said."""
    return {
        "payer": {"partyIdInfo": {"partyIdType": "MSISDN", "partyIdentifier": payer}},
        "payee": {"partyIdInfo": {"partyIdType": payee_type, "partyIdentifier": payee}, "name": name},
        "amount": {"amount": amount, "currency": "MXN"},
        "note": note,
    }


BBVA = "012180001183597198"
"""A CLABE at another bank: payments to it go over STP."""
