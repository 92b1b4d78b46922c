"""One process of the hub: `payhub work NAME` or `payhub serve NAME`, from opening to leaving.

Each process serves /health/live, /health/ready and /metrics, stops on SIGTERM or SIGINT by finishing what runs, and
ends with an error when one of its loops breaks, so that its supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager

import uvloop

from hub.api import build_app, serve
from hub.connector import Connector, OpenService, Service
from hub.jobs import handlers_of
from hub.settings import EngineSettings, read
from hub.telemetry import configure_logging, logger

# The engine's client is 22 MB of memory, and exporters do not talk to the engine.
# ruff: noqa: PLC0415

log = logger(__name__)


def stop_signal() -> asyncio.Event:
    """An event that is set when somebody asks this process to leave."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _until(stop: asyncio.Event, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop and cancel it when `stop` is set. Raises when the loop ends earlier."""
    running = asyncio.ensure_future(loop())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            running.result()
            raise RuntimeError("a loop that should run until the end has ended")
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def work(connector: Connector, host: str, port: int) -> None:
    """Do the jobs of one connector until told to stop; health and metrics on `host:port`."""
    from hub.zeebe.client import open_engine
    from hub.zeebe.worker import Worker, WorkerSettings

    stop = stop_signal()
    async with open_engine(read(EngineSettings)) as engine, connector.open_work(engine) as parts:
        worker = Worker(engine, handlers_of(parts.workers), name=connector.name, settings=read(WorkerSettings))
        app = build_app(f"{connector.name} worker", probes={"engine": engine.ping, **parts.probes})
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            group.create_task(_until(stop, lambda: serve(app, host, port)))
            for loop in parts.loops:
                group.create_task(_until(stop, loop))
    log.info("worker stopped", connector=connector.name)


async def provide(name: str, open_service: OpenService, host: str, port: int) -> None:
    """Serve one HTTP service until told to stop."""
    from hub.zeebe.client import open_engine

    async with open_engine(read(EngineSettings)) as engine:
        await provide_alone(name, open_service(engine), host, port)


async def provide_alone(name: str, opening: AbstractAsyncContextManager[Service], host: str, port: int) -> None:
    """The same for a service that has nothing to tell the engine."""
    stop = stop_signal()
    async with opening as service, asyncio.TaskGroup() as group:
        group.create_task(_until(stop, lambda: serve(service.app, host, port)))
        for loop in service.loops:
            group.create_task(_until(stop, loop))
    log.info("service stopped", service=name)


def run(component: str, main: Coroutine[None, None, None], *, as_json: bool = False) -> None:
    """Run a process's main coroutine with logging configured. Lets `SettingsError` and the loops' errors through."""
    configure_logging(component, as_json=as_json)
    uvloop.run(main)
