"""Which tokens are believed, and the built-in issuer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import hub.tokens
from hub.api import Caller, NotAuthenticated
from hub.errors import Unavailable
from hub.settings import SettingsError, TokenSettings
from hub.tokens import JWKS_FILE, KEY_FILE, LocalIssuer, TokenVerifier, issuer_app, read_jwks
from hub.transfer import TenantId

RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED = Ed25519PrivateKey.generate()


def _jwk(kid: str, key: Any, **more: str) -> dict[str, Any]:
    algorithms = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm}
    algorithm: Any = next((found for kind, found in algorithms.items() if isinstance(key, kind)), None)
    data = (algorithm or jwt.algorithms.ECAlgorithm).to_jwk(key.public_key(), as_dict=True)
    return {**data, "kid": kid, **more}


JWKS = {
    "keys": [
        _jwk("rsa", RSA),
        _jwk("weak", WEAK_RSA),
        _jwk("p256", P256),
        _jwk("p384", P384),
        _jwk("ed", ED),
        _jwk("encrypting", RSA, use="enc"),
        {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "alg": "HS256"},
        {"kty": "unheard-of", "kid": "new"},
    ]
}


def _claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": "payhub-local",
        "aud": "payhub",
        "sub": "an-application",
        "nbf": now,
        "exp": now + 60,
        "tenant": "acme",
        "roles": ["channel"],
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def _signed(kid: str | None, key: Any, algorithm: str, **changes: Any) -> str:
    return jwt.encode(_claims(**changes), key, algorithm=algorithm, headers={"kid": kid} if kid else None)


@pytest.fixture
def verifier(tmp_path: Path) -> TokenVerifier:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(JWKS))
    return TokenVerifier(TokenSettings(jwks_file=file))


@pytest.mark.parametrize(
    ("kid", "key", "algorithm"), [("rsa", RSA, "RS256"), ("p256", P256, "ES256"), ("ed", ED, "EdDSA")]
)
async def test_a_good_token_says_who_calls(verifier: TokenVerifier, kid: str, key: Any, algorithm: str) -> None:
    token = _signed(kid, key, algorithm, roles=["viewer", "operator"])
    assert await verifier.verify(token) == Caller("an-application", TenantId("acme"), frozenset({"viewer", "operator"}))


async def test_an_audience_may_be_one_of_several(verifier: TokenVerifier) -> None:
    assert await verifier.verify(_signed("ed", ED, "EdDSA", aud=["other", "payhub"]))


NOW = int(time.time())
BAD_CLAIMS = {
    "expired": ({"exp": NOW - 60}, "token-expired"),
    "not valid yet": ({"nbf": NOW + 3600}, "token-not-yet-valid"),
    "for somebody else": ({"aud": "another"}, "token-audience"),
    "from somebody else": ({"iss": "https://evil.example"}, "token-issuer"),
    "without an end": ({"exp": None}, "token-claim-missing"),
    "without a beginning": ({"nbf": None}, "token-claim-missing"),
    "without an issuer": ({"iss": None}, "token-claim-missing"),
    "without an audience": ({"aud": None}, "token-claim-missing"),
    "without a subject": ({"sub": None}, "token-claim-missing"),
    "without a tenant": ({"tenant": None}, "token-claim-missing"),
    "with an empty tenant": ({"tenant": ""}, "token-claim-missing"),
    "with several tenants": ({"tenant": ["acme", "norte"]}, "token-claim-missing"),
    "without roles": ({"roles": None}, "token-claim-missing"),
    "with roles as text": ({"roles": "admin"}, "token-claim-missing"),
    "with roles that are no words": ({"roles": [1]}, "token-claim-missing"),
    "with an end that is no time": ({"exp": "tomorrow"}, "token-malformed"),
}


@pytest.mark.parametrize(("changes", "code"), BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_a_token_with_a_wrong_claim_is_not_believed(
    verifier: TokenVerifier, changes: dict[str, Any], code: str
) -> None:
    await _refused(verifier, _signed("ed", ED, "EdDSA", **changes), code)


def _part(data: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def _by_hand(header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    text = f"{_part({'typ': 'JWT', **header})}.{_part(_claims())}"
    return f"{text}.{base64.urlsafe_b64encode(sign(text.encode())).rstrip(b'=').decode()}"


def _hmac(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.new(secret, text, hashlib.sha256).digest()


PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
FORGED = {
    "no signature": (lambda: _by_hand({"alg": "none", "kid": "rsa"}, lambda _: b""), "token-algorithm"),
    "None": (lambda: _by_hand({"alg": "None", "kid": "ed"}, lambda _: b""), "token-algorithm"),
    "no algorithm": (lambda: _by_hand({"kid": "ed"}, lambda _: b""), "token-algorithm"),
    "the public key as a secret": (lambda: _by_hand({"alg": "HS256", "kid": "rsa"}, _hmac(PEM)), "token-algorithm"),
    "a secret from the key set": (
        lambda: _by_hand({"alg": "HS256", "kid": "shared"}, _hmac(b"s" * 32)),
        "token-key-unknown",
    ),
    "another's key": (lambda: _signed("ed", Ed25519PrivateKey.generate(), "EdDSA"), "token-signature"),
    "a key under another's id": (lambda: _signed("ed", RSA, "RS256"), "token-algorithm"),
    "another algorithm of the same key": (lambda: _signed("rsa", RSA, "PS256"), "token-algorithm"),
    "a longer hash of the same key": (lambda: _signed("rsa", RSA, "RS512"), "token-algorithm"),
    "a weak key": (lambda: _signed("weak", WEAK_RSA, "RS256"), "token-key-unknown"),
    "a curve that is not ours": (lambda: _signed("p384", P384, "ES384"), "token-key-unknown"),
    "a key for encryption": (lambda: _signed("encrypting", RSA, "RS256"), "token-key-unknown"),
    "an unknown key": (lambda: _signed("nobody", ED, "EdDSA"), "token-key-unknown"),
    "no key id among several keys": (lambda: _signed(None, ED, "EdDSA"), "token-key-unknown"),
    "a key of its own": (
        lambda: _by_hand({"alg": "EdDSA", "kid": "x", "jwk": _jwk("x", ED)}, ED.sign),
        "token-key-unknown",
    ),
    "nothing": (lambda: "", "token-malformed"),
    "words": (lambda: "let me in", "token-malformed"),
    "two parts": (lambda: "a.b", "token-malformed"),
    "other letters": (lambda: "ключ.ключ.ключ", "token-malformed"),
    "far too long": (lambda: "a" * 9000, "token-malformed"),
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize(("make", "code"), FORGED.values(), ids=FORGED.keys())
async def test_a_forged_token_is_not_believed(verifier: TokenVerifier, make: Callable[[], str], code: str) -> None:
    await _refused(verifier, make(), code)


async def test_a_changed_token_is_not_believed(verifier: TokenVerifier) -> None:
    head, _, signature = _signed("ed", ED, "EdDSA").split(".")
    await _refused(verifier, f"{head}.{_part(_claims(tenant='norte'))}.{signature}", "token-signature")


async def test_a_believed_token_is_not_believed_beyond_its_end(
    verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = _signed("ed", ED, "EdDSA", exp=int(time.time()) + 30)
    await verifier.verify(token)
    later = time.time() + 31
    monkeypatch.setattr(time, "time", lambda: later)
    known = verifier._believed[hashlib.sha256(token.encode()).digest()]
    assert known[1] < later


async def test_a_believed_token_is_verified_again_after_a_minute(verifier: TokenVerifier) -> None:
    token = _signed("ed", ED, "EdDSA", exp=int(time.time()) + 3600)
    await verifier.verify(token)
    [(_, until)] = verifier._believed.values()
    assert until <= time.time() + 60


async def test_many_tokens_do_not_fill_the_memory(verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.tokens, "_BELIEVED_COUNT", 3)
    for number in range(10):
        await verifier.verify(_signed("ed", ED, "EdDSA", sub=str(number)))
    assert len(verifier._believed) <= 3


async def _refused(verifier: TokenVerifier, token: str, code: str) -> None:
    for _ in range(2):
        with pytest.raises(NotAuthenticated) as refused:
            await verifier.verify(token)
        assert refused.value.code == code
        assert not token or token not in str(refused.value)


# --- Where the keys come from ---


def test_settings_without_keys_or_with_unprotected_ones_are_refused() -> None:
    with pytest.raises(SettingsError, match="PAYHUB_TOKEN_JWKS_URL"):
        TokenVerifier(TokenSettings())
    with pytest.raises(SettingsError, match="https"):
        TokenVerifier(TokenSettings(jwks_url="http://bank.example/keys"))
    TokenVerifier(TokenSettings(jwks_url="http://127.0.0.1:9/keys"))


class KeyServer:
    """A place that publishes keys, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self.down = False
        monkeypatch.setattr(hub.tokens, "_download", self._answer)

    async def _answer(self, url: str) -> str:
        self.asked += 1
        await asyncio.sleep(0.02)
        if self.down:
            raise httpx.ConnectError("away")
        return json.dumps({"keys": self.keys})


@pytest.fixture
def key_server(monkeypatch: pytest.MonkeyPatch) -> KeyServer:
    return KeyServer(monkeypatch)


@pytest.fixture
def remote(key_server: KeyServer) -> TokenVerifier:
    return TokenVerifier(TokenSettings(jwks_url="https://bank.example/keys"))


async def test_keys_are_fetched_once_for_many_callers(remote: TokenVerifier, key_server: KeyServer) -> None:
    key_server.keys = [_jwk("ed", ED)]
    tokens = [_signed("ed", ED, "EdDSA", sub=str(number)) for number in range(20)]
    await asyncio.gather(*(remote.verify(token) for token in tokens))
    assert key_server.asked == 1


async def test_a_new_key_is_fetched_when_it_is_first_seen_and_not_more_often_than_allowed(
    remote: TokenVerifier, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_server.keys = [_jwk("ed", ED)]
    await remote.verify(_signed("ed", ED, "EdDSA"))
    key_server.keys.append(_jwk("rsa", RSA))
    for _ in range(20):
        await _refused(remote, _signed("rsa", RSA, "RS256"), "token-key-unknown")
    assert key_server.asked == 1
    monkeypatch.setattr(hub.tokens, "_REFETCH", 0.0)
    await remote.verify(_signed("rsa", RSA, "RS256"))
    assert key_server.asked == 2


async def test_without_any_keys_it_is_our_fault_not_the_callers(
    remote: TokenVerifier, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_server.down = True
    with pytest.raises(Unavailable):
        await remote.verify(_signed("ed", ED, "EdDSA"))
    monkeypatch.setattr(hub.tokens, "_FIRST", 0.0)
    key_server.down, key_server.keys = False, [_jwk("ed", ED)]
    assert await remote.verify(_signed("ed", ED, "EdDSA"))


async def test_old_keys_serve_while_the_issuer_is_away_and_a_withdrawn_one_stops(
    remote: TokenVerifier, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_server.keys = [_jwk("ed", ED)]
    await remote.verify(_signed("ed", ED, "EdDSA"))
    monkeypatch.setattr(hub.tokens, "_STALE", 0.0)
    monkeypatch.setattr(hub.tokens, "_REFETCH", 0.0)
    key_server.down = True
    await remote.verify(_signed("ed", ED, "EdDSA", sub="while it is away"))
    await asyncio.sleep(0.1)
    key_server.down, key_server.keys = False, [_jwk("rsa", RSA)]
    await remote.verify(_signed("ed", ED, "EdDSA", sub="before it is known"))
    await asyncio.sleep(0.1)
    await _refused(remote, _signed("ed", ED, "EdDSA", sub="after"), "token-key-unknown")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": 7}', '{"keys": [7]}'])
async def test_a_broken_key_set_is_no_key_set(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(Unavailable):
        await TokenVerifier(TokenSettings(jwks_file=tmp_path / "keys.json")).verify(_signed("ed", ED, "EdDSA"))


# --- The built-in issuer ---


async def test_the_local_issuers_tokens_are_believed(tmp_path: Path) -> None:
    issuer = LocalIssuer.open(tmp_path)
    verifier = TokenVerifier(TokenSettings(jwks_file=tmp_path / JWKS_FILE))
    token = issuer.mint({"viewer", "operator"}, "acme", subject="ana", lifetime=timedelta(minutes=5))
    assert await verifier.verify(token) == Caller("ana", TenantId("acme"), frozenset({"viewer", "operator"}))
    await _refused(verifier, issuer.mint("viewer", "acme", lifetime=timedelta(seconds=-60)), "token-expired")


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    first, again = LocalIssuer.open(folder), LocalIssuer.open(folder)
    assert first.jwks() == again.jwks()
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [KEY_FILE, JWKS_FILE]
    (folder / KEY_FILE).chmod(0o644)
    with pytest.raises(PermissionError, match="0600"):
        LocalIssuer.open(folder)


def test_what_is_published_holds_no_private_part(tmp_path: Path) -> None:
    issuer = LocalIssuer.open(tmp_path)
    [key] = issuer.jwks()["keys"]
    assert "d" not in key
    assert list(read_jwks(json.dumps(issuer.jwks()))) == [key["kid"]]


async def test_the_issuers_service_publishes_what_verifiers_look_for(tmp_path: Path) -> None:
    issuer = LocalIssuer.open(tmp_path)
    transport = httpx.ASGITransport(issuer_app(issuer))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
        configuration = (await client.get("/.well-known/openid-configuration")).json()
        assert configuration["issuer"] == "payhub-local"
        assert (await client.get(configuration["jwks_uri"])).json() == issuer.jwks()
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/token")).status_code == 404
