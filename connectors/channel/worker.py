"""The channel's jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from connectors.channel.model import AcceptLinkedPayment, Claimed, ClaimPayment, PaymentAccepted, RecordOutcome
from connectors.channel.store import Acceptance, ChannelStore, Claim
from hub.failpoint import failpoint
from hub.jobs import Result, handles
from hub.telemetry import logger
from hub.transfer import Outcome

log = logger(__name__)


class PaymentMissing(LookupError):
    """The engine runs a payment that this tenant never handed in: a defect, and an operator's."""


class OutcomeConflict(RuntimeError):
    """A final outcome is written and the process brings another one: a defect, and an operator's."""


class LinkedPaymentConflict(RuntimeError):
    """The key of a linked payment belongs to another payment: a defect, and an operator's."""


class ChannelWorker:
    """`look`: called when an outcome was written that may have to be told."""

    def __init__(self, store: ChannelStore, look: Callable[[], None]) -> None:
        self._store, self._look = store, look

    @handles(ClaimPayment)
    async def claim_payment(self, job: ClaimPayment) -> Claimed:
        failpoint("channel.claim.before-commit")
        claim = await self._store.claim(job.tenant_id, job.payment_id, job.facts.process_instance_key)
        failpoint("channel.claim.after-commit")
        if claim is Claim.NO_PAYMENT:
            raise PaymentMissing(f"payment {job.payment_id} was not accepted here")
        return Claimed(duplicate=claim is Claim.TAKEN)

    @handles(RecordOutcome)
    async def record_outcome(self, job: RecordOutcome) -> Result:
        failpoint("channel.record-outcome.before-commit")
        recorded = await self._store.record_outcome(
            job.tenant_id, job.payment_id, job.outcome, job.reason, job.reason_detail
        )
        failpoint("channel.record-outcome.after-commit")
        if recorded is None:
            raise PaymentMissing(f"payment {job.payment_id} was not accepted here")
        if recorded.changed:
            self._look()
        elif (job.outcome, recorded.before) == (Outcome.SETTLED, Outcome.RETURNED):
            # Late or for the second time: meanwhile the money came back, and what is returned has settled before.
            log.info("outcome.overtaken", payment_id=job.payment_id)
        elif job.outcome.is_final and (recorded.before, recorded.before_reason) != (job.outcome, job.reason):
            raise OutcomeConflict(
                f"payment {job.payment_id} is {recorded.before} ({recorded.before_reason}),"
                f" not {job.outcome} ({job.reason})"
            )
        return Result()

    @handles(AcceptLinkedPayment)
    async def accept_linked_payment(self, job: AcceptLinkedPayment) -> Result:
        payment = PaymentAccepted(
            payment_id=job.linked_payment_id,
            tenant_id=job.tenant_id,
            amount=job.amount,
            currency=job.currency,
            payer=job.payer,
            payee=job.payee,
            concept=job.concept,
            reference_number=None,
        )
        key = f"linked:{job.linked_payment_id}"
        digest = hashlib.sha256(payment.model_dump_json().encode()).digest()
        acceptance = Acceptance(payment, key, digest, client_ref_id=None, callback_url=None)
        failpoint("channel.accept-linked.before-commit")
        known = await self._store.accept(acceptance, lease=0.0)  # the relay beside takes it at once
        failpoint("channel.accept-linked.after-commit")
        if known is not None and (known.payment_id, known.request_hash) != (job.linked_payment_id, digest):
            raise LinkedPaymentConflict(f"{key} was used for payment {known.payment_id}")
        return Result()
