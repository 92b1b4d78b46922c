"""Keys and signatures."""

from __future__ import annotations

import base64
import datetime as dt
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from connectors.stp.signature import BadKey, Checker, Signer, generate_key_pair


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _pem(key, secret=None, form=serialization.PrivateFormat.PKCS8):
    encryption = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


def _public(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _certificate(key) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TAMIZI")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2036, 1, 1, tzinfo=dt.UTC))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


async def test_a_signature_is_one_line_of_base64_the_same_each_time_and_verifies(key):  # L42
    signer = Signer.from_pem(_pem(key))
    signature = signer.sign("||40072|TAMIZI||")
    assert signature == await signer.sign_aside("||40072|TAMIZI||")
    assert len(base64.b64decode(signature, validate=True)) == 256
    checker = Checker.from_pem(_public(key))
    assert checker.matches("||40072|TAMIZI||", signature)
    assert not checker.matches("||40072|TAMIZ1||", signature)
    assert not checker.matches("||40072|TAMIZI||", signature[:-4])
    assert not checker.matches("||40072|TAMIZI||", "no base64")


@pytest.mark.parametrize(
    "around", [b"", b"Bag Attributes\n    friendlyName: tamizi\nKey Attributes: <No Attributes>\n"]
)
@pytest.mark.parametrize("secret", [None, b"clave secreta"])
def test_a_key_is_read_as_exports_write_it(key, around, secret):
    pem = around + _certificate(key) + around + _pem(key, secret)
    signer = Signer.from_pem(pem, secret.decode() if secret else None)
    assert Checker.from_pem(_certificate(key)).matches("x", signer.sign("x"))


def test_an_old_style_key_is_read_and_a_needless_passphrase_does_no_harm(key):
    pem = _pem(key, form=serialization.PrivateFormat.TraditionalOpenSSL)
    assert Signer.from_pem(pem, "unused").sign("x") == Signer.from_pem(_pem(key)).sign("x")


def test_each_way_in_which_a_key_cannot_be_used_has_its_sentence(key, tmp_path):
    with pytest.raises(BadKey, match="passphrase is wrong"):
        Signer.from_pem(_pem(key, b"right"), "wrong")
    with pytest.raises(BadKey, match="give its passphrase"):
        Signer.from_pem(_pem(key, b"right"))
    with pytest.raises(BadKey, match="no private key"):
        Signer.from_pem(_public(key))
    with pytest.raises(BadKey, match="RSA keys only"):
        Signer.from_pem(_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(BadKey, match="damaged"):
        Signer.from_pem(_pem(key).replace(b"MII", b"MIX", 1))
    with pytest.raises(BadKey, match=r"missing\.pem: No such file"):
        Signer.from_file(tmp_path / "missing.pem")


def test_a_signer_shows_nothing_of_its_key(key):
    assert repr(Signer.from_pem(_pem(key))) == "Signer(***)"


def test_a_generated_pair_belongs_together_is_private_and_is_kept(tmp_path):
    private, public = generate_key_pair(tmp_path / "keys")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert Checker.from_pem(public.read_bytes()).matches("x", Signer.from_file(private).sign("x"))
    before = private.read_bytes()
    assert generate_key_pair(tmp_path / "keys") == (private, public)
    assert private.read_bytes() == before
