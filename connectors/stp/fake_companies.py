"""The companies that a pretend STP serves: each with its key, its accounts, its money and where it is told things."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter

from connectors.stp.settings import StpSimulatorSettings
from connectors.stp.signature import Checker

_ORDER_STATUS: Final = "order-status"
_DEPOSITS: Final = "deposits"


class Poster:
    """Posts JSON over connections that are kept open. A tenth of the work of a full client: it shares the machine's two
    cores with everything that is measured against it."""

    def __init__(self, url: str, secret: str, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._tls = parts.hostname or "", parts.port, parts.scheme == "https"
        self._head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"X-STP-Secret: {secret}\r\nContent-Length: "
        )
        self._timeout = timeout
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._turns = asyncio.Semaphore(16)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def post(self, body: str) -> tuple[int | None, str]:
        """The status and the answer, or no status and why."""
        raw = body.encode()
        request = f"{self._head}{len(raw)}\r\n\r\n".encode() + raw
        try:
            async with self._turns, asyncio.timeout(self._timeout):
                while self._idle:
                    reader, writer = self._idle.pop()
                    with contextlib.suppress(OSError, EOFError):
                        return await self._exchange(reader, writer, request)
                    writer.close()
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
                return await self._exchange(reader, writer, request)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            return None, type(error).__name__

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, str]:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: *([0-9]+)", head)
        body = await reader.readexactly(int(length.group(1))) if length else b""
        if length is None or "connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(" ", 2)[1]), body.decode(errors="replace")


@dataclass
class Company:
    """One customer of the pretend STP."""

    empresa: str
    checker: Checker
    accounts: set[str]
    """CLABEs from which it may pay: its own and those it registered for its customers."""
    dialect: str
    opening_balance: int
    status: Poster
    deposits: Poster
    balance: int = 0
    """Centavos, orders that are under way taken off."""
    consults: list[float] = field(default_factory=list)
    """When it asked within the last hour."""

    def signed(self, joined: str, firma: object) -> bool:
        return isinstance(firma, str) and self.checker.matches(joined, firma)

    def close(self) -> None:
        self.status.close()
        self.deposits.close()


class _Written(BaseModel):
    """A company as the companies file has it."""

    model_config = ConfigDict(extra="forbid")

    empresa: str
    public_key_file: Path
    accounts: list[str]
    callback_url: str
    callback_secret: SecretStr
    deposit_url: str | None = None
    dialect: Literal["A", "B", "C"] = "C"
    opening_balance: int | None = None


def companies(settings: StpSimulatorSettings) -> dict[str, Company]:
    """Every company of the settings, by its alias; the first is the one that the settings themselves name."""
    return {written.empresa: _company(written, settings) for written in _written(settings)}


def _written(settings: StpSimulatorSettings) -> Iterator[_Written]:
    yield _Written(
        empresa=settings.company,
        public_key_file=settings.public_key_file,
        accounts=[settings.payer_account],
        callback_url=settings.callback_url,
        callback_secret=settings.callback_secret,
        deposit_url=settings.deposit_url,
        dialect=TypeAdapter(Literal["A", "B", "C"]).validate_python(settings.dialect),
    )
    if settings.companies_file is not None:
        yield from TypeAdapter(list[_Written]).validate_json(settings.companies_file.read_bytes())


def _company(written: _Written, settings: StpSimulatorSettings) -> Company:
    secret = written.callback_secret.get_secret_value()
    deposit_url = written.deposit_url or written.callback_url.replace(_ORDER_STATUS, _DEPOSITS)
    opening = settings.opening_balance if written.opening_balance is None else written.opening_balance
    return Company(
        empresa=written.empresa,
        checker=Checker.from_pem(written.public_key_file.read_bytes()),
        accounts=set(written.accounts),
        dialect=written.dialect,
        opening_balance=opening,
        status=Poster(written.callback_url, secret),
        deposits=Poster(deposit_url, secret),
    )
