"""Questions to STP within what it allows in an hour: a budget per company, conciliation pages, balances.

STP answers a limited number of questions an hour, per company and whoever asks. So the budget is one row per company in
the database, shared by every worker: inquiries for payments in doubt may use all of it, the poller and reconciliation
leave some to them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Protocol

from connectors.stp.signature import Signer
from connectors.stp.transport import NoReply, NotSent
from connectors.stp.wire import (
    AccountBalance,
    LimitExceeded,
    NoAnswer,
    Page,
    balance_body,
    balance_joined,
    conciliation_body,
    conciliation_joined,
    read_balance,
    read_page,
)
from hub.errors import Unavailable
from hub.statements import Statements
from hub.telemetry import logger

CONCILIATION_PATH: Final = "/efws/API/V2/conciliacion"
BALANCE_PATH: Final = "/efws/API/consultaSaldoCuenta"
SENT, RECEIVED = "E", "R"

_HOUR: Final = timedelta(hours=1)
_MOST_PAGES: Final = 10_000

# A bucket as one moment (the "generic cell rate algorithm"): each question moves the moment at which the bucket is full
# again one step ahead, and none may move it further ahead than the bucket is deep.
_TAKE: Final = """
    INSERT INTO stp.consult_budget AS b (company, full_again_at)
    VALUES (%(company)s, clock_timestamp() + %(step)s)
    ON CONFLICT (company) DO UPDATE SET full_again_at = greatest(b.full_again_at, clock_timestamp()) + %(step)s
     WHERE greatest(b.full_again_at, clock_timestamp()) + %(step)s <= clock_timestamp() + %(depth)s
    RETURNING 1
    """
_DRAIN: Final = """
    INSERT INTO stp.consult_budget AS b (company, full_again_at) VALUES (%(company)s, clock_timestamp() + %(depth)s)
    ON CONFLICT (company) DO UPDATE SET full_again_at = greatest(b.full_again_at, clock_timestamp() + %(depth)s)
    """
_LEFT: Final = """
    SELECT greatest(full_again_at - clock_timestamp(), interval '0') FROM stp.consult_budget WHERE company = %(company)s
    """

log = logger(__name__)


class ConsultBudget:
    """How many questions each company may still ask. One statement each; raises `Unavailable`."""

    def __init__(self, database: Statements, per_hour: int) -> None:
        self._database = database
        self._per_hour = per_hour
        self._step = _HOUR / per_hour

    async def take(self, company: str, keep: int = 0) -> bool:
        """Whether one more question may be asked now; it then counts. `keep` are left to others."""
        depth = self._step * max(0, self._per_hour - keep)
        rows = await self._database.rows(_TAKE, {"company": company, "step": self._step, "depth": depth})
        return bool(rows)

    async def left(self, company: str) -> int:
        """How many questions may be asked at once."""
        rows = await self._database.rows(_LEFT, {"company": company})
        return self._per_hour if not rows else int((_HOUR - rows[0][0]) / self._step)

    async def drain(self, company: str) -> None:
        """STP says that nothing is left, whatever we counted: somebody else asks under the same company."""
        await self._database.rows(_DRAIN, {"company": company, "depth": _HOUR})

    def share(self, percent: int) -> int:
        """So many percent of the whole."""
        return self._per_hour * percent // 100


class Asked(Protocol):
    """The part of STP that answers questions. Raises `NotSent` and `NoReply`."""

    async def consult(self, operation: str, path: str, body: bytes) -> tuple[int, bytes]: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a question may wait for its turn, and how long to pause between pages."""

    wait_at_most: timedelta = timedelta(seconds=30)
    between_pages: timedelta = timedelta(seconds=3)
    keep_percent: int = 20
    """What is left of the budget to inquiries for payments in doubt."""


class Consults:
    """Conciliation pages and balances."""

    def __init__(
        self,
        stp: Asked,
        budget: ConsultBudget,
        patience: Patience,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._stp = stp
        self._budget = budget
        self._patience = patience
        self._sleep = sleep

    async def pages(
        self, company: str, kind: str, day: date, signer: Signer, first: int = 0
    ) -> AsyncIterator[tuple[int, Page]]:
        """The pages of a date's orders, `SENT` or `RECEIVED`, from page `first` until one is empty.

        The total that STP names is not looked at: on the current date it lags behind. Raises `Unavailable`.
        """
        signature = await signer.sign_aside(conciliation_joined(company, kind, day))
        for number in range(first, first + _MOST_PAGES):
            if number > first:
                await self._sleep(self._patience.between_pages.total_seconds())
            await self._turn(company)
            body = conciliation_body(company, kind, day, number, signature)
            answer = read_page(*await self._asked("conciliation", CONCILIATION_PATH, body))
            page = await self._usable(company, answer)
            yield number, page
            if not page.lines:
                return
        raise Unavailable(f"STP shows more than {_MOST_PAGES} pages")

    async def balance(self, company: str, account: str, signer: Signer, day: date | None = None) -> AccountBalance:
        """What is on an account, now or at the end of a date. Raises `Unavailable`."""
        signature = await signer.sign_aside(balance_joined(company, account, day))
        await self._turn(company)
        answer = read_balance(
            *await self._asked("balance", BALANCE_PATH, balance_body(company, account, day, signature))
        )
        if isinstance(answer, AccountBalance):
            return answer
        raise await self._refused(company, answer)

    async def _turn(self, company: str) -> None:
        """Wait for a question's turn, a bounded time. Raises `Unavailable`."""
        keep, end = self._budget.share(self._patience.keep_percent), self._patience.wait_at_most.total_seconds()
        began = time.monotonic()
        while not await self._budget.take(company, keep):
            if time.monotonic() - began >= end:
                raise Unavailable("this hour's questions to STP are used up")
            await self._sleep(min(1.0, end))

    async def _asked(self, operation: str, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            return await self._stp.consult(operation, path, body)
        except (NotSent, NoReply) as error:
            raise Unavailable(f"no answer from STP: {error}") from error

    async def _usable(self, company: str, answer: Page | LimitExceeded | NoAnswer) -> Page:
        if not isinstance(answer, Page):
            raise await self._refused(company, answer)
        if answer.unreadable:
            log.error("conciliation.unreadable-lines", lines=answer.unreadable)
        return answer

    async def _refused(self, company: str, answer: LimitExceeded | NoAnswer) -> Unavailable:
        if isinstance(answer, LimitExceeded):
            await self._budget.drain(company)
            return Unavailable("STP answers no more questions this hour")
        return Unavailable(f"STP does not answer: {answer.detail}")
