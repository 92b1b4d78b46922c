"""The SQL of the order store, one round trip each. Values are always bound; only our own constants are put together."""
# ruff: noqa: S608

from __future__ import annotations

from typing import Final

from sqlalchemy import TextClause, text

COLUMNS: Final = (
    "payment_id, tenant_id, company, tracking_key, amount, payee_account, body, operation_date, sending, sends, "
    "doubts, claimed_at, stp_id, error_id, error_detail, state, cause, observation"
)
STANDING_COLUMNS: Final = "payment_id, sending, state, stp_id, cause, observation"

CLAIM: Final = text(
    """
    INSERT INTO stp.stp_order (payment_id, tenant_id, company, tracking_key, amount, payee_account, body,
                               joined_sha256, operation_date, claimed_at)
    VALUES (:payment_id, :tenant_id, :company, :tracking_key, :amount, :payee_account, :body,
            :joined_sha256, :operation_date, :moment)
    ON CONFLICT (payment_id) DO NOTHING
    RETURNING payment_id
    """
)
STANDING: Final = text(f"SELECT {STANDING_COLUMNS} FROM stp.stp_order WHERE payment_id = :payment_id")
FIND: Final = text(f"SELECT {COLUMNS} FROM stp.stp_order WHERE payment_id = :payment_id")
CLAIM_AGAIN: Final = text(
    f"""
    UPDATE stp.stp_order
       SET sending = 'CLAIMED', sends = sends + 1, doubts = doubts + 1, claimed_at = :moment, answered_at = NULL,
           operation_date = CASE WHEN doubts = 0 THEN :operation_date ELSE operation_date END
     WHERE payment_id = :payment_id AND sends = :sends AND state = 'PENDING'
       AND sending IN ('NOT_SENT', 'CLAIMED', 'UNKNOWN')
    RETURNING {COLUMNS}
    """
)
RENEW: Final = text(
    f"""
    UPDATE stp.stp_order
       SET company = :company, amount = :amount, payee_account = :payee_account, body = :body,
           joined_sha256 = :joined_sha256
     WHERE payment_id = :payment_id AND sends = :sends AND sending = 'NOT_SENT' AND doubts = 0
    RETURNING {COLUMNS}
    """
)
# An attempt that certainly left nothing at STP takes its doubt away; while another attempt's doubt remains, so does
# the order's. A late answer to an older attempt changes nothing unless it says that STP has the order.
RECORD: Final = text(
    f"""
    WITH kept AS (
        INSERT INTO stp.observation (payment_id, source, digest, word, stp_id, detail)
        VALUES (:payment_id, 'answer', :digest, :word, :stp_id, :detail)
        ON CONFLICT (payment_id, digest) DO NOTHING
    )
    UPDATE stp.stp_order
       SET sending = CASE
               WHEN sending = 'ACCEPTED' OR state <> 'PENDING' THEN 'ACCEPTED'
               WHEN CAST(:sending AS text) IN ('ACCEPTED', 'REGISTERED') THEN CAST(:sending AS text)
               WHEN sends <> :sends THEN sending
               WHEN CAST(:sending AS text) = 'NOT_SENT' AND doubts > 1 THEN 'UNKNOWN'
               ELSE CAST(:sending AS text) END,
           doubts = CASE WHEN CAST(:sending AS text) = 'NOT_SENT' THEN greatest(doubts - 1, 0) ELSE doubts END,
           stp_id = coalesce(stp_id, CAST(:stp_id AS bigint)), error_id = CAST(:error_id AS integer),
           error_detail = CAST(:detail AS text), error_text = CAST(:error_text AS text),
           answered_at = :moment
     WHERE payment_id = :payment_id
    RETURNING {STANDING_COLUMNS}, doubts, error_id, error_detail
    """
)
CONFIRM_REJECTION: Final = text(
    f"""
    UPDATE stp.stp_order SET sending = 'REJECTED'
     WHERE payment_id = :payment_id AND sends = :sends AND sending = 'REFUSED' AND state = 'PENDING'
    RETURNING {COLUMNS}
    """
)


ADOPT: Final = text(
    f"""
    UPDATE stp.stp_order SET sending = 'ACCEPTED', stp_id = coalesce(stp_id, CAST(:stp_id AS bigint))
     WHERE payment_id = :payment_id AND sending NOT IN ('ACCEPTED', 'REJECTED')
    RETURNING {STANDING_COLUMNS}
    """
)


def _observe(matched: str, noted: str = "") -> TextClause:
    """One statement: find the order, keep the observation, move the state if its rank allows, tell what was before.

    The condition stands in the update itself, so of twenty that arrive together exactly one moves the state.
    """
    return text(
        f"""
        WITH matched AS ({matched}),
        moved AS (
            UPDATE stp.stp_order o
               SET state = CAST(:state AS text), cause = CAST(:cause AS integer), state_at = :moment,
                   settled_at = coalesce(CAST(:happened_at AS timestamptz), o.settled_at),
                   observation = CAST(:digest AS text),
                   told = CASE WHEN :told THEN CAST(:digest AS text) ELSE o.told END,
                   sending = CASE WHEN o.sending = 'REJECTED' THEN o.sending ELSE 'ACCEPTED' END,
                   stp_id = coalesce(o.stp_id, CAST(:stp_id AS bigint))
              FROM matched m
             WHERE o.payment_id = m.payment_id AND o.state = ANY(CAST(:before AS text[]))
            RETURNING o.payment_id
        ),
        kept AS (
            INSERT INTO stp.observation (payment_id, source, digest, word, state, stp_id, cause, detail, happened_at,
                                         callback_id)
            SELECT m.payment_id, :source, :digest, :word, CAST(:state AS text), CAST(:stp_id AS bigint),
                   CAST(:cause AS integer), CAST(:detail AS text), CAST(:happened_at AS timestamptz),
                   CAST(:callback_id AS bigint)
              FROM matched m
            ON CONFLICT (payment_id, digest) DO NOTHING
        ){noted}
        SELECT m.*, EXISTS (SELECT FROM moved) AS moved FROM matched m
        """
    )


OBSERVE: Final = _observe(f"SELECT {STANDING_COLUMNS} FROM stp.stp_order WHERE payment_id = :payment_id")

# By tracking key; where the dialect has none, by STP's id, then by the folio, which holds our tracking key. A key that
# is there and not ours is not overruled by an id: ids of incoming orders may be equal to ids of ours.
MATCH: Final = f"""
    SELECT {STANDING_COLUMNS} FROM stp.stp_order
     WHERE (tracking_key = CAST(:key AS text) OR CAST(:key AS text) IS NULL AND
            (stp_id = CAST(:stp_id AS bigint) OR tracking_key = CAST(:folio AS text)))
       AND (CAST(:company AS text) IS NULL OR upper(company) = upper(CAST(:company AS text)))
     ORDER BY (stp_id = CAST(:stp_id AS bigint)) IS TRUE DESC
     LIMIT 1
"""
OBSERVE_CALLBACK: Final = _observe(
    MATCH,
    """,
        noted AS (
            UPDATE stp.callback c
               SET handled_at = :moment, payment_id = (SELECT payment_id FROM matched),
                   result = CASE WHEN NOT EXISTS (SELECT FROM matched) THEN 'unknown-order'
                                 WHEN CAST(:state AS text) IS NULL THEN 'unknown-status'
                                 WHEN EXISTS (SELECT FROM moved) THEN 'moved'
                                 ELSE 'unchanged' END
             WHERE c.id = :callback_id
        )""",
)
KEEP: Final = text(
    """
    INSERT INTO stp.callback (kind, body, body_sha256, received_at, last_received_at)
    VALUES (:kind, :body, :body_sha256, :moment, :moment)
    ON CONFLICT (kind, body_sha256) DO UPDATE SET times = callback.times + 1, last_received_at = :moment
    RETURNING id, result
    """
)
CLOSE: Final = text("UPDATE stp.callback SET result = :result, handled_at = :moment WHERE id = :callback_id")
UNHANDLED: Final = text(
    """
    SELECT id, body FROM stp.callback
     WHERE result IS NULL AND kind = :kind AND last_received_at < :before ORDER BY received_at LIMIT :limit
    """
)
UNTOLD: Final = text(
    f"""
    SELECT {STANDING_COLUMNS} FROM stp.stp_order
     WHERE state <> 'PENDING' AND told IS DISTINCT FROM observation AND state_at < :before AND sending <> 'REJECTED'
     ORDER BY state_at LIMIT :limit
    """
)
TOLD: Final = text(
    """
    UPDATE stp.stp_order o SET told = t.observation
      FROM unnest(CAST(:payment_ids AS text[]), CAST(:observations AS text[])) AS t (payment_id, observation)
     WHERE o.payment_id = t.payment_id
    """
)
