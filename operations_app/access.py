"""Who may do what: one table from the roles of a token to what the operations API lets their bearers do.

    @router.post("/transfers/{payment_id}/actions")
    async def request(who: Annotated[Caller, Depends(allowed("actions:request"))], ...) -> ...

Whoever asks for an action does not approve actions by the same role: one person needs both roles for both, and is
still refused as the approver of an own request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias, get_args

from fastapi import Request

from hub.api import Caller, require

Scope: TypeAlias = Literal[
    "transfers:read",
    "pii:reveal",
    "actions:request",
    "actions:approve",
    "bulk:request",
    "bulk:approve",
    "balances:read",
    "book:read",
    "disbursements:read",
    "audit:read",
    "callbacks:reprocess",
    "policies:write",
]

_LOOKING: Final[frozenset[Scope]] = frozenset({"transfers:read", "balances:read", "disbursements:read"})

SCOPES: Final[Mapping[str, frozenset[Scope]]] = {
    "viewer": _LOOKING,
    "operator": _LOOKING | {"audit:read", "pii:reveal", "actions:request", "bulk:request", "callbacks:reprocess"},
    "approver": _LOOKING | {"audit:read", "actions:approve", "bulk:approve"},
    "treasury": _LOOKING | {"book:read", "pii:reveal"},
    "admin": _LOOKING | {"audit:read", "policies:write"},
    "auditor": _LOOKING | {"book:read", "audit:read"},
}
"""By role."""


def scopes_of(caller: Caller) -> frozenset[Scope]:
    """What a caller may do, by all of their roles."""
    return frozenset().union(*(SCOPES.get(role, frozenset()) for role in caller.roles))


def allowed(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """Dependency: who calls, provided that one of their roles has this scope; 401 or 403 otherwise."""
    return DOORS[scope]


DOORS: Final[Mapping[Scope, Callable[[Request], Awaitable[Caller]]]] = {
    scope: require(*(role for role, scopes in SCOPES.items() if scope in scopes)) for scope in get_args(Scope)
}
"""The dependency of each scope: one object each, so that it can be told from a route which scope it asks for."""
