"""The connection to the gateway, and the generated stub on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

from pyzeebe import create_insecure_channel
from pyzeebe.proto.gateway_pb2_grpc import GatewayStub

from hub.settings import EngineSettings

if TYPE_CHECKING:
    from pyzeebe.proto.gateway_pb2_grpc import GatewayAsyncStub as Gateway

_OPTIONS: Final = (
    # The gateway answers pings more frequent than every 30 s by closing the connection.
    ("grpc.keepalive_time_ms", 45_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own default waits up to two minutes before it looks for a restarted broker again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Jobs pushed on a stream that we do not read must wait in the engine, not in our buffers, where they grow stale:
    # without this gRPC enlarges its buffer of 64 kB as it sees fit.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


@asynccontextmanager
async def open_gateway(settings: EngineSettings) -> AsyncIterator[Gateway]:
    """The gateway's commands. Opening never fails: a gateway that is away shows in the first call."""
    channel = create_insecure_channel(settings.address, _OPTIONS)
    try:
        yield cast("Gateway", GatewayStub(channel))
    finally:
        await channel.close()
