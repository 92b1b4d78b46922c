"""How every HTTP service behaves at its edge; over a real socket where the server matters."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel

import hub.api
from hub.api import Caller, NotAuthenticated, Problem, build_app, faults, pointer, read_json, require, serve
from hub.errors import Rejected, Unavailable
from hub.telemetry import configure_logging
from hub.transfer import Reason, TenantId

MEMBERS = {"type", "title", "status", "code", "detail"}


class Thing(BaseModel):
    name: str
    size: int = 0


class Shut(Rejected):
    reason: ClassVar[Reason] = Reason.ACCOUNT_CLOSED


class Believer:
    """Believes a token that is `tenant:role`."""

    async def verify(self, token: str) -> Caller:
        tenant, found, role = token.partition(":")
        if not found:
            raise NotAuthenticated("token-malformed", "this is not a token")
        return Caller("somebody", TenantId(tenant), frozenset({role}))


def _app(**given: Any) -> FastAPI:
    app = build_app("things", verifier=Believer(), **given)

    @app.post("/things")
    async def make(thing: Thing) -> Thing:
        return thing

    @app.post("/hot")
    async def hot(request: Request) -> Thing:
        return await read_json(request, Thing)

    @app.get("/things/{number}")
    async def show(number: int, page: int = 1) -> int:
        return number + page

    @app.get("/mine")
    async def mine(caller: Annotated[Caller, Depends(require("viewer", "operator"))]) -> str:
        return caller.tenant

    @app.get("/fails/{how}")
    async def fails(how: str) -> None:
        raise {
            "unavailable": Unavailable("engine: away", timedelta(seconds=2.5)),
            "rejected": Shut("the account is closed"),
            "problem": Problem(409, "still-running", "Ask again.", errors=[{"pointer": "/a", "code": "b"}], more=7),
        }.get(how, RuntimeError("a secret value: 012180001183597198"))

    return app


@asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://things") as client:
        yield client


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with _client(_app()) as opened:
        yield opened


def _problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["status"], found["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(found) >= MEMBERS
    assert found["title"]
    assert found["detail"]
    return found


# --- Problems ---


@pytest.mark.parametrize("path", ["/things", "/hot"])
async def test_a_wrong_body_names_each_place(client: httpx.AsyncClient, path: str) -> None:
    found = _problem(await client.post(path, json={"size": "big"}), 422, "not-valid")
    assert {(fault["pointer"], fault["code"]) for fault in found["errors"]} == {
        ("/name", "missing"),
        ("/size", "int-parsing"),
    }
    assert "big" not in json.dumps(found)


@pytest.mark.parametrize("path", ["/things", "/hot"])
async def test_malformed_json_is_a_bad_request(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=b'{"name": "secret', headers={"content-type": "application/json"})
    assert "secret" not in json.dumps(_problem(answer, 400, "malformed-json"))


async def test_another_media_type_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/hot", content=b"name=a", headers={"content-type": "application/x-www-form-urlencoded"})
    _problem(answer, 415, "unsupported-media-type")


async def test_a_wrong_parameter_is_named(client: httpx.AsyncClient) -> None:
    found = _problem(await client.get("/things/one?page=two"), 422, "not-valid")
    assert [fault["parameter"] for fault in found["errors"]] == ["number", "page"]


async def test_an_unknown_address_and_a_wrong_method_are_problems_too(client: httpx.AsyncClient) -> None:
    _problem(await client.get("/nowhere"), 404, "not-found")
    _problem(await client.get("/mine/"), 404, "not-found")
    answer = await client.delete("/things")
    _problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


async def test_no_description_of_the_service_is_given_to_strangers(client: httpx.AsyncClient) -> None:
    for path in ("/openapi.json", "/docs", "/redoc"):
        _problem(await client.get(path), 404, "not-found")


async def test_a_part_that_is_away_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/fails/unavailable")
    _problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "3"
    assert "engine" not in answer.text


async def test_a_refusal_keeps_its_reason(client: httpx.AsyncClient) -> None:
    assert _problem(await client.get("/fails/rejected"), 422, "account-closed")["detail"] == "the account is closed"


async def test_a_problem_carries_what_it_was_given(client: httpx.AsyncClient) -> None:
    found = _problem(await client.get("/fails/problem"), 409, "still-running")
    assert (found["errors"], found["more"]) == ([{"pointer": "/a", "code": "b"}], 7)


async def test_a_defect_tells_the_caller_nothing_and_the_log_only_where(
    client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("test")
    answer = await client.get("/fails/otherwise")
    _problem(answer, 500, "internal")
    out, err = capfd.readouterr()
    for text in (answer.text, out, err):
        assert "secret value" not in text
    assert "test_api.py" not in answer.text
    assert "RuntimeError" in err
    assert "test_api.py" in err


def test_a_pointer_escapes_what_json_pointers_must() -> None:
    assert pointer(("a/b", "c~d", 0)) == "/a~1b/c~0d/0"
    assert pointer(()) == ""


def test_faults_hold_no_values() -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (pydantic's own)
        Thing.model_validate({"name": 7})
    assert faults(refused.value.errors()) == [  # type: ignore[attr-defined]
        {"pointer": "/name", "code": "wrong-type", "detail": "Input should be a valid string"}
    ]


# --- Who calls ---


async def test_a_token_with_the_role_is_let_in(client: httpx.AsyncClient) -> None:
    answer = await client.get("/mine", headers={"Authorization": "Bearer acme:operator"})
    assert (answer.status_code, answer.json()) == (200, "acme")


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Bearer", "acme:viewer"])
async def test_without_a_token_nobody_is_let_in(client: httpx.AsyncClient, header: str | None) -> None:
    answer = await client.get("/mine", headers={} if header is None else {"Authorization": header})
    _problem(answer, 401, "token-missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="payhub"'


async def test_a_token_that_is_not_believed_is_told_why(client: httpx.AsyncClient) -> None:
    answer = await client.get("/mine", headers={"Authorization": "Bearer nonsense"})
    _problem(answer, 401, "token-malformed")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert "nonsense" not in answer.text


async def test_a_token_without_the_role_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/mine", headers={"Authorization": "Bearer acme:channel"})
    assert "operator, viewer" in _problem(answer, 403, "role-missing")["detail"]


async def test_an_application_without_a_verifier_lets_nobody_in() -> None:
    app = _app()
    app.state.verifier = None
    async with _client(app) as client:
        answer = await client.get("/mine", headers={"Authorization": "Bearer acme:viewer"})
    _problem(answer, 500, "internal")


# --- Health, metrics, ids ---


async def test_health_says_which_probe_failed() -> None:
    async def good() -> None: ...

    async def bad() -> None:
        raise ConnectionError("host and password")

    async with _client(_app(probes={"database": good, "engine": bad})) as client:
        assert (await client.get("/health/live")).json() == {"status": "alive"}
        answer = await client.get("/health/ready")
    found = _problem(answer, 503, "not-ready")
    assert found["checks"] == {"database": "ok", "engine": "failed: ConnectionError"}
    assert "password" not in answer.text


async def test_a_ready_service_says_so() -> None:
    async def good() -> None: ...

    app = _app(probes={"database": good})
    hub.api.add_probes(app, {"engine": good})
    async with _client(app) as client:
        answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["checks"]) == (200, {"database": "ok", "engine": "ok"})


async def test_slow_probes_run_together_and_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.api, "PROBE_LIMIT", 0.2)

    async def stuck() -> None:
        await asyncio.sleep(5)

    async with _client(_app(probes={str(number): stuck for number in range(10)})) as client:
        async with asyncio.timeout(1):
            answer = await client.get("/health/ready")
    assert set(_problem(answer, 503, "not-ready")["checks"].values()) == {"no answer in 0.2 s"}


async def test_metrics_count_routes_not_paths(client: httpx.AsyncClient) -> None:
    await client.get("/things/41")
    await client.get("/no/such/43")
    await client.request("BREW", "/things/44")
    text = (await client.get("/metrics")).text
    assert 'payhub_http_requests_total{method="GET",route="/things/{number}",status="200"}' in text
    assert 'payhub_http_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert 'method="BREW"' not in text
    assert "/things/41" not in text
    assert "/no/such" not in text


@pytest.mark.parametrize(
    ("sent", "kept"),
    [({"X-Request-ID": "abc-1"}, "abc-1"), ({"X-Request-ID": "a b"}, None), ({"X-Request-ID": "a" * 65}, None)],
)
async def test_a_request_id_is_kept_when_it_is_well_formed(
    client: httpx.AsyncClient, sent: dict[str, str], kept: str | None
) -> None:
    found = (await client.get("/things/1", headers=sent)).headers["x-request-id"]
    assert found == kept or (kept is None and len(found) == 32)


async def test_the_log_line_names_route_and_trace_but_neither_path_nor_caller(
    client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    configure_logging("test")
    await client.get("/things/77?page=78", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    [line] = [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"event": "request"' in line]
    assert (line["route"], line["status"], line["trace_id"], line["method"]) == ("/things/{number}", 200, trace, "GET")
    assert "77" not in json.dumps({key: value for key, value in line.items() if key not in {"ms", "timestamp"}})


async def test_too_many_requests_at_once_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.api, "MAX_CONCURRENT", 2)
    app, release = _app(), asyncio.Event()

    @app.get("/waits")
    async def waits() -> None:
        await release.wait()

    async with _client(app) as client:
        waiting = [asyncio.ensure_future(client.get("/waits")) for _ in range(2)]
        await asyncio.sleep(0.05)
        answer = await client.get("/things/1")
        _problem(answer, 503, "overloaded")
        assert (await client.get("/health/live")).status_code == 200
        release.set()
        assert [(await one).status_code for one in waiting] == [200, 200]
        assert (await client.get("/things/1")).status_code == 200


# --- Over a real socket ---


@asynccontextmanager
async def _served(app: FastAPI) -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(serve(app, "127.0.0.1", 0, listening=listening))
    try:
        yield listening.getsockname()[1]
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _raw(port: int, *pieces: bytes, pause: float = 0) -> bytes:
    """Everything the server says to these bytes until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            try:
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(pause)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


HEAD = b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def test_a_slow_body_is_cut_off() -> None:
    async with _served(_app(receipt_deadline=0.3)) as port:
        answer = await _raw(port, HEAD + b"Content-Length: 100\r\n\r\n", b"{", b" ", b" ", pause=0.05)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert b'"code":"body-too-slow"' in answer


async def test_a_slow_head_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.api, "RECEIPT_DEADLINE", 0.3)
    async with _served(_app()) as port:
        async with asyncio.timeout(3):
            assert await _raw(port, b"POST /things HTTP/1.1\r\n", b"Host: x\r\n", pause=0.1) == b""
            assert await _raw(port) == b"", "a connection that says nothing at all"


async def test_a_long_body_is_refused_before_it_is_read() -> None:
    async with _served(_app()) as port:
        answer = await _raw(port, HEAD + b"Content-Length: 1000001\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body-too-large"' in answer


async def test_a_long_body_in_chunks_is_refused_while_it_is_read() -> None:
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    async with _served(_app()) as port:
        answer = await _raw(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 16)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_body_in_chunks_is_read_whole() -> None:
    pieces = (b'4\r\n{"na\r\n', b'9\r\nme": "a"}\r\n', b"0\r\n\r\n")
    async with _served(_app()) as port:
        answer = await _raw(
            port, HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", *pieces, pause=0.02
        )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"name":"a","size":0}')


async def test_a_caller_who_goes_away_disturbs_nobody() -> None:
    async with _served(_app()) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/things/1")).status_code == 200


async def test_answers_do_not_name_the_server() -> None:
    async with _served(_app()) as port, httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/things/1")
    assert "server" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_address_that_is_taken_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await serve(_app(), "127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_finishes_what_runs_and_closes_the_rest(how: signal.Signals) -> None:
    program = textwrap.dedent(
        """
        import asyncio, contextlib, sys, uvloop
        from hub.api import build_app, serve
        from hub.process import stop_signal
        app = build_app("slow")
        @app.get("/slow")
        async def slow() -> str:
            await asyncio.sleep(0.5)
            return "finished"
        async def main():
            stop = stop_signal()
            serving = asyncio.create_task(serve(app, "127.0.0.1", int(sys.argv[1])))
            await stop.wait()
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            print("closed the rest", flush=True)
        uvloop.run(main())
        """
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", program, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                await _alive(client)
                slow = asyncio.ensure_future(client.get("/slow"))
                await asyncio.sleep(0.15)
                os.kill(process.pid, how)
                assert (await slow).json() == "finished"
            out, _ = await asyncio.to_thread(process.communicate, timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "closed the rest" in out


async def _alive(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await client.get("/health/live")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
