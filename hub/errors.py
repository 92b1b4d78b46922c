"""Four kinds of failure, one consequence each.

    HubError
    ├── Rejected      a certain, businesslike no            → BPMN error, a drawn path; the process decides
    ├── Unavailable   it certainly did not happen           → try again with back-off; time decides
    └── Uncertain     it was sent and no answer came        → try again, and look first; time, then an operator
    anything else     a defect of ours, bad variables too   → incident at once; an operator decides

Connectors raise these and never mention the engine; `hub.zeebe.outcomes` turns each into what the engine does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from hub.transfer import Reason


class HubError(Exception):
    """Root of the failures that have a meaning."""


class Rejected(HubError):
    """Somebody entitled to say no said no, and nothing moved.

    Each kind of refusal is a subclass that names its `reason`; `detail` is for people and must hold no personal data.
    """

    reason: ClassVar[Reason]

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(f"{self.reason}: {detail}" if detail else str(self.reason))

    @classmethod
    def code(cls) -> str:
        """The BPMN error code: the reason's own word, so that a drawing reads like the outcome it leads to."""
        return cls.reason.value


class Unavailable(HubError):
    """The other side cannot be reached, and it is certain that nothing was done. `after`: when to try again."""

    def __init__(self, detail: str, after: timedelta | None = None) -> None:
        self.after = after
        super().__init__(detail)


class Uncertain(HubError):
    """A request left and no answer came: money may have moved. The next attempt must look before it repeats."""

    def __init__(self, detail: str, after: timedelta | None = None) -> None:
        self.after = after
        super().__init__(detail)
