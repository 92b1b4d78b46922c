"""How many jobs run at once: places handed out first come first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """`size` places. After `close` nobody gets one any more, and those who wait are told so."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._closed = False

    @property
    def running(self) -> int:
        return self.size - self.free

    async def take(self) -> bool:
        """Wait for a place. False: closed, there will be none."""
        if self._closed:
            return False
        if self.free and not self._waiting:
            self.free -= 1
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.give()
            raise

    def give(self) -> None:
        """Hand a place back; the longest waiting gets it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                return
        self.free += 1

    async def opening(self) -> bool:
        """Wait until a place is free without keeping it. False: closed."""
        if not await self.take():
            return False
        self.give()
        return True

    def close(self) -> None:
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(False)
