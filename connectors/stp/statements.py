"""The SQL of the order store, one round trip each. Values are always bound; only our own constants are put together."""
# ruff: noqa: S608

from __future__ import annotations

from typing import Final, LiteralString

# What settled an order happened when it did, also once the order is returned.
_MOMENTS: Final = (
    "(SELECT b.happened_at FROM stp.observation b WHERE b.payment_id = stp_order.payment_id "
    "AND b.digest = stp_order.observation) AS happened_at, "
    "(SELECT b.happened_at FROM stp.observation b WHERE b.payment_id = stp_order.payment_id "
    "AND b.digest = stp_order.settled_as) AS settled_at_stp"
)
COLUMNS: Final = (
    "payment_id, tenant_id, company, tracking_key, amount, payee_account, body, operation_date, sending, sends, "
    f"doubts, claimed_at, stp_id, error_id, error_detail, state, cause, observation, settled_as, kind, {_MOMENTS}"
)
STANDING_COLUMNS: Final = (
    f"payment_id, tenant_id, sending, state, stp_id, cause, observation, told, settled_as, kind, purpose, {_MOMENTS}"
)

# Without a target, a conflict of whatever kind inserts nothing: of two that claim one payment at the same moment, the
# second may meet the tracking key of the first before it meets its payment id.
CLAIM: Final = """
    INSERT INTO stp.stp_order (payment_id, tenant_id, company, tracking_key, amount, payee_account, body,
                               joined_sha256, operation_date, claimed_at, kind, deposit, purpose)
    VALUES (%(payment_id)s, %(tenant_id)s, %(company)s, %(tracking_key)s, %(amount)s, %(payee_account)s, %(body)s,
            %(joined_sha256)s, %(operation_date)s, %(moment)s, %(kind)s, %(deposit)s, %(purpose)s)
    ON CONFLICT DO NOTHING
    RETURNING payment_id
    """
FIND: Final = f"SELECT {COLUMNS} FROM stp.stp_order WHERE payment_id = %(payment_id)s"
CLAIM_AGAIN: Final = f"""
    UPDATE stp.stp_order
       SET sending = 'CLAIMED', sends = sends + 1, doubts = doubts + 1, claimed_at = %(moment)s, answered_at = NULL,
           operation_date = CASE WHEN doubts = 0 THEN %(operation_date)s ELSE operation_date END
     WHERE payment_id = %(payment_id)s AND sends = %(sends)s AND state = 'PENDING'
       AND sending IN ('NOT_SENT', 'CLAIMED', 'UNKNOWN')
    RETURNING {COLUMNS}
    """
RENEW: Final = f"""
    UPDATE stp.stp_order
       SET company = %(company)s, amount = %(amount)s, payee_account = %(payee_account)s, body = %(body)s,
           joined_sha256 = %(joined_sha256)s
     WHERE payment_id = %(payment_id)s AND sends = %(sends)s AND sending = 'NOT_SENT' AND doubts = 0
    RETURNING {COLUMNS}
    """
# An attempt that certainly left nothing at STP takes its doubt away; while another attempt's doubt remains, so does
# the order's. A late answer to an older attempt changes nothing unless it says that STP has the order.
RECORD: Final = f"""
    WITH kept AS (
        INSERT INTO stp.observation (payment_id, source, digest, word, stp_id, detail)
        VALUES (%(payment_id)s, 'answer', %(digest)s, %(word)s, %(stp_id)s, %(detail)s)
        ON CONFLICT (payment_id, digest) DO NOTHING
    )
    UPDATE stp.stp_order
       SET sending = CASE
               WHEN sending = 'ACCEPTED' OR state <> 'PENDING' THEN 'ACCEPTED'
               WHEN CAST(%(sending)s AS text) IN ('ACCEPTED', 'REGISTERED') THEN CAST(%(sending)s AS text)
               WHEN sends <> %(sends)s THEN sending
               WHEN CAST(%(sending)s AS text) = 'NOT_SENT' AND doubts > 1 THEN 'UNKNOWN'
               ELSE CAST(%(sending)s AS text) END,
           doubts = CASE WHEN CAST(%(sending)s AS text) = 'NOT_SENT' THEN greatest(doubts - 1, 0) ELSE doubts END,
           stp_id = coalesce(stp_id, CAST(%(stp_id)s AS bigint)),
           error_id = CASE WHEN sends = %(sends)s THEN CAST(%(error_id)s AS integer) ELSE error_id END,
           error_detail = CASE WHEN sends = %(sends)s THEN CAST(%(detail)s AS text) ELSE error_detail END,
           error_text = CASE WHEN sends = %(sends)s THEN CAST(%(error_text)s AS text) ELSE error_text END,
           answered_at = %(moment)s
     WHERE payment_id = %(payment_id)s
    RETURNING {STANDING_COLUMNS}, doubts, error_id, error_detail
    """
CONFIRM_REJECTION: Final = f"""
    UPDATE stp.stp_order SET sending = 'REJECTED'
     WHERE payment_id = %(payment_id)s AND sends = %(sends)s AND sending = 'REFUSED' AND state = 'PENDING'
    RETURNING {COLUMNS}
    """
# STP certainly has nothing of a rejected return, so its very bytes may be sent again: nobody was given money meanwhile.
REOPEN: Final = f"""
    UPDATE stp.stp_order SET sending = 'NOT_SENT', doubts = 0
     WHERE payment_id = %(payment_id)s AND sends = %(sends)s AND sending = 'REJECTED' AND state = 'PENDING'
       AND kind = 'return'
    RETURNING {COLUMNS}
    """


def _observe(of: str) -> LiteralString:
    """Keep one thing STP said of the order that `of` selects, and move the order's state if its rank allows.

    A function of the database does it, which locks the order first: a statement alone may look at a row again that a
    neighbour changed meanwhile, and then sees parts of it twice, old and new. What the function wrote this statement
    does not see: the moment of what is said now is taken from what is given.
    """
    return f"""
        SELECT o.*, born.kind, born.purpose,
               coalesce((SELECT b.happened_at FROM stp.observation b
                          WHERE b.payment_id = o.payment_id AND b.digest = o.observation),
                        CASE WHEN o.observation = %(digest)s THEN CAST(%(happened_at)s AS timestamptz) END)
                   AS happened_at,
               coalesce((SELECT b.happened_at FROM stp.observation b
                          WHERE b.payment_id = o.payment_id AND b.digest = o.settled_as),
                        CASE WHEN o.settled_as = %(digest)s THEN CAST(%(happened_at)s AS timestamptz) END)
                   AS settled_at_stp
          FROM ({of}) matched JOIN stp.stp_order born USING (payment_id), stp.observe(
            matched.payment_id, %(source)s, %(digest)s, %(word)s, CAST(%(state)s AS text), CAST(%(stp_id)s AS bigint),
            CAST(%(cause)s AS integer), CAST(%(detail)s AS text), CAST(%(happened_at)s AS timestamptz),
            CAST(%(callback_id)s AS bigint), %(told)s, CAST(%(before)s AS text[]), CAST(%(contradicts)s AS text[]),
            %(moment)s) o
        """


OBSERVE: Final = _observe("SELECT CAST(%(payment_id)s AS text) AS payment_id")

# By tracking key; where the dialect has none, by STP's id, then by the folio, which holds our tracking key. A key that
# is there and not ours is not overruled by an id: ids of incoming orders may be equal to ids of ours.
MATCH: Final = """
    SELECT payment_id FROM stp.stp_order
     WHERE (tracking_key = CAST(%(key)s AS text) OR CAST(%(key)s AS text) IS NULL AND
            (stp_id = CAST(%(stp_id)s AS bigint) OR tracking_key = CAST(%(folio)s AS text)))
       AND (CAST(%(company)s AS text) IS NULL OR upper(company) = upper(CAST(%(company)s AS text)))
     ORDER BY (stp_id = CAST(%(stp_id)s AS bigint)) IS TRUE DESC
     LIMIT 1
"""
OBSERVE_CALLBACK: Final = _observe(MATCH)
KEEP: Final = """
    INSERT INTO stp.callback (kind, body, body_sha256, received_at, last_received_at)
    VALUES (%(kind)s, %(body)s, %(body_sha256)s, %(moment)s, %(moment)s)
    ON CONFLICT (kind, body_sha256) DO UPDATE SET times = callback.times + 1, last_received_at = %(moment)s
    RETURNING id, result
    """
CLOSE: Final = "UPDATE stp.callback SET result = %(result)s, handled_at = %(moment)s WHERE id = %(callback_id)s"
# What matched no order is looked at again, each time after twice as long: a dialect without tracking keys may tell of
# an order before its answer, and with it STP's id, has reached us.
UNHANDLED: Final = """
    SELECT id, body, result FROM stp.callback
     WHERE kind = %(kind)s
       AND (result IS NULL AND last_received_at < %(before)s
            OR result = 'unknown-order' AND received_at > %(since)s AND handled_at < %(before)s
               AND handled_at + (handled_at - received_at) < %(moment)s)
     ORDER BY received_at LIMIT %(limit)s
    """
UNTOLD: Final = f"""
    SELECT {STANDING_COLUMNS} FROM stp.stp_order
     WHERE state <> 'PENDING' AND told IS DISTINCT FROM observation AND state_at < %(before)s AND sending <> 'REJECTED'
     ORDER BY state_at LIMIT %(limit)s
    """
# What the order has left behind meanwhile is not noted any more: of two states of one order the later is to stand.
TOLD: Final = """
    UPDATE stp.stp_order o SET told = t.observation
      FROM unnest(CAST(%(payment_ids)s AS text[]), CAST(%(observations)s AS text[])) AS t (payment_id, observation)
     WHERE o.payment_id = t.payment_id AND o.observation = t.observation
    """
