"""The tracking key and the numeric reference of an order, both computed from the payment's id and from nothing else.

A repeat, on another machine or a year later, can therefore never produce another key: STP's own uniqueness check is the
last lock against paying twice.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from typing import Final, NewType

from hub.transfer import PaymentId

TrackingKey = NewType("TrackingKey", str)
"""`claveRastreo`: 1 to 30 letters and digits, unique per company for ever."""

REFERENCES: Final = 9_999_999
"""`referenciaNumerica` runs from 1 to this."""

_PREFIX: Final = re.compile(r"[A-Z0-9]{0,4}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z0-9]{1,30}", re.ASCII)


def tracking_key(payment_id: PaymentId, prefix: str = "PH") -> TrackingKey:
    """The prefix and the payment's 128 bits in base32 (26 characters).

    The prefix (up to four capitals or digits) tells installations that share a company apart. Raises `ValueError` for
    any other prefix.
    """
    if _PREFIX.fullmatch(prefix) is None:
        raise ValueError("the prefix of tracking keys is up to four capital letters or digits")
    return TrackingKey(prefix + base64.b32encode(_bits(payment_id)).decode().rstrip("="))


def is_tracking_key(text: str) -> bool:
    """Whether STP would take this as the key of an order of ours."""
    return _KEY.fullmatch(text) is not None


def reference_number(payment_id: PaymentId) -> int:
    """A numeric reference for a payment whose channel gave none."""
    return 1 + int.from_bytes(hashlib.sha256(_bits(payment_id)).digest()[:8], "big") % REFERENCES


def _bits(payment_id: PaymentId) -> bytes:
    """A UUID's own 128 bits, however it is spelled; 128 bits of a hash for any other id."""
    try:
        return uuid.UUID(payment_id).bytes
    except ValueError:
        return hashlib.sha256(payment_id.encode()).digest()[:16]
