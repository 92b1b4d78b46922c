"""HTTP/1.1 to one host over connections that are kept open, which always says whether anything can have left.

    line = Line("https://prod.stpmex.com", size=64)
    status, body = await line.exchange("PUT", "/path", b"{}", connect_within=5, answer_within=30)

What the money hangs on is one question: can STP have the request? A general client answers it by guessing from kinds of
errors. Here the request is written by one call, so what fails before that call is `NotSent` and everything after it is
`NoReply`; nothing is ever sent twice, no redirect is followed and no proxy is used. It also takes a tenth of the
processor time of a general client (docs/decisions/stp-own-http-line.md).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

IDLE_AT_MOST: Final = 3.0
"""Seconds after which a connection is not used again: a request sent into a dying one gets no answer."""

BIGGEST_ANSWER: Final = 8_000_000
"""Bytes; what is larger is no answer of STP's. A thousand orders of a reconciliation page are about a million."""


class NotSent(Exception):
    """Certainly nothing left: no free connection, no connection at all, or no TLS."""


class NoReply(Exception):
    """The request may have arrived, and no whole answer came."""


class Line:
    """One host. Make it inside a running event loop and `close` it."""

    def __init__(
        self, base_url: str, *, size: int = 64, tls: ssl.SSLContext | None = None, biggest: int = BIGGEST_ANSWER
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the URL must begin with https:// or http:// and name a host")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/")
        self._shared = (
            f" HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nAccept: application/json\r\n"
            "Accept-Encoding: identity\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: "
        )
        self._biggest = biggest
        self._room = asyncio.Semaphore(size)
        self._idle: list[_Connection] = []
        self._closed = False

    async def exchange(
        self, method: str, path: str, body: bytes, *, connect_within: float, answer_within: float
    ) -> tuple[int, bytes]:
        """The status and the body of the answer. Raises `NotSent` and `NoReply`; both limits are seconds in all."""
        request = f"{method} {self._prefix}{path}{self._shared}{len(body)}\r\n\r\n".encode() + body
        connection = await self._connection(connect_within)
        try:
            # From here on the request may have left.
            async with asyncio.timeout(answer_within):
                answer = await connection.exchange(request)
        except TimeoutError:
            raise NoReply("time-out") from None
        finally:
            if connection.reusable and not self._closed:
                self._idle.append(connection)
            else:
                connection.abort()
            self._room.release()
        return answer

    def close(self) -> None:
        """Close what is idle now, and what is in use as soon as it is answered."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    async def _connection(self, within: float) -> _Connection:
        """A connection that is open as far as anybody can tell. Raises `NotSent`."""
        try:
            async with asyncio.timeout(within):
                await self._room.acquire()
                try:
                    return self._kept() or await self._opened()
                except BaseException:
                    self._room.release()
                    raise
        except TimeoutError:
            raise NotSent("time-out") from None
        except (OSError, UnicodeError) as error:  # ssl.SSLError is an OSError; a bad host name is a UnicodeError
            raise NotSent(type(error).__name__) from None

    def _kept(self) -> _Connection | None:
        oldest = asyncio.get_running_loop().time() - IDLE_AT_MOST
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _opened(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self._biggest), self._host, self._port, ssl=self._tls
        )
        return connection


class _Connection(asyncio.Protocol):
    """One connection and the answer that is being read from it."""

    def __init__(self, biggest: int) -> None:
        self._biggest = biggest
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._start()
        self.idle_since = self._loop.time()

    @property
    def reusable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and self._answer is None

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Write the request, once and whole, and wait for the answer. Raises `NoReply`."""
        if self._transport is None or self._answer is not None:
            raise RuntimeError("the connection is closed or in use")
        self._start()
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._answer is None or self._received > self._biggest:
            self._fail("it is too large" if self._answer else "unasked")
            return
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._fail("it is no HTTP")

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None:
            self._end()
        self._fail("the connection broke" if error is None else type(error).__name__)
        self._transport = None

    # What the parser calls.

    def on_header(self, name: bytes, _: bytes) -> None:
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._framed = True

    def on_headers_complete(self) -> None:
        self._headed = True

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        if 100 <= self._parser.get_status_code() < 200:  # "continue" and the like come before the answer
            self._body.clear()
            self._framed = self._headed = False
            return
        self._done(keep=self._framed and self._parser.should_keep_alive())

    def _start(self) -> None:
        self._parser = HttpResponseParser(self)
        self._body: list[bytes] = []
        self._received = 0
        self._framed = self._headed = False

    def _end(self) -> None:
        """The other side has closed: that ends an answer which does not say its length."""
        if self._answer is not None and self._headed and not self._framed:
            self._done(keep=False)

    def _done(self, *, keep: bool) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result((self._parser.get_status_code(), b"".join(self._body)))
        self.idle_since = self._loop.time()
        if answer is None or not keep:
            self.abort()

    def _fail(self, why: str) -> None:
        answer = self._answer
        if answer is not None and not answer.done():
            answer.set_exception(NoReply(why))
        self.abort()
