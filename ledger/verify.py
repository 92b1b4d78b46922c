"""The auditor: recompute the book from its postings and name the first row that does not agree.

Every check is one query over one consistent snapshot. It returns the number of rows looked at and, ordered, the first
broken one in words; nothing is assumed to hold because a function or a constraint should have seen to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection

from hub.statements import open_statements
from ledger import chain


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what must hold, how many rows were looked at, how many break it and which one first."""

    check: str
    rows: int
    broken: int
    first: str | None

    @property
    def sound(self) -> bool:
        return self.broken == 0


@dataclass(frozen=True, slots=True)
class Report:
    """What the auditor found."""

    findings: Sequence[Finding]
    head: str | None = None
    """Number and hash of the last block of the chain. Kept outside the database, it proves what was sealed up to it."""

    subject: str = "The book is"

    @property
    def sound(self) -> bool:
        return all(finding.sound for finding in self.findings)

    @property
    def first(self) -> str | None:
        """The first broken row, or nothing."""
        return next((finding.first for finding in self.findings if not finding.sound), None)

    def as_json(self) -> dict[str, Any]:
        findings = [asdict(finding) for finding in self.findings]
        return {"sound": self.sound, "findings": findings, "chain_head": self.head}

    def __str__(self) -> str:
        lines = [
            f"ok      {finding.check} ({finding.rows} rows)"
            if finding.sound
            else f"BROKEN  {finding.check}: {finding.broken} of {finding.rows} rows, first {finding.first}"
            for finding in self.findings
        ]
        if self.head is not None:
            lines.append(f"chain   {self.head}")
        verdict = f"{self.subject} sound." if self.sound else f"{self.subject} NOT sound."
        return "\n".join([*lines, verdict])


# Each query lists every row it looks at as (broken, place, what); place orders them.
_CHECKS: Final[Mapping[str, LiteralString]] = {
    "debits equal credits per book and currency, in balances": """
        SELECT sum(b.debits) <> sum(b.credits) AS broken, k.id AS place,
               format('book %s, %s: debits %s, credits %s', k.code, a.asset, sum(b.debits), sum(b.credits)) AS what
          FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id JOIN ledger.book k ON k.id = a.book_id
         GROUP BY k.id, k.code, a.asset""",
    "every balance is the sum of its postings": """
        SELECT b.debits <> coalesce(s.debits, 0) OR b.credits <> coalesce(s.credits, 0) AS broken,
               b.account_id AS place,
               format('balance of account %s (%s): debits %s, credits %s; postings say %s and %s', b.account_id,
                      a.kind, b.debits, b.credits, coalesce(s.debits, 0), coalesce(s.credits, 0)) AS what
          FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id
          LEFT JOIN (SELECT e.account_id, sum(e.amount) FILTER (WHERE e.side = 'D') AS debits,
                            sum(e.amount) FILTER (WHERE e.side = 'C') AS credits
                       FROM ledger.entry e GROUP BY e.account_id) s USING (account_id)""",
    "every account has its balance, on the same side": """
        SELECT b.account_id IS NULL OR b.side <> a.side OR a.side <> c.side AS broken, a.id AS place,
               format('account %s (%s)', a.id, a.kind) AS what
          FROM ledger.account a JOIN ledger.chart c ON c.book_id = a.book_id AND c.kind = a.kind
          LEFT JOIN ledger.balance b ON b.account_id = a.id""",
    "sequences have no gap and each balance after follows from the one before": """
        SELECT e.seq <> e.number OR e.balance_after <> e.running AS broken,
               e.txn_id AS place,
               format('posting %s/%s, account %s: sequence %s should be %s, balance after %s should be %s', e.txn_id,
                      e.leg, e.account_id, e.seq, e.number, e.balance_after, e.running) AS what
          FROM (SELECT e.*, row_number() OVER w AS number,
                       sum(CASE WHEN e.side = a.side THEN e.amount ELSE -e.amount END) OVER w AS running
                  FROM ledger.entry e JOIN ledger.account a ON a.id = e.account_id
                WINDOW w AS (PARTITION BY e.account_id ORDER BY e.seq)) e""",
    "the last sequence is the balance's": """
        SELECT b.ver <> coalesce(s.last, 0) AS broken, b.account_id AS place,
               format('balance of account %s: sequence %s, postings say %s', b.account_id, b.ver, coalesce(s.last, 0))
                   AS what
          FROM ledger.balance b
          LEFT JOIN (SELECT e.account_id, max(e.seq) AS last FROM ledger.entry e GROUP BY e.account_id) s
         USING (account_id)""",
    "postings stay inside the book of their transaction": """
        SELECT t.id IS NULL OR d.book_id IS DISTINCT FROM t.book_id OR c.book_id IS DISTINCT FROM t.book_id
               OR d.asset IS DISTINCT FROM p.asset OR c.asset IS DISTINCT FROM p.asset AS broken, p.txn_id AS place,
               format('posting %s/%s', p.txn_id, p.leg) AS what
          FROM ledger.posting p
          LEFT JOIN ledger.account d ON d.id = p.dr_account
          LEFT JOIN ledger.account c ON c.id = p.cr_account
          LEFT JOIN ledger.txn t ON t.id = p.txn_id""",
    "transactions that move money have postings, the others have none": """
        SELECT (t.kind IN ('hold', 'void', 'expire', 'renew')) = (p.legs IS NOT NULL) OR p.legs <> p.last AS broken,
               t.id AS place,
               format('transaction %s (%s) has %s postings', t.id, t.kind, coalesce(p.legs, 0)) AS what
          FROM ledger.txn t
          LEFT JOIN (SELECT txn_id, count(*) AS legs, max(leg) AS last FROM ledger.posting GROUP BY txn_id) p
            ON p.txn_id = t.id""",
    "what accounts hold is the sum of their open holds": """
        SELECT b.hold_out <> coalesce(s.held, 0) AS broken, b.account_id AS place,
               format('balance of account %s: held %s, open holds say %s', b.account_id, b.hold_out,
                      coalesce(s.held, 0)) AS what
          FROM ledger.balance b
          LEFT JOIN (SELECT h.from_account AS account_id, sum(h.amount - s.captured - s.released) AS held
                       FROM ledger.hold h JOIN ledger.hold_state s ON s.hold_id = h.id GROUP BY h.from_account) s
         USING (account_id)""",
    "holds: captured plus released never exceeds the amount, and is what its transactions did": """
        SELECT s.hold_id IS NULL OR s.amount <> h.amount OR s.from_account <> h.from_account
               OR s.captured + s.released > h.amount
               OR s.captured <> coalesce(c.captured, 0)
               OR (s.released > 0) <> (f.freed = 1) OR f.freed > 1 OR f.given <> s.released AS broken, h.id AS place,
               format('hold %s: amount %s, captured %s, released %s; postings captured %s, %s releases', h.id, h.amount,
                      s.captured, s.released, coalesce(c.captured, 0), f.freed) AS what
          FROM ledger.hold h LEFT JOIN ledger.hold_state s ON s.hold_id = h.id
          LEFT JOIN (SELECT t.hold_id, sum(p.amount) AS captured
                       FROM ledger.txn t JOIN ledger.posting p ON p.txn_id = t.id
                      WHERE t.kind = 'capture' GROUP BY t.hold_id) c ON c.hold_id = h.id
          LEFT JOIN (SELECT h.id, count(t.id) AS freed, sum(t.hold_freed) AS given FROM ledger.hold h
                       LEFT JOIN ledger.txn t ON t.hold_id = h.id AND (t.kind IN ('void', 'expire') OR t.hold_freed > 0)
                      GROUP BY h.id) f
            ON f.id = h.id""",
    "holds end when they and their renewals say": """
        SELECT s.expires_at IS DISTINCT FROM greatest(h.expires_at, r.until) AS broken, h.id AS place,
               format('hold %s: ends %s, its renewals say %s', h.id, s.expires_at, greatest(h.expires_at, r.until))
                   AS what
          FROM ledger.hold h JOIN ledger.hold_state s ON s.hold_id = h.id
          LEFT JOIN (SELECT t.hold_id, max(t.hold_until) AS until FROM ledger.txn t WHERE t.kind = 'renew'
                      GROUP BY t.hold_id) r ON r.hold_id = h.id""",
    "no account is below its floor": """
        SELECT coalesce(CASE b.side WHEN 'C' THEN b.credits - b.debits ELSE b.debits - b.credits END::numeric
                        - b.hold_out < b.floor, false) AS broken, b.account_id AS place,
               format('balance of account %s', b.account_id) AS what
          FROM ledger.balance b""",
    "freezes, closings and floors are what their events say": """
        SELECT b.debits_frozen IS DISTINCT FROM (coalesce(e.debits, '') = 'freeze-debits')
               OR b.credits_frozen IS DISTINCT FROM (coalesce(e.credits, '') = 'freeze-credits')
               OR b.closed IS DISTINCT FROM (coalesce(e.closed, '') = 'close')
               OR b.floor IS DISTINCT FROM CASE WHEN e.floors > 0 THEN e.floor ELSE c.floor_default END AS broken,
               b.account_id AS place, format('balance of account %s', b.account_id) AS what
          FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id
          JOIN ledger.chart c ON c.book_id = a.book_id AND c.kind = a.kind
          LEFT JOIN (SELECT account_id,
                            (array_agg(action ORDER BY id DESC) FILTER (WHERE action LIKE '%freeze-debits'))[1]
                                AS debits,
                            (array_agg(action ORDER BY id DESC) FILTER (WHERE action LIKE '%freeze-credits'))[1]
                                AS credits,
                            (array_agg(action ORDER BY id DESC) FILTER (WHERE action IN ('close', 'reopen')))[1]
                                AS closed,
                            (array_agg(floor ORDER BY id DESC) FILTER (WHERE action = 'floor'))[1] AS floor,
                            count(*) FILTER (WHERE action = 'floor') AS floors
                       FROM ledger.account_policy_event GROUP BY account_id) e ON e.account_id = b.account_id""",
    "every outbox row and every transaction belongs to something": """
        SELECT t.id IS NULL AS broken, o.txn_id AS place, format('outbox row %s', o.id) AS what
          FROM ledger.outbox o LEFT JOIN ledger.txn t ON t.id = o.txn_id
         UNION ALL
        SELECT k.id IS NULL, t.id, format('transaction %s (%s)', t.id, t.kind)
          FROM ledger.txn t LEFT JOIN ledger.book k ON k.id = t.book_id""",
    "every transaction has its outbox row": """
        SELECT o.number IS DISTINCT FROM 1 AS broken, t.id AS place,
               format('transaction %s (%s) has %s outbox rows', t.id, t.kind, coalesce(o.number, 0)) AS what
          FROM ledger.txn t
          LEFT JOIN (SELECT txn_id, count(*) AS number FROM ledger.outbox GROUP BY txn_id) o ON o.txn_id = t.id""",
    "no transaction is in two blocks of the chain": """
        SELECT m.low < m.high_before AS broken, m.seq AS place,
               format('block %s holds transaction %s once more', m.seq, m.low) AS what
          FROM (SELECT b.seq, lower(r) AS low, max(upper(r)) OVER w AS high_before
                  FROM ledger.chain_block b CROSS JOIN LATERAL unnest(b.members) r
                WINDOW w AS (ORDER BY lower(r), b.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) m""",
    "no transaction escaped the chain": """
        SELECT true AS broken, t.id AS place,
               format('transaction %s (%s) was booked at %s and never sealed', t.id, t.kind, t.booked_at) AS what
          FROM (SELECT coalesce(range_agg(b.members), '{}') AS sealed, max(b.sealed_at) AS last
                  FROM ledger.chain_block b) c
          CROSS JOIN LATERAL unnest('{[1,)}'::int8multirange - c.sealed) g
          CROSS JOIN LATERAL (SELECT t.* FROM ledger.txn t
                               WHERE t.id >= lower(g) AND t.id < coalesce(upper(g), 9223372036854775807)
                               ORDER BY t.id LIMIT 1000) t
         WHERE t.booked_at < c.last - interval '1 hour'
        UNION ALL
        SELECT false, b.seq, NULL FROM ledger.chain_block b""",
    "snapshots are the sums of the postings booked before them": """
        SELECT m.debits <> m.kept_debits OR m.credits <> m.kept_credits OR m.last_seq <> m.kept_last_seq
               OR m.whole_to >= m.first_left_out AS broken, m.account_id AS place,
               format('snapshot of account %s before %s: debits %s, credits %s; postings say %s and %s', m.account_id,
                      m.at, m.kept_debits, m.kept_credits, m.debits, m.credits) AS what
          FROM (SELECT u.*, coalesce(sum(u.debit) OVER w, 0) AS debits, coalesce(sum(u.credit) OVER w, 0) AS credits,
                       max(u.seq) OVER w AS last_seq,
                       -- Backwards, because a frame that begins with each row is counted anew for each row.
                       min(u.seq) OVER (PARTITION BY u.account_id ORDER BY u.at DESC, u.posting DESC
                                        ROWS UNBOUNDED PRECEDING) AS first_left_out
                  FROM (SELECT s.account_id, s.as_of AS at, 0 AS posting, NULL::bigint AS seq, NULL::bigint AS debit,
                               NULL::bigint AS credit, s.debits AS kept_debits, s.credits AS kept_credits,
                               s.last_seq AS kept_last_seq, s.whole_to
                          FROM ledger.snapshot s
                        UNION ALL
                        SELECT e.account_id, t.booked_at, 1, e.seq, CASE e.side WHEN 'D' THEN e.amount END,
                               CASE e.side WHEN 'C' THEN e.amount END, NULL, NULL, NULL, NULL
                          FROM ledger.entry e JOIN ledger.txn t ON t.id = e.txn_id
                         WHERE EXISTS (SELECT FROM ledger.snapshot s WHERE s.account_id = e.account_id)) u
                WINDOW w AS (PARTITION BY u.account_id ORDER BY u.at, u.posting ROWS UNBOUNDED PRECEDING)) m
         WHERE m.posting = 0""",
}

CHAIN: Final = "every block of the chain follows from the one before and seals what is there"

EVIDENCE: Final = (
    "sequences have no gap and each balance after follows from the one before",
    "postings stay inside the book of their transaction",
    "transactions that move money have postings, the others have none",
    "holds: captured plus released never exceeds the amount, and is what its transactions did",
    "every transaction has its outbox row",
    "no transaction is in two blocks of the chain",
    "no transaction escaped the chain",
    CHAIN,
)
"""The checks that do not look at balances: while they hold, balances can be made again."""


_SUMMARY: Final = (
    "SELECT count(*), count(*) FILTER (WHERE broken), (array_agg(what ORDER BY place) FILTER (WHERE broken))[1] "
    "FROM ({}) AS looked_at"
)


async def verify(url: str) -> Report:
    """Check the whole book at `url`. Reads only. Raises `Unavailable` when the database is away."""
    async with (
        open_statements(url, 1, statement_timeout="0") as statements,
        statements.connection() as connection,
        connection.transaction(),
    ):
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        findings = await examine(connection, _CHECKS)
        found = await chain.walk(connection)
    return Report([*findings, _chained(found)], found.head)


async def examine(connection: AsyncConnection[Any], checks: Iterable[str]) -> list[Finding]:
    """Make these checks inside the caller's transaction."""
    findings = []
    for check in checks:
        if check == CHAIN:
            findings.append(_chained(await chain.walk(connection)))
            continue
        findings.append(await examine_rows(connection, check, _CHECKS[check]))
    return findings


async def examine_rows(connection: AsyncConnection[Any], check: str, query: LiteralString) -> Finding:
    """Make one check: `query` lists every row it looks at as (broken, place, what)."""
    rows, broken, first = await (await connection.execute(_SUMMARY.format(query))).fetchone() or (0, 0, None)
    return Finding(check, rows, broken, first)


def _chained(found: chain.ChainReport) -> Finding:
    return Finding(CHAIN, found.blocks, len(found.broken), found.broken[0] if found.broken else None)
