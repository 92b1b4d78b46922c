"""Bearer tokens: believing them, and, on loopback, issuing them.

The same code verifies the tokens of a bank's identity provider and those of the built-in issuer; there is no mode
without verification. Only asymmetric signatures are believed, and the algorithm is decided by the key that we hold,
never by what the token says of itself: that closes `alg: none` and a public key used as an HMAC secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from fastapi import FastAPI, Request
from jwt.utils import base64url_encode
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from hub.api import Caller, NotAuthenticated, build_app
from hub.errors import Unavailable
from hub.settings import SettingsError, TokenSettings
from hub.telemetry import logger
from hub.transfer import TenantId

ALGORITHMS: Final = frozenset({"RS256", "ES256", "EdDSA"})
LEEWAY: Final = 5.0
"""Seconds by which our clock and the issuer's may differ."""

_BELIEVED: Final = 60.0  # seconds for which a verified token is not verified again, within its own life
_BELIEVED_COUNT: Final = 4096
_STALE: Final = 300.0  # seconds after which the keys are fetched again, so that a withdrawn key stops working
_REFETCH: Final = 10.0  # seconds between two fetches, however many unknown key ids arrive
_FIRST: Final = 0.5  # the same while we hold no keys at all: the issuer may be starting just now
_FETCH_LIMIT: Final = 3.0
_LONGEST: Final = 8192  # characters
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

log = logger(__name__)


class TokenVerifier:
    """Believes a token that the configured issuer signed for us and that is valid now.

    Raises `SettingsError` when the settings name no keys or an unprotected address.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._issuer, self._audience = settings.issuer, settings.audience
        self._keys = _Keys(settings)
        self._believed: dict[bytes, tuple[Caller, float]] = {}

    async def verify(self, token: str) -> Caller:
        """Who the token speaks for. Raises `NotAuthenticated`; `Unavailable` when the issuer's keys cannot be had."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._believed.get(digest)
        if known is not None and time.time() < known[1]:
            return known[0]
        claims = await self._claims(token)
        found = _caller(claims)
        self._remember(digest, found, float(claims["exp"]))
        return found

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _LONGEST:
            raise NotAuthenticated("token-malformed", "the token is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise NotAuthenticated("token-malformed", "this is not a signed JSON web token") from None
        key = await self._keys.find(header.get("kid"))
        if key is None:
            raise NotAuthenticated("token-key-unknown", "the key that signed the token is not among the issuer's")
        if header.get("alg") != key.algorithm_name:
            raise NotAuthenticated("token-algorithm", "the token was signed by another algorithm than its key is for")
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["iss", "aud", "exp", "nbf", "sub"]},
            )
        except jwt.InvalidTokenError as refused:
            raise NotAuthenticated(*_why(refused)) from None

    def _remember(self, digest: bytes, found: Caller, expires: float) -> None:
        if len(self._believed) >= _BELIEVED_COUNT:
            self._believed.clear()
        self._believed[digest] = (found, min(expires, time.time() + _BELIEVED))


_REFUSALS: Final[tuple[tuple[type[jwt.InvalidTokenError], str, str], ...]] = (
    (jwt.ExpiredSignatureError, "token-expired", "the token has expired"),
    (jwt.ImmatureSignatureError, "token-not-yet-valid", "the token is not valid yet"),
    (jwt.InvalidAudienceError, "token-audience", "the token was issued for somebody else"),
    (jwt.InvalidIssuerError, "token-issuer", "the token comes from another issuer"),
    (jwt.InvalidSignatureError, "token-signature", "the signature of the token does not fit"),
    (jwt.DecodeError, "token-malformed", "this is not a signed JSON web token"),
)


def _why(refused: jwt.InvalidTokenError) -> tuple[str, str]:
    if isinstance(refused, jwt.MissingRequiredClaimError):
        return "token-claim-missing", f"the token lacks the claim {refused.claim}"
    for kind, code, detail in _REFUSALS:
        if isinstance(refused, kind):
            return code, detail
    return "token-not-valid", "the token is not valid"


def _caller(claims: Mapping[str, Any]) -> Caller:
    tenant, roles, subject = claims.get("tenant"), claims.get("roles"), claims["sub"]
    if not isinstance(tenant, str) or not tenant:
        raise NotAuthenticated("token-claim-missing", "the token lacks the claim tenant")
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise NotAuthenticated("token-claim-missing", "the token lacks the claim roles, a list of words")
    return Caller(subject=str(subject), tenant=TenantId(tenant), roles=frozenset(roles))


class _Keys:
    """The issuer's public keys, by key id, from a file or an address."""

    _read: Callable[[], Awaitable[str]]

    def __init__(self, settings: TokenSettings) -> None:
        if settings.jwks_file is not None:
            self._read = partial(asyncio.to_thread, settings.jwks_file.read_text)
        elif settings.jwks_url is None:
            raise SettingsError("PAYHUB_TOKEN_JWKS_FILE or PAYHUB_TOKEN_JWKS_URL must say where the issuer's keys are")
        elif not _protected(settings.jwks_url):
            raise SettingsError("PAYHUB_TOKEN_JWKS_URL must begin with https:// (http:// is for loopback only)")
        else:
            self._read = partial(_download, settings.jwks_url)
        self._keys: dict[str, jwt.PyJWK] | None = None
        self._tried = self._loaded = -1e9
        self._loading: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """The key of this id; for a token that names none, the only key. Raises `Unavailable` while we hold no keys."""
        key = self._of(kid)
        if key is None:
            await self._load()
            key = self._of(kid)
        elif time.monotonic() - self._loaded > _STALE:
            self._start_loading()  # the old keys serve meanwhile: an issuer that is away must not stop payments
        if self._keys is None:
            raise Unavailable("the issuer's keys cannot be read", timedelta(seconds=_REFETCH))
        return key

    def _of(self, kid: str | None) -> jwt.PyJWK | None:
        keys = self._keys or {}
        if kid is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(kid) if isinstance(kid, str) else None

    async def _load(self) -> None:
        self._start_loading()
        if self._loading is not None:
            await asyncio.shield(self._loading)

    def _start_loading(self) -> None:
        """One fetch at a time, and not too often."""
        if self._loading is not None and not self._loading.done():
            return
        self._loading = None
        if time.monotonic() - self._tried < (_REFETCH if self._keys else _FIRST):
            return
        self._tried = time.monotonic()
        self._loading = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            found = read_jwks(await self._read())
        except (OSError, httpx.HTTPError, ValueError) as error:
            log.warning("tokens.keys-not-read", error=type(error).__name__)
            return
        self._keys, self._loaded = found, time.monotonic()


async def _download(url: str) -> str:
    async with httpx.AsyncClient(timeout=_FETCH_LIMIT, follow_redirects=False) as client:
        answer = await client.get(url)
        answer.raise_for_status()
        return answer.text


def _protected(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


class _KeySet(TypedDict):
    keys: list[dict[str, Any]]


_KEY_SET: Final = TypeAdapter(_KeySet)


def read_jwks(text: str) -> dict[str, jwt.PyJWK]:
    """The usable keys of a JSON web key set: RS256 of 2048 bits or more, ES256, Ed25519. Others are passed over.

    Raises `ValueError` when it is no key set.
    """
    found: dict[str, jwt.PyJWK] = {}
    for data in _KEY_SET.validate_json(text)["keys"]:
        with suppress(jwt.PyJWTError):
            key = jwt.PyJWK(data)
            weak = isinstance(key.key, RSAPublicKey) and key.key.key_size < 2048
            meant = data.get("use", "sig") == "sig"
            if key.algorithm_name in ALGORITHMS and meant and not weak:
                found[str(data.get("kid") or "")] = key
    return found


# --- The built-in issuer ------------------------------------------------------------------------------------------

KEY_FILE: Final = "issuer-key.pem"
JWKS_FILE: Final = "jwks.json"


class LocalIssuer:
    """Issues real tokens on a laptop and in tests: one Ed25519 key in a folder, readable by its owner alone.

    The folder also holds `jwks.json`, so that `PAYHUB_TOKEN_JWKS_FILE` can point there and no server is needed.
    """

    def __init__(self, key: Ed25519PrivateKey, issuer: str, audience: str) -> None:
        self._key, self.issuer, self._audience = key, issuer, audience
        public = base64url_encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'.encode()).digest()  # RFC 7638
        self._kid = base64url_encode(thumbprint).decode()
        self._jwk = {"kty": "OKP", "crv": "Ed25519", "x": public, "kid": self._kid, "use": "sig", "alg": "EdDSA"}

    @classmethod
    def open(cls, directory: Path, issuer: str = "payhub-local", audience: str = "payhub") -> Self:
        """The issuer of this folder, made on first use. Raises `PermissionError` when others may read its key."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / KEY_FILE
        if not path.exists():
            _write_new_key(path)
        if path.stat().st_mode & 0o077:
            raise PermissionError(f"{path} may be read by others; make it 0600 or delete it to get a new key")
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{path} holds no Ed25519 key; delete it to get a new one")
        opened = cls(key, issuer, audience)
        published, fresh = directory / JWKS_FILE, json.dumps(opened.jwks())
        if not published.exists() or published.read_text() != fresh:
            temporary = directory / f"{JWKS_FILE}.{os.getpid()}"
            temporary.write_text(fresh)
            temporary.chmod(0o644)
            temporary.replace(published)
        return opened

    def mint(
        self,
        roles: str | Iterable[str],
        tenant: str,
        subject: str = "local",
        lifetime: timedelta = timedelta(hours=1),
    ) -> str:
        """A signed token that is valid from now."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + int(lifetime.total_seconds()),
            "jti": uuid.uuid4().hex,
            "tenant": tenant,
            "roles": [roles] if isinstance(roles, str) else sorted(roles),
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})

    def jwks(self) -> dict[str, Any]:
        """The public half, as a JSON web key set."""
        return {"keys": [self._jwk]}


def _write_new_key(path: Path) -> None:
    """Two processes may start at once: the first complete file wins and none is ever seen half written."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def issuer_app(issuer: LocalIssuer) -> FastAPI:
    """What an identity provider publishes, for programs that look keys up by address. It issues nothing over HTTP."""
    app = build_app("token issuer")

    @app.get("/.well-known/openid-configuration")
    async def configuration(request: Request) -> dict[str, Any]:
        return {
            "issuer": issuer.issuer,
            "jwks_uri": str(request.base_url) + "jwks.json",
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "subject_types_supported": ["public"],
            "response_types_supported": ["none"],
        }

    @app.get("/jwks.json")
    async def keys() -> dict[str, Any]:
        return issuer.jwks()

    return app
