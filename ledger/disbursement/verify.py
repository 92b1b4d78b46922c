"""The auditor of store balances: recompute them from what was written and name the first row that does not agree.

Looks at every tenant, over one consistent snapshot. As in `ledger.verify`, nothing is assumed to hold because a
function or a constraint should have seen to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection

from hub.statements import open_statements
from ledger.verify import Finding, Report, examine_rows

_CHECKS: Final[Mapping[str, LiteralString]] = {
    "updates of a store are numbered without a gap, and each begins where the one before ended": """
        SELECT u.seq <> u.number OR u.previous <> u.before OR u.new <> u.previous + u.effect AS broken, u.id AS place,
               format('update %s of store %s: number %s should be %s, from %s by %s to %s, the one before ended at %s',
                      u.id, u.store_id, u.seq, u.number, u.previous, u.effect, u.new, u.before) AS what
          FROM (SELECT u.*, row_number() OVER w AS number, coalesce(lag(u.new) OVER w, 0) AS before
                  FROM disbursement.balance_update u
                WINDOW w AS (PARTITION BY u.tenant_id, u.store_id ORDER BY u.seq)) u""",
    "each update is what its transaction did to the store's account": """
        SELECT t.id IS NULL OR k.code <> u.tenant_id OR u.effect <> coalesce(e.moved, 0) AS broken, u.id AS place,
               format('update %s of store %s: %s, transaction %s says %s', u.id, u.store_id, u.effect, u.txn_id,
                      coalesce(e.moved, 0)) AS what
          FROM disbursement.balance_update u
          LEFT JOIN ledger.txn t ON t.id = u.txn_id
          LEFT JOIN ledger.book k ON k.id = t.book_id
          LEFT JOIN LATERAL (SELECT sum(CASE e.side WHEN 'C' THEN e.amount ELSE -e.amount END) AS moved
                               FROM ledger.entry e JOIN ledger.account a ON a.id = e.account_id
                              WHERE e.txn_id = u.txn_id AND a.kind = 'store-payable' AND a.owner_id = u.store_id) e
            ON true""",
    "nothing moves a store's account but its updates": """
        SELECT u.id IS NULL AS broken, e.txn_id AS place,
               format('transaction %s moves the account of store %s and is no update of it', e.txn_id, a.owner_id)
                   AS what
          FROM ledger.account a JOIN ledger.book k ON k.id = a.book_id
          JOIN ledger.entry e ON e.account_id = a.id
          LEFT JOIN disbursement.balance_update u
            ON u.txn_id = e.txn_id AND u.tenant_id = k.code AND u.store_id = a.owner_id
         WHERE a.kind = 'store-payable'""",
    "every store's balance is its account in the book": """
        SELECT coalesce(l.new, 0) <> coalesce(b.booked, 0) AS broken,
               row_number() OVER (ORDER BY s.tenant_id, s.id) AS place,
               format('store %s: balance %s, the book says %s', s.id, coalesce(l.new, 0), coalesce(b.booked, 0)) AS what
          FROM disbursement.store s
          LEFT JOIN LATERAL (SELECT u.new FROM disbursement.balance_update u
                              WHERE u.tenant_id = s.tenant_id AND u.store_id = s.id ORDER BY u.seq DESC LIMIT 1) l
            ON true
          LEFT JOIN LATERAL (SELECT sum(b.credits - b.debits) AS booked
                               FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id
                               JOIN ledger.balance b ON b.account_id = a.id
                              WHERE k.code = s.tenant_id AND a.kind = 'store-payable' AND a.owner_id = s.id) b
            ON true""",
    "every store's balance is what is pending and in transit": """
        SELECT n.applied <> 0 AS broken, n.place,
               format('store %s: its applied updates sum to %s', n.store_id, n.applied) AS what
          FROM (SELECT u.store_id, min(u.id) AS place,
                       coalesce(sum(u.effect) FILTER (WHERE u.status = 'APPLIED'), 0) AS applied
                  FROM disbursement.balance_update u GROUP BY u.tenant_id, u.store_id) n""",
    "each update is in at most one live transfer, which is as far as the update": """
        SELECT n.live > 1 OR n.status <> n.expected AS broken, n.id AS place,
               format('update %s of store %s (%s): %s, live in %s transfers, the last of them %s', n.id, n.store_id,
                      n.type, n.status, n.live, coalesce(n.transfer, 'none')) AS what
          FROM (SELECT u.id, u.store_id, u.type, u.status, count(t.id) AS live, max(t.status) AS transfer,
                       CASE WHEN u.type IN ('DISBURSEMENT', 'DISBURSEMENT_OVERRIDE')
                            THEN CASE count(t.id) WHEN 0 THEN 'APPLIED' ELSE 'in no transfer' END
                            WHEN count(t.id) = 0 THEN 'PENDING'
                            WHEN max(t.status) IN ('WAITING_FOR_CONFIRMATION', 'IN_TRANSIT') THEN 'IN_TRANSIT'
                            WHEN max(t.status) = 'APPLIED' THEN 'APPLIED' ELSE 'released' END AS expected
                  FROM disbursement.balance_update u
                  LEFT JOIN disbursement.bank_transfer_item i ON i.update_id = u.id AND i.released_at IS NULL
                  LEFT JOIN disbursement.bank_transfer t ON t.id = i.transfer_id
                 GROUP BY u.id) n""",
    "each transfer is the sum of its updates, which are its store's": """
        SELECT t.amount IS DISTINCT FROM n.total OR n.strangers > 0 AS broken, t.number AS place,
               format('transfer %s: %s, its updates sum to %s, %s of them another store''s', t.id, t.amount, n.total,
                      n.strangers) AS what
          FROM disbursement.bank_transfer t
          CROSS JOIN LATERAL (
                SELECT sum(u.effect) AS total,
                       count(*) FILTER (WHERE (u.tenant_id, u.store_id) <> (t.tenant_id, t.store_id)) AS strangers
                  FROM disbursement.bank_transfer_item i JOIN disbursement.balance_update u ON u.id = i.update_id
                 WHERE i.transfer_id = t.id) n""",
    "each transfer went only where it may go, and is where it went last": """
        SELECT r.status IS DISTINCT FROM t.status OR r.astray > 0 AS broken, t.number AS place,
               format('transfer %s: %s, its records end with %s, %s steps are not allowed', t.id, t.status, r.status,
                      r.astray) AS what
          FROM disbursement.bank_transfer t
          LEFT JOIN LATERAL (
                SELECT (array_agg(s.status ORDER BY s.id DESC))[1] AS status,
                       count(*) FILTER (WHERE (coalesce(s.before, ''), s.status) NOT IN (
                           ('', 'WAITING_FOR_CONFIRMATION'), ('WAITING_FOR_CONFIRMATION', 'IN_TRANSIT'),
                           ('WAITING_FOR_CONFIRMATION', 'CANCELLED'), ('IN_TRANSIT', 'APPLIED'),
                           ('IN_TRANSIT', 'CANCELLED'), ('IN_TRANSIT', 'REJECTED'), ('APPLIED', 'REJECTED'))) AS astray
                  FROM (SELECT s.*, lag(s.status) OVER (ORDER BY s.id) AS before
                          FROM disbursement.bank_transfer_status s WHERE s.transfer_id = t.id) s) r ON true""",
    "each update is where its records end": """
        SELECT r.status IS DISTINCT FROM u.status AS broken, u.id AS place,
               format('update %s: %s, its records end with %s', u.id, u.status, r.status) AS what
          FROM disbursement.balance_update u
          LEFT JOIN LATERAL (SELECT s.status FROM disbursement.balance_update_status s
                              WHERE s.update_id = u.id ORDER BY s.id DESC LIMIT 1) r ON true""",
    "a transfer has its disbursement if it was ever applied, and its override if it came back after that": """
        SELECT d.effect IS DISTINCT FROM CASE WHEN w.applied THEN -t.amount END
               OR o.effect IS DISTINCT FROM CASE WHEN w.applied AND t.status = 'REJECTED' THEN t.amount END AS broken,
               t.number AS place,
               format('transfer %s of %s (%s): disbursement %s, override %s', t.id, t.amount, t.status, d.effect,
                      o.effect) AS what
          FROM disbursement.bank_transfer t
          CROSS JOIN LATERAL (SELECT count(*) > 0 AS applied FROM disbursement.bank_transfer_status s
                               WHERE s.transfer_id = t.id AND s.status = 'APPLIED') w
          LEFT JOIN disbursement.balance_update d ON d.transfer_id = t.id AND d.type = 'DISBURSEMENT'
          LEFT JOIN disbursement.balance_update o ON o.transfer_id = t.id AND o.type = 'DISBURSEMENT_OVERRIDE'""",
    "what is overwritten is compensated once, by its mirror image": """
        SELECT u.overwritten <> (c.number = 1) OR c.number > 1 OR c.wrong > 0 AS broken, u.id AS place,
               format('update %s (%s): overwritten %s, compensated %s times', u.id, u.type, u.overwritten, c.number)
                   AS what
          FROM disbursement.balance_update u
          CROSS JOIN LATERAL (
                SELECT count(*) AS number,
                       count(*) FILTER (WHERE c.effect <> -u.effect
                           OR (c.tenant_id, c.store_id) <> (u.tenant_id, u.store_id)
                           OR c.credit_id IS DISTINCT FROM u.credit_id OR c.transfer_id IS DISTINCT FROM u.transfer_id
                           OR (u.type, c.type) NOT IN (('CONTRIBUTION', 'CREDIT_CANCELLATION'),
                                                       ('DISBURSEMENT', 'DISBURSEMENT_OVERRIDE'))) AS wrong
                  FROM disbursement.balance_update c WHERE c.overwrites = u.id) c""",
    "each credit's contribution is its amount less its commission, and it is disbursed while one is applied": """
        SELECT n.live > 1 OR n.wrong > 0 OR c.disbursed <> (n.applied > 0) OR h.wrong AS broken,
               row_number() OVER (ORDER BY c.tenant_id, c.id) AS place,
               format('credit %s: %s less %s, disbursed %s; %s contributions stand, %s are applied', c.id, c.amount,
                      c.commission, c.disbursed, n.live, n.applied) AS what
          FROM disbursement.credit c
          CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE NOT u.overwritten) AS live,
                       count(*) FILTER (WHERE u.status = 'APPLIED') AS applied,
                       count(*) FILTER (WHERE NOT u.overwritten
                                          AND u.effect IS DISTINCT FROM c.amount - c.commission) AS wrong
                  FROM disbursement.balance_update u
                 WHERE u.tenant_id = c.tenant_id AND u.credit_id = c.id AND u.type = 'CONTRIBUTION') n
          CROSS JOIN LATERAL (
                SELECT coalesce((array_agg((h.amount, h.commission, h.disbursed)
                                           IS DISTINCT FROM (c.amount, c.commission, c.disbursed)
                                           ORDER BY h.id DESC))[1], false) AS wrong
                  FROM disbursement.credit_change h WHERE h.tenant_id = c.tenant_id AND h.credit_id = c.id) h""",
}


async def verify(url: str) -> Report:
    """Check all store balances at `url`. Reads only. Raises `Unavailable` when the database is away."""
    async with (
        open_statements(url, 1, statement_timeout="0") as statements,
        statements.connection() as connection,
        connection.transaction(),
    ):
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return await examined(connection)


async def examined(connection: AsyncConnection[Any]) -> Report:
    """Make all checks inside the caller's transaction."""
    findings: list[Finding] = [await examine_rows(connection, check, query) for check, query in _CHECKS.items()]
    return Report(findings, subject="Store balances are")
