"""Who may post callbacks: a chain of checks, all of which a request has to pass.

    secret     the header X-STP-Secret, agreed with STP, another one per environment (L33)
    basic      HTTP Basic
    network    the connection comes from one of these networks
    signature  an RSA signature (PKCS#1 v1.5, SHA-256, base64) over the body as it came, in the header X-STP-Signature

The settings name the checks. Every check but the signature is made before a byte of the body is read. A check that a
contract with STP asks for and that is none of these is one more class with one method.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Protocol

from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.stp.settings import CallbackCheck, StpCallbackSettings
from connectors.stp.signature import BadKey, Checker
from hub.api import Problem
from hub.settings import SettingsError
from hub.telemetry import logger

SECRET_HEADER: Final = "X-STP-Secret"  # noqa: S105 (the name, not the secret)
SIGNATURE_HEADER: Final = "X-STP-Signature"
SHORT_SECRET: Final = 16

_refused = Counter("payhub_stp_callbacks_refused", "Callbacks that did not pass a check of who posts them.", ("check",))

log = logger(__name__)

Headers = Mapping[str, Sequence[bytes]]
"""Lower-case name → each value that was sent under it."""


class HeaderCheck(Protocol):
    """Looks at where a request comes from and at its headers."""

    def passes(self, headers: Headers, peer: str) -> bool: ...


class BodyCheck(Protocol):
    """Looks at the body too, before anything is read from it or kept."""

    def passes(self, headers: Headers, body: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Secret:
    """The shared secret in its header, exactly once."""

    secret: bytes

    def passes(self, headers: Headers, peer: str) -> bool:  # noqa: ARG002
        given = headers.get(SECRET_HEADER.lower(), ())
        return len(given) == 1 and hmac.compare_digest(given[0], self.secret)


@dataclass(frozen=True, slots=True)
class Basic:
    """HTTP Basic (RFC 7617)."""

    credentials: bytes

    def passes(self, headers: Headers, peer: str) -> bool:  # noqa: ARG002
        given = headers.get("authorization", ())
        if len(given) != 1 or given[0][:6].lower() != b"basic ":
            return False
        try:
            found = base64.b64decode(given[0][6:].strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(found, self.credentials)


@dataclass(frozen=True, slots=True)
class SourceNetwork:
    """The connection comes from one of these networks. What a proxy says of others is not looked at."""

    networks: tuple[IPv4Network | IPv6Network, ...]

    def passes(self, headers: Headers, peer: str) -> bool:  # noqa: ARG002
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Signed:
    """The body is signed by whoever has the private half of this key."""

    checker: Checker

    def passes(self, headers: Headers, body: bytes) -> bool:
        given = headers.get(SIGNATURE_HEADER.lower(), ())
        if len(given) != 1:
            return False
        try:
            return self.checker.matches(body.decode(), given[0].decode("ascii"))
        except UnicodeDecodeError:
            return False


class Authentication:
    """The checks that the settings ask for. Raises `SettingsError` when one cannot be made."""

    def __init__(self, settings: StpCallbackSettings) -> None:
        _complete(settings)
        before = _before(settings)
        self._before = {check: before[check] for check in before if check in settings.callback_checks}
        self._after: dict[str, BodyCheck] = {}
        if CallbackCheck.SIGNATURE in settings.callback_checks:
            self._after[CallbackCheck.SIGNATURE] = Signed(_checker(settings))

    def check_headers(self, scope: Scope) -> Problem | None:
        """What is wrong with who posts, as far as it can be told without the body."""
        headers, peer = _headers(scope), (scope.get("client") or ("",))[0]
        for name, check in self._before.items():
            if not check.passes(headers, peer):
                return _problem(name, peer)
        return None

    def check_body(self, scope: Scope, body: bytes) -> None:
        """Raises the 401 when the body is not signed as it must be."""
        headers, peer = _headers(scope), (scope.get("client") or ("",))[0]
        for name, check in self._after.items():
            if not check.passes(headers, body):
                raise _problem(name, peer)


class Gate:
    """Lets through what passes the checks of headers; the rest is answered 401 or 403 without being read."""

    def __init__(self, app: ASGIApp, authentication: Authentication) -> None:
        self._app, self._authentication = app, authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"].startswith("/stp/")
        problem = self._authentication.check_headers(scope) if ours else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem.response()(scope, receive, send)


def _complete(settings: StpCallbackSettings) -> None:
    """Each check that is asked for has what it needs, and at least one of them shows who posts."""
    needed: dict[CallbackCheck, dict[str, object]] = {
        CallbackCheck.SECRET: {"SECRET": settings.callback_secret},
        CallbackCheck.BASIC: {"USER": settings.callback_user, "PASSWORD": settings.callback_password},
        CallbackCheck.NETWORK: {"NETWORKS": settings.callback_networks or None},
        CallbackCheck.SIGNATURE: {"PUBLIC_KEY_FILE": settings.callback_public_key_file},
    }
    missing = [
        f"PAYHUB_STP_CALLBACK_{name}: is not set, and PAYHUB_STP_CALLBACK_CHECKS asks for {check}"
        for check in sorted(settings.callback_checks)
        for name, value in needed[check].items()
        if value is None
    ]
    if missing:
        raise SettingsError("; ".join(missing))
    if settings.callback_checks <= {CallbackCheck.NETWORK}:
        raise SettingsError("PAYHUB_STP_CALLBACK_CHECKS: must hold secret, basic or signature")


def _before(settings: StpCallbackSettings) -> dict[str, HeaderCheck]:
    found: dict[str, HeaderCheck] = {}
    if settings.callback_networks:
        found[CallbackCheck.NETWORK] = SourceNetwork(settings.callback_networks)
    if settings.callback_secret is not None:
        secret = settings.callback_secret.get_secret_value()
        if len(secret) < SHORT_SECRET:
            log.warning("callback.secret-short", advice=f"use {SHORT_SECRET} random characters or more")
        found[CallbackCheck.SECRET] = Secret(secret.encode())
    if settings.callback_user is not None and settings.callback_password is not None:
        credentials = f"{settings.callback_user}:{settings.callback_password.get_secret_value()}"
        found[CallbackCheck.BASIC] = Basic(credentials.encode())
    return found


def _checker(settings: StpCallbackSettings) -> Checker:
    file = settings.callback_public_key_file
    if file is None:
        raise LookupError("the key's file was looked for before")
    try:
        return Checker.from_pem(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"PAYHUB_STP_CALLBACK_PUBLIC_KEY_FILE: {file}: {error.strerror}") from None
    except (BadKey, ValueError):
        raise SettingsError(f"PAYHUB_STP_CALLBACK_PUBLIC_KEY_FILE: {file}: is no certificate or public key") from None


def _headers(scope: Scope) -> Headers:
    found: dict[str, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value)
    return found


_SAID: Final[Mapping[str, tuple[int, str, str, str | None]]] = {
    CallbackCheck.SECRET: (
        401,
        "secret-missing",
        f"This needs the header {SECRET_HEADER} with the secret agreed upon.",
        SECRET_HEADER,
    ),
    CallbackCheck.BASIC: (
        401,
        "credentials-missing",
        "This needs the header Authorization: Basic with the credentials agreed upon.",
        'Basic realm="payhub"',
    ),
    CallbackCheck.NETWORK: (403, "network-not-allowed", "Callbacks are taken from STP's networks only.", None),
    CallbackCheck.SIGNATURE: (
        401,
        "signature-missing",
        f"This needs the header {SIGNATURE_HEADER} with a signature of the body.",
        SIGNATURE_HEADER,
    ),
}


def _problem(check: str, peer: str) -> Problem:
    status, code, detail, challenge = _SAID[check]
    _refused.labels(check).inc()
    log.warning("callback.refused", peer=peer, check=str(check))
    headers = {"Connection": "close"} | ({"WWW-Authenticate": challenge} if challenge else {})
    return Problem(status, code, detail, headers=headers)
