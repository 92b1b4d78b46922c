"""Callbacks to channels as the audit view is told of them: how each attempt ended, and not where it went."""

from __future__ import annotations

from typing import Final

WAITING: Final = """
    SELECT c.change, c.payment_id::text, json_build_object(
               'seq', c.change, 'id', 'channel-' || c.payment_id || '-' || c.sequence, 'at', c.created_at,
               'party', 'CHANNEL', 'kind', 'outcome', 'paymentId', c.payment_id, 'tenantId', c.tenant_id,
               'outcome', c.state, 'times', c.attempts,
               'value', json_build_object('sequence', c.sequence, 'lastAnswer', c.last_answer, 'endedAt', c.ended_at,
                                          'nextAttemptAt', c.next_attempt_at))::text
      FROM channel.callback c
     WHERE c.told < c.change
     ORDER BY c.change LIMIT %(limit)s
    """
"""Number of the change, key, and JSON of the callbacks that changed since they were told."""

TOLD: Final = "UPDATE channel.callback SET told = change WHERE change = ANY(%(changes)s) AND told < change"
"""A callback that changed again meanwhile has another number by now, and is told once more."""
