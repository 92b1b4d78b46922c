"""What `payhub export NAME` runs: the streamer in a thread, and health and metrics as every process has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from exporters.elastic import open_client
from exporters.settings import ElasticsearchSettings, ExportSettings, KafkaSettings
from exporters.streamer import Streamer, look_for_less_garbage
from exporters.views import View
from hub.api import build_app
from hub.connector import Service
from hub.errors import Unavailable
from hub.settings import read

_SILENCE: Final = 30.0
"""Seconds without asking Kafka after which the exporter counts as stuck."""


@asynccontextmanager
async def exporter(view: View) -> AsyncIterator[Service]:
    """The exporter of a view, streaming for as long as this is open."""
    client = open_client(read(ElasticsearchSettings).url)
    streamer = Streamer(view, read(KafkaSettings).bootstrap_servers, client, read(ExportSettings))

    look_for_less_garbage()

    async def run() -> None:
        running = asyncio.create_task(asyncio.to_thread(streamer.run))
        try:
            await asyncio.shield(running)
        finally:
            streamer.patience.stop.set()
            await asyncio.wait({running})

    async def elasticsearch() -> None:
        if streamer.patience.waiting:
            raise Unavailable("elasticsearch: away or too busy")

    async def kafka() -> None:
        session = streamer.session
        if session is None or (session.polled and time.monotonic() - session.polled > _SILENCE):
            raise Unavailable("kafka: not consuming")

    app = build_app(f"{view.name} exporter", probes={"elasticsearch": elasticsearch, "kafka": kafka})
    try:
        yield Service(app, loops=(run,))
    finally:
        streamer.patience.stop.set()
        client.close()
