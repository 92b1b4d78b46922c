"""The pretend STP's book: orders, what will happen to them, and every request and callback, in one SQLite file.

A restart changes nothing: keys stay taken, and callbacks that were not answered are posted again. What goes out stands
in `orders`, what comes in in `incoming`.
"""
# ruff: noqa: S608 (only our own constants are put together; values are bound)

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY,
    empresa TEXT NOT NULL,
    clave TEXT NOT NULL,
    fecha_operacion INTEGER NOT NULL,
    centavos INTEGER NOT NULL,
    fields TEXT NOT NULL,
    estado TEXT NOT NULL DEFAULT 'L',
    causa TEXT,
    captured_at REAL NOT NULL,
    settled_at REAL,
    visible_from REAL NOT NULL,
    UNIQUE (empresa, clave, fecha_operacion)
) STRICT;
CREATE TABLE IF NOT EXISTS steps (
    id INTEGER PRIMARY KEY,
    order_id INTEGER NOT NULL REFERENCES orders,
    due REAL NOT NULL,
    step TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS steps_open ON steps (due) WHERE done = 0;
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY,
    clave TEXT NOT NULL,
    at REAL NOT NULL,
    came_to TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS attempts_by_clave ON attempts (clave);
CREATE TABLE IF NOT EXISTS callbacks (
    id INTEGER PRIMARY KEY,
    order_id INTEGER NOT NULL,
    at REAL NOT NULL,
    body TEXT NOT NULL,
    status INTEGER,
    answer TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS incoming (
    id INTEGER PRIMARY KEY,
    empresa TEXT NOT NULL,
    clave TEXT NOT NULL,
    fecha_operacion INTEGER NOT NULL,
    centavos INTEGER NOT NULL,
    fields TEXT NOT NULL,
    estado TEXT NOT NULL DEFAULT 'R',
    causa TEXT,
    captured_at REAL NOT NULL,
    settled_at REAL,
    visible_from REAL NOT NULL,
    post TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS deposit_posts (
    id INTEGER PRIMARY KEY,
    deposit_id INTEGER NOT NULL REFERENCES incoming,
    at REAL NOT NULL,
    body TEXT NOT NULL,
    status INTEGER,
    answer TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS accounts (
    empresa TEXT NOT NULL,
    cuenta TEXT NOT NULL,
    kind TEXT NOT NULL,
    fields TEXT NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (empresa, cuenta)
) STRICT;
CREATE INDEX IF NOT EXISTS orders_of_day ON orders (empresa, fecha_operacion, id);
CREATE INDEX IF NOT EXISTS incoming_of_day ON incoming (empresa, fecha_operacion, id);
"""

_COLUMNS: Final = (
    "id, empresa, clave, fecha_operacion, centavos, fields, estado, causa, captured_at, settled_at, visible_from"
)
MONEY_IS_HERE: Final = ("CN", "CL", "CA", "CR", "RL", "RA", "RB", "TCL", "EL", "D", "TD", "RE")
"""States of an order of ours in which its money is on the company's account: it never left, or came back."""


@dataclass(frozen=True, slots=True)
class BookedOrder:
    """An order in the book."""

    id: int
    empresa: str
    clave: str
    fecha_operacion: int
    centavos: int
    fields: Mapping[str, Any]
    estado: str
    causa: int | str | None
    captured_at: float
    settled_at: float | None
    visible_from: float


@dataclass(frozen=True, slots=True)
class Due:
    """Something that will happen to an order."""

    id: int
    order_id: int
    due: float
    step: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Deposit:
    """Money that came in, and how it is told: the body that is posted, and how often it was."""

    order: BookedOrder
    post: Mapping[str, Any]
    attempts: int


class Book:
    """One writer, one file, a commit per change."""

    def __init__(self, path: Path | str) -> None:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._sql = sqlite3.connect(path, isolation_level=None, cached_statements=64)
        self._sql.row_factory = sqlite3.Row
        # The book outlives a killed process, as the simulator promises; a power cut may lose its last moment.
        self._sql.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")
        self._sql.executescript(_SCHEMA)

    def close(self) -> None:
        self._sql.close()

    @contextmanager
    def _commit(self) -> Iterator[sqlite3.Connection]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield self._sql
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

    def is_taken(self, empresa: str, clave: str, fecha_operacion: int) -> bool:
        found = self._sql.execute(
            "SELECT 1 FROM orders WHERE empresa = ? AND clave = ? AND fecha_operacion = ?",
            (empresa, clave, fecha_operacion),
        )
        return found.fetchone() is not None

    def add(
        self,
        *,
        fields: Mapping[str, Any],
        fecha_operacion: int,
        centavos: int,
        at: float,
        visible_from: float,
        steps: list[tuple[float, str]],
        came_to: str,
    ) -> tuple[int, list[Due]]:
        """Take an order in, with what will happen to it."""
        with self._commit() as sql:
            taken = sql.execute("SELECT coalesce(max(id), ?) + 1 FROM orders", (_first_id(),)).fetchone()[0]
            sql.execute(
                "INSERT INTO orders (id, empresa, clave, fecha_operacion, centavos, fields, captured_at, visible_from)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (taken, fields["empresa"], fields["claveRastreo"], fecha_operacion, centavos,
                 json.dumps(fields, default=str), at, visible_from),
            )  # fmt: skip
            sql.execute(
                "INSERT INTO attempts (clave, at, came_to) VALUES (?, ?, ?)", (fields["claveRastreo"], at, came_to)
            )
            return taken, [self._step(sql, taken, due, step) for due, step in steps]

    def _step(self, sql: sqlite3.Connection, order_id: int, due: float, step: str) -> Due:
        added = sql.execute("INSERT INTO steps (order_id, due, step) VALUES (?, ?, ?)", (order_id, due, step))
        return Due(added.lastrowid or 0, order_id, due, step, 0)

    def add_step(self, order_id: int, due: float, step: str) -> Due:
        with self._commit() as sql:
            return self._step(sql, order_id, due, step)

    def add_attempt(self, clave: str, at: float, came_to: str) -> None:
        """Remember a request that took no order in."""
        with self._commit() as sql:
            sql.execute("INSERT INTO attempts (clave, at, came_to) VALUES (?, ?, ?)", (clave, at, came_to))

    def attempts(self, clave: str | None = None) -> list[dict[str, Any]]:
        query = "SELECT clave, at, came_to FROM attempts WHERE ?1 IS NULL OR clave = ?1 ORDER BY id"
        return [dict(row) for row in self._sql.execute(query, (clave,))]

    def attempts_of(self, clave: str) -> int:
        count: int = self._sql.execute("SELECT count(*) FROM attempts WHERE clave = ?", (clave,)).fetchone()[0]
        return count

    def order(self, order_id: int) -> BookedOrder | None:
        row = self._sql.execute(f"SELECT {_COLUMNS} FROM orders WHERE id = ?", (order_id,)).fetchone()
        return None if row is None else _booked(row)

    def orders(self, clave: str | None = None) -> list[BookedOrder]:
        query = f"SELECT {_COLUMNS} FROM orders WHERE ?1 IS NULL OR clave = ?1 ORDER BY id"
        return [_booked(row) for row in self._sql.execute(query, (clave,))]

    def found(
        self, empresa: str, clave: str, *, since: int, until: int, at: float, incoming: bool = False
    ) -> BookedOrder | None:
        """The order with this key whose operation date lies in the range, once it can be seen."""
        row = self._sql.execute(
            f"SELECT {_COLUMNS} FROM {_table(incoming=incoming)}"
            " WHERE empresa = ? AND clave = ? AND fecha_operacion BETWEEN ? AND ? AND visible_from <= ?"
            " ORDER BY id DESC LIMIT 1",
            (empresa, clave, since, until, at),
        ).fetchone()
        return None if row is None else _booked(row)

    def move(self, order_id: int, estado: str, causa: int | str | None, settled_at: float | None) -> None:
        with self._commit() as sql:
            sql.execute(
                "UPDATE orders SET estado = ?, causa = ?, settled_at = coalesce(?, settled_at) WHERE id = ?",
                (estado, None if causa is None else json.dumps(causa), settled_at, order_id),
            )

    def posted(self, due: Due, at: float, body: str, status: int | None, answer: str, *, done: bool) -> None:
        """Remember a callback and what it was answered."""
        with self._commit() as sql:
            sql.execute(
                "INSERT INTO callbacks (order_id, at, body, status, answer) VALUES (?, ?, ?, ?, ?)",
                (due.order_id, at, body, status, answer[:200]),
            )
            sql.execute("UPDATE steps SET attempts = ?, done = ? WHERE id = ?", (due.attempts, done, due.id))

    def done(self, due: Due) -> None:
        with self._commit() as sql:
            sql.execute("UPDATE steps SET attempts = ?, done = 1 WHERE id = ?", (due.attempts, due.id))

    def callbacks(self, order_id: int | None = None) -> list[dict[str, Any]]:
        query = "SELECT * FROM callbacks WHERE ?1 IS NULL OR order_id = ?1 ORDER BY id"
        return [dict(row) for row in self._sql.execute(query, (order_id,))]

    def page(
        self, empresa: str, day: int, *, at: float, incoming: bool, number: int, size: int
    ) -> tuple[list[BookedOrder], int]:
        """One page of a company's orders of an operation date, and how many there are in all."""
        table, given = _table(incoming=incoming), (empresa, day, at)
        of_day = f"FROM {table} WHERE empresa = ? AND fecha_operacion = ? AND visible_from <= ?"
        rows = self._sql.execute(
            f"SELECT {_COLUMNS} {of_day} ORDER BY id LIMIT ? OFFSET ?", (*given, size, number * size)
        )
        total: int = self._sql.execute(f"SELECT count(*) {of_day}", given).fetchone()[0]
        return [_booked(row) for row in rows], total

    def sums(self, empresa: str, day: int | None, *, incoming: bool) -> tuple[int, int]:
        """How many orders a company has whose money moved or may move, on one date or ever, and their centavos."""
        marks = ", ".join("?" * len(MONEY_IS_HERE))
        row = self._sql.execute(
            f"SELECT count(*), coalesce(sum(centavos), 0) FROM {_table(incoming=incoming)} WHERE empresa = ?1"
            f" AND (?2 IS NULL OR fecha_operacion = ?2) AND estado NOT IN ({marks})"
            + (" AND estado = 'CCO'" if incoming else ""),
            (empresa, day, *MONEY_IS_HERE),
        ).fetchone()
        return int(row[0]), int(row[1])

    def pending(self, empresa: str) -> int:
        """Centavos of a company's orders that have no final state."""
        marks = ", ".join("?" * len(MONEY_IS_HERE))
        found: int = self._sql.execute(
            "SELECT coalesce(sum(centavos), 0) FROM orders"
            f" WHERE empresa = ? AND estado <> 'LQ' AND estado NOT IN ({marks})",
            (empresa, *MONEY_IS_HERE),
        ).fetchone()[0]
        return found

    # --- Money that comes in

    def add_incoming(
        self,
        *,
        fields: Mapping[str, Any],
        fecha_operacion: int,
        centavos: int,
        at: float,
        post: Mapping[str, Any],
        done: bool = False,
    ) -> int:
        """Take money in for a company. `done`: it is not told."""
        with self._commit() as sql:
            # Ids of what comes in and of what goes out are two series that overlap, as they may at STP.
            lowest = sql.execute("SELECT coalesce(min(id), ?) - 1 FROM orders", (_first_id(),)).fetchone()[0]
            taken: int = sql.execute("SELECT coalesce(max(id), ?) + 1 FROM incoming", (lowest,)).fetchone()[0]
            sql.execute(
                "INSERT INTO incoming (id, empresa, clave, fecha_operacion, centavos, fields, captured_at,"
                " visible_from, post, done) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (taken, fields["empresa"], fields["claveRastreo"], fecha_operacion, centavos,
                 json.dumps(fields, default=str), at, at, json.dumps(post), done),
            )  # fmt: skip
            return taken

    def incoming(self, deposit_id: int) -> Deposit | None:
        query = f"SELECT {_COLUMNS}, post, attempts FROM incoming WHERE id = ?"
        row = self._sql.execute(query, (deposit_id,)).fetchone()
        return None if row is None else _deposit(row)

    def deposits(self, clave: str | None = None) -> list[Deposit]:
        query = f"SELECT {_COLUMNS}, post, attempts FROM incoming WHERE ?1 IS NULL OR clave = ?1 ORDER BY id"
        return [_deposit(row) for row in self._sql.execute(query, (clave,))]

    def open_deposits(self) -> list[int]:
        """Those that were not yet told to the end."""
        return [row["id"] for row in self._sql.execute("SELECT id FROM incoming WHERE done = 0 ORDER BY id")]

    def told(self, deposit_id: int, at: float, body: str, status: int | None, answer: str) -> None:
        """Remember one post of a deposit and what it was answered."""
        with self._commit() as sql:
            sql.execute(
                "INSERT INTO deposit_posts (deposit_id, at, body, status, answer) VALUES (?, ?, ?, ?, ?)",
                (deposit_id, at, body, status, answer[:200]),
            )
            sql.execute("UPDATE incoming SET attempts = attempts + 1 WHERE id = ?", (deposit_id,))

    def close_incoming(self, deposit_id: int, estado: str, causa: int | str | None, at: float | None) -> None:
        """The deposit's end: credited, or sent back with a cause."""
        with self._commit() as sql:
            sql.execute(
                "UPDATE incoming SET estado = ?, causa = ?, settled_at = coalesce(?, settled_at), done = 1"
                " WHERE id = ?",
                (estado, None if causa is None else json.dumps(causa), at, deposit_id),
            )

    def deposit_posts(self, deposit_id: int | None = None) -> list[dict[str, Any]]:
        query = "SELECT * FROM deposit_posts WHERE ?1 IS NULL OR deposit_id = ?1 ORDER BY id"
        return [dict(row) for row in self._sql.execute(query, (deposit_id,))]

    # --- Accounts

    def add_account(self, empresa: str, cuenta: str, kind: str, fields: Mapping[str, Any]) -> bool:
        """Register an account. False when it is there already."""
        with self._commit() as sql:
            there = sql.execute(
                "SELECT removed FROM accounts WHERE empresa = ? AND cuenta = ?", (empresa, cuenta)
            ).fetchone()
            if there is not None and not there["removed"]:
                return False
            sql.execute(
                "INSERT OR REPLACE INTO accounts (empresa, cuenta, kind, fields) VALUES (?, ?, ?, ?)",
                (empresa, cuenta, kind, json.dumps(fields, default=str)),
            )
            return True

    def remove_account(self, empresa: str, cuenta: str, kind: str) -> bool:
        """Remove an account. False when there is none."""
        with self._commit() as sql:
            done = sql.execute(
                "UPDATE accounts SET removed = 1 WHERE empresa = ? AND cuenta = ? AND kind = ? AND removed = 0",
                (empresa, cuenta, kind),
            )
            return done.rowcount > 0

    def accounts(self, empresa: str) -> list[dict[str, Any]]:
        query = "SELECT cuenta, kind, fields FROM accounts WHERE empresa = ? AND removed = 0 ORDER BY cuenta"
        return [dict(row) | {"fields": json.loads(row["fields"])} for row in self._sql.execute(query, (empresa,))]

    def open_steps(self) -> list[Due]:
        query = "SELECT id, order_id, due, step, attempts FROM steps WHERE done = 0 ORDER BY due, id"
        return [Due(**dict(row)) for row in self._sql.execute(query)]


def _first_id() -> int:
    """Where a new book begins to count. Two books never share ids, since whoever listens may have known the other."""
    return 1_000_000_000 + time.time_ns() // 1_000_000 % 1_000_000_000


def _table(*, incoming: bool) -> str:
    return "incoming" if incoming else "orders"


def _deposit(row: sqlite3.Row) -> Deposit:
    known = dict(row)
    post, attempts = json.loads(known.pop("post")), known.pop("attempts")
    return Deposit(_booked(known), post, attempts)


def _booked(row: sqlite3.Row | dict[str, Any]) -> BookedOrder:
    known = dict(row)
    known["fields"] = json.loads(known["fields"])
    known["causa"] = None if known["causa"] is None else json.loads(known["causa"])
    return BookedOrder(**known)
