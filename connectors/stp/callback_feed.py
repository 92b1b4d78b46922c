"""STP's callbacks as the audit view is told of them: what became of each, and no body, which names persons."""

from __future__ import annotations

from typing import Final

WAITING: Final = """
    SELECT c.change, coalesce(c.payment_id, d.payment_id, 'stp-' || c.id), json_build_object(
               'seq', c.change, 'id', 'stp-' || c.id, 'at', c.received_at, 'party', 'STP', 'kind', c.kind,
               'paymentId', coalesce(c.payment_id, d.payment_id), 'tenantId', coalesce(o.tenant_id, d.tenant_id),
               'outcome', coalesce(c.result, 'received'), 'times', c.times,
               'value', json_build_object('lastReceivedAt', c.last_received_at, 'handledAt', c.handled_at,
                                          'bodySha256', encode(c.body_sha256, 'hex'), 'decision', d.decision,
                                          'answer', d.answer))::text
      FROM stp.callback c
      LEFT JOIN stp.stp_order o ON o.payment_id = c.payment_id
      LEFT JOIN LATERAL (SELECT x.payment_id, x.tenant_id, x.decision, x.answer FROM stp.deposit x
                          WHERE x.callback_id = c.id ORDER BY x.received_at LIMIT 1) d ON true
     WHERE c.told < c.change
     ORDER BY c.change LIMIT %(limit)s
    """
"""Number of the change, key, and JSON of the callbacks that changed since they were told."""

TOLD: Final = "UPDATE stp.callback SET told = change WHERE change = ANY(%(changes)s) AND told < change"
"""A callback that changed again meanwhile has another number by now, and is told once more."""
