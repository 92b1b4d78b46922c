"""The words of disbursements inside the hub: jobs, their results, and the messages that move a disbursement on."""

from __future__ import annotations
