"""How a broken line is told from a broken promise: against a socket that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from connectors.stp import transport
from connectors.stp.client import open_stp
from connectors.stp.model import SendOutcome
from connectors.stp.settings import StpSettings
from connectors.stp.tracking import TrackingKey
from connectors.stp.transport import Line
from connectors.stp.wire import NoAnswer

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n{"resultado": {"id": 9349827}}'


@asynccontextmanager
async def misbehaving(behave, key_files, **changes):
    """A client of a server that does what `behave(reader, writer)` says."""

    async def handle(reader, writer):
        try:
            await behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    times = {"connect_timeout": 1, "read_timeout": 0.4, "consult_timeout": 0.4} | changes
    settings = StpSettings(
        base_url=f"http://127.0.0.1:{port}", company="T", payer_account="646180110400000007",
        private_key_file=key_files[0], **times,
    )  # fmt: skip
    async with open_stp(settings) as stp:
        try:
            yield stp
        finally:
            server.close()


async def _request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def silence(reader, writer):
    await _request(reader)
    await asyncio.sleep(5)


async def hang_up(reader, writer):
    await _request(reader)


async def reset_in_the_middle(reader, writer):
    await reader.readexactly(10)
    writer.transport.abort()


async def half_an_answer(reader, writer):
    await _request(reader)
    writer.write(OK[:-10])
    await writer.drain()


async def no_http(reader, writer):
    await _request(reader)
    writer.write(b"hello\r\n\r\n")
    await writer.drain()


async def drip(reader, writer):
    """A byte now and then: a time-out that starts again with each byte would never fire."""
    await _request(reader)
    for place in range(len(OK)):
        writer.write(OK[place : place + 1])
        await writer.drain()
        await asyncio.sleep(0.2)


async def flood(reader, writer):
    await _request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
    for _ in range(90):
        writer.write(b"x" * 100_000)
        await writer.drain()


async def redirect(reader, writer):
    await _request(reader)
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "behave",
    [silence, hang_up, reset_in_the_middle, half_an_answer, no_http, drip, flood, redirect],
)
async def test_once_a_request_may_have_left_nothing_is_certain(behave, key_files):
    async with misbehaving(behave, key_files) as stp:
        answer = await asyncio.wait_for(stp.register("{}"), 6)
        assert answer.outcome is SendOutcome.UNKNOWN
        assert answer.detail


@pytest.mark.parametrize("behave", [silence, hang_up, half_an_answer, drip, flood, redirect])
async def test_an_inquiry_that_breaks_says_nothing(behave, key_files):
    from connectors.stp.signature import Signer

    async with misbehaving(behave, key_files) as stp:
        signer = Signer.from_file(key_files[0])
        answer = await asyncio.wait_for(stp.inquire("T", TrackingKey("K"), None, signer), 6)
        assert isinstance(answer, NoAnswer)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
async def test_without_a_connection_nothing_was_sent(base_url, key_files):
    settings = StpSettings(
        base_url=base_url, company="T", payer_account="646180110400000007", private_key_file=key_files[0],
        connect_timeout=2,
    )  # fmt: skip
    async with open_stp(settings) as stp:
        assert (await stp.register("{}")).outcome is SendOutcome.NOT_SENT


async def test_tls_that_cannot_be_agreed_on_is_not_sent(key_files):
    async with misbehaving(no_http, key_files) as stp:
        stp._orders = Line(f"https://127.0.0.1:{stp._orders._port}")
        assert (await stp.register("{}")).outcome is SendOutcome.NOT_SENT


async def test_a_full_pool_is_not_sent(key_files):
    async with misbehaving(silence, key_files, connections=1, read_timeout=3, connect_timeout=0.3) as stp:
        slow = asyncio.ensure_future(stp.register("{}"))
        await asyncio.sleep(0.1)
        assert (await stp.register("{}")).outcome is SendOutcome.NOT_SENT
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)


async def test_the_request_is_a_put_of_utf8_json_with_exactly_the_body(key_files):  # L42
    seen = {}

    async def good(reader, writer):
        seen["head"], seen["body"] = await _request(reader)
        writer.write(OK.replace(b"29", b"30"))
        await writer.drain()

    async with misbehaving(good, key_files) as stp:
        answer = await stp.register('{"conceptoPago":"x"}')
    assert (answer.outcome, answer.stp_id) == (SendOutcome.ACCEPTED, 9349827)
    assert seen["head"].startswith(b"PUT /speiws/rest/ordenPago/registra HTTP/1.1\r\n")
    assert b"content-type: application/json; charset=utf-8" in seen["head"].lower()
    assert seen["body"] == b'{"conceptoPago":"x"}'


def _answers(*parts, pause=0.0):
    async def answer(reader, writer):
        await _request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


RIGHT = b'{"resultado": {"id": 9349827}}'


@pytest.mark.parametrize(
    "behave",
    [
        _answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n", RIGHT[:8], b"\r\n16\r\n", RIGHT[8:],
                 b"\r\n0\r\n\r\n", pause=0.02),
        _answers(b"HTTP/1.1 200 OK\r\n\r\n" + RIGHT),
        _answers(b"HTTP/1.0 200 OK\r\nContent-Length: 30\r\n\r\n" + RIGHT),
        _answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + RIGHT),
        _answers(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\nConnection: close\r\n\r\n", RIGHT, pause=0.02),
    ],
    ids=["chunked", "until the end", "HTTP/1.0", "100 Continue first", "then closed"],
)  # fmt: skip
async def test_an_answer_is_read_however_it_is_framed(behave, key_files):
    async with misbehaving(behave, key_files) as stp:
        assert (await stp.register("{}")).stp_id == 9349827


async def test_a_connection_is_used_again_and_a_closed_one_is_not(key_files):
    connections = []

    async def two_each(reader, writer):
        connections.append(writer)
        for _ in range(2):
            await _request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + RIGHT)
            await writer.drain()

    async with misbehaving(two_each, key_files) as stp:
        for _ in range(5):
            assert (await stp.register("{}")).outcome is SendOutcome.ACCEPTED
            await asyncio.sleep(0.02)  # the closing must have arrived
    assert len(connections) == 3


async def test_a_connection_that_was_idle_for_long_is_not_used_again(key_files, monkeypatch):
    monkeypatch.setattr(transport, "IDLE_AT_MOST", -1.0)
    connections = []

    async def good(reader, writer):
        connections.append(writer)
        while True:
            await _request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + RIGHT)

    async with misbehaving(good, key_files) as stp:
        for _ in range(2):
            assert (await stp.register("{}")).outcome is SendOutcome.ACCEPTED
    assert len(connections) == 2


async def test_a_caller_that_is_cancelled_leaves_no_answer_to_the_next(key_files):
    asked = []

    async def first_late(reader, writer):
        while True:
            asked.append(await _request(reader))
            if len(asked) == 1:
                await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + RIGHT)
            await writer.drain()

    async with misbehaving(first_late, key_files) as stp:
        late = asyncio.ensure_future(stp.register("{}"))
        while not asked:
            await asyncio.sleep(0.01)
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        assert not stp._orders._idle
        assert (await stp.register('{"other":1}')).outcome is SendOutcome.ACCEPTED


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, and its key: as STP's demonstration environment had one."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1)).not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return folder


@pytest.mark.parametrize("trusted", [True, False])
async def test_over_tls_an_order_goes_only_to_whom_we_trust(certificate, key_files, trusted):
    asked = []

    async def good(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked.append(await _request(reader))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + RIGHT)
                await writer.drain()
        writer.close()

    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = await asyncio.start_server(good, "127.0.0.1", 0, ssl=serving)
    settings = StpSettings(
        base_url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix", company="T",
        payer_account="646180110400000007", private_key_file=key_files[0],
        ca_file=certificate / "cert.pem" if trusted else None,
    )  # fmt: skip
    async with open_stp(settings) as stp:
        outcomes = [(await stp.register("{}")).outcome for _ in range(2)]
    server.close()
    assert outcomes == [SendOutcome.ACCEPTED if trusted else SendOutcome.NOT_SENT] * 2
    assert [head.split(b" ")[1] for head, _ in asked] == [b"/prefix/speiws/rest/ordenPago/registra"] * (2 * trusted)


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(key_files):
    """Two answers to the first order: the second of them belongs to no order."""
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + RIGHT

    async def too_much(reader, writer):
        await _request(reader)
        writer.write(whole + whole.replace(b"9349827", b"1111111"))
        await writer.drain()
        await asyncio.sleep(1)

    async with misbehaving(too_much, key_files) as stp:
        for _ in range(2):
            assert (await stp.register("{}")).stp_id == 9349827
            await asyncio.sleep(0.02)


async def test_an_inquiry_that_stp_refuses_as_too_many_empties_the_budget(key_files):
    from connectors.stp.signature import Signer

    drained = []

    class Full:
        async def take(self, company):
            return True

        async def drain(self, company):
            drained.append(company)

    body = b'{"estado":3,"mensaje":"Limite de consultas excedido"}'
    limited = _answers(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    async with misbehaving(limited, key_files) as stp:
        stp._budget = Full()
        answer = await stp.inquire("T", TrackingKey("K"), None, Signer.from_file(key_files[0]))
    assert answer == NoAnswer("the limit of inquiries is exceeded", limited=True)
    assert drained == ["T"]


async def test_an_inquiry_beyond_the_budget_is_not_asked(key_files):
    from connectors.stp.signature import Signer

    class Spent:
        async def take(self, company):
            return False

    async with misbehaving(silence, key_files) as stp:
        stp._budget = Spent()
        answer = await stp.inquire("T", TrackingKey("K"), None, Signer.from_file(key_files[0]))
        assert answer == NoAnswer("this hour's inquiries are used up")


async def test_the_environments_proxy_is_ignored(key_files, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async def good(reader, writer):
        await _request(reader)
        writer.write(OK.replace(b"29", b"30"))
        await writer.drain()

    async with misbehaving(good, key_files) as stp:
        assert (await stp.register("{}")).outcome is SendOutcome.ACCEPTED
