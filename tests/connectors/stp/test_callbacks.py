"""What STP posts to us, over real HTTP, into a real PostgreSQL; and the sweep that finishes what broke off."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from sqlalchemy import text

from connectors.stp.model import OrderState
from connectors.stp.orders import OrderStore
from hub.statements import open_statements
from hub.testing import Completed, run

LQ, D, CN = "LQ", "D", "CN"
SETTLED_AT = datetime(2025, 11, 18, 16, 0, 0, 123_000, tzinfo=UTC)


async def sent(rail, **changes):
    """A payment whose order STP has accepted and says nothing about."""
    job = rail.job(**changes)
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    return job


def status(rail, job, estado=LQ, **more):
    return {"id": rail.at_stp(job)[0].id, "empresa": "TAMIZI", "claveRastreo": rail.key(job), "estado": estado,
            "causaDevolucion": None, "tsLiquidacion": 1763481600123} | more  # fmt: skip


async def results(rail, job):
    rows = await rail.rows("SELECT result, times FROM stp.callback WHERE payment_id = :p ORDER BY id", p=job.payment_id)
    return [tuple(row) for row in rows]


# --- Who calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, "", "wrong", "a-secret-for-callbacks-in-test", "ñ"])
async def test_without_the_secret_nothing_is_read_or_kept(rail, secret):  # L33
    job = await sent(rail)
    before = (await rail.rows("SELECT count(*) FROM stp.callback"))[0][0]
    headers = {} if secret is None else {"X-STP-Secret": secret.encode("latin-1")}
    answer = await rail.http.post(rail.callback_url, headers=headers, json=status(rail, job))
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "secret-missing"
    assert (await rail.rows("SELECT count(*) FROM stp.callback"))[0][0] == before
    assert (await rail.order(job)).state is OrderState.PENDING


async def test_a_caller_without_the_secret_is_refused_before_its_body_has_arrived(rail):  # L33
    host, port = rail.callback_url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /stp/order-status HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert b" 401 " in answer


async def test_health_needs_no_secret(rail):
    answer = await rail.http.get(rail.callback_url.replace("/stp/order-status", "/health/live"))
    assert answer.status_code == 200


# --- What it does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estado", "causa", "outcome", "reason"),
    [
        (LQ, None, "SETTLED", "none"),
        (CN, None, "CANCELLED", "scheme-cancelled"),
        (D, 1, "RETURNED", "account-unknown"),
        (D, "Cuenta bloqueada", "RETURNED", "scheme-returned"),
    ],
)
async def test_a_status_is_stored_told_and_answered(rail, estado, causa, outcome, reason):  # L34 L35 L36 L37
    job = await sent(rail)
    answer = await rail.post_status(status(rail, job, estado, causaDevolucion=causa))
    assert (answer.status_code, answer.json()) == (200, {"mensaje": "recibido"})
    [message] = rail.engine.told(job.payment_id)
    assert (message.outcome, message.reason, message.correlation_key) == (outcome, reason, job.payment_id)
    assert message.happened_at == SETTLED_AT  # L35: STP's moment, not ours
    assert await results(rail, job) == [("moved", 1)]
    rows = await rail.rows(
        "SELECT source, word, state FROM stp.observation WHERE payment_id = :p ORDER BY id", p=job.payment_id
    )
    assert [tuple(row) for row in rows] == [("answer", "ACCEPTED", None), ("callback", estado, outcome)]


async def test_the_raw_body_is_kept_to_the_byte(rail):  # L34
    job = await sent(rail)
    raw = json.dumps(status(rail, job), indent=3, ensure_ascii=False).encode() + b"\n \n"
    await rail.post_status(raw)
    rows = await rail.rows("SELECT body FROM stp.callback WHERE payment_id = :p", p=job.payment_id)
    assert bytes(rows[0][0]) == raw


async def test_twenty_repeats_at_once_change_nothing_twice(rail):  # L41
    job = await sent(rail)
    answers = await asyncio.gather(*(rail.post_status(status(rail, job)) for _ in range(20)))
    assert {answer.text for answer in answers} == {'{"mensaje":"recibido"}'}
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]
    assert [times for _, times in await results(rail, job)] == [20]
    rows = await rail.rows(
        "SELECT count(*) FROM stp.observation WHERE payment_id = :p AND source = 'callback'", p=job.payment_id
    )
    assert rows[0][0] == 1


@pytest.mark.parametrize("order_too", [False, True], ids=["a repeat is kept", "a neighbour handles it"])
@pytest.mark.parametrize("estado", [LQ, CN, D, "ZZ"])
async def test_a_callback_that_changes_while_it_is_handled_does_no_harm(rail, estado, order_too):  # L41
    """PostgreSQL looks at a row again when somebody changed it meanwhile; the statement must bear that."""
    job = await sent(rail)
    body = json.dumps(status(rail, job, estado)).encode()
    kept = await rail.orders.keep_callback(body, rail.clock())
    async with rail.database.connect() as neighbour:
        await neighbour.execute(text("UPDATE stp.callback SET times = times + 1 WHERE id = :id"), {"id": kept.id})
        if order_too:
            moved = (
                "UPDATE stp.stp_order SET state = 'SETTLED', observation = 'x', settled_as = 'x' WHERE payment_id = :p"
            )
            await neighbour.execute(text(moved), {"p": job.payment_id})
        handling = asyncio.ensure_future(rail.callbacks.handle(kept.id, body))
        await asyncio.sleep(0.3)
        assert not handling.done()
        await neighbour.commit()
    expected = {LQ: "unchanged", CN: "conflict", D: "moved"} if order_too else dict.fromkeys((LQ, CN, D), "moved")
    assert await handling == expected.get(estado, "unknown-status")
    assert [result for result, _ in await results(rail, job)] == [expected.get(estado, "unknown-status")]
    late = (await rail.order(job)).settled_as == "x" and estado == D
    assert bool(rail.engine.late(job.payment_id)) == late, "a return that finds the order settled is a late one"


async def test_the_same_news_in_other_words_changes_nothing(rail):  # L41
    job = await sent(rail)
    await rail.post_status(status(rail, job))
    await rail.post_status(status(rail, job, "lq", tsLiquidacion="1763481600999"))
    [message] = rail.engine.told(job.payment_id)
    asked = await run(rail.worker, rail.ask(job, 1))
    assert isinstance(asked, Completed)
    assert (message.happened_at, asked.variables["happened_at"]) == (SETTLED_AT, "2025-11-18T16:00:00.123000Z")
    assert [result for result, _ in await results(rail, job)] == ["moved", "unchanged"]


@pytest.mark.parametrize("order", list(permutations([LQ, D, LQ])))
async def test_settled_and_returned_end_as_returned_in_whichever_order_they_come(rail, order):  # L38
    job = await sent(rail)
    for place, estado in enumerate(order):
        await rail.post_status(status(rail, job, estado, tsLiquidacion=1763481600000 + place))
    assert (await rail.order(job)).state is OrderState.RETURNED
    told = [message.outcome for message in rail.engine.told(job.payment_id)]
    late = [(message.return_reason, message.tenant_id) for message in rail.engine.late(job.payment_id)]
    moments = [message.happened_at for message in rail.engine.told(job.payment_id)]
    moments += [message.returned_at for message in rail.engine.late(job.payment_id)]
    first, returned = order.index(order[0]), order.index(D)
    places = [returned] if order[0] == D else [first, returned]
    assert moments == [datetime.fromtimestamp(1763481600 + place / 1000, UTC) for place in places]
    # Either the payer's transfer hears of the return, or it settles and a process of its own begins; never both.
    assert (told, late) == (
        (["RETURNED"], []) if order[0] == D else (["SETTLED"], [("scheme-returned", job.tenant_id)])
    )


@pytest.mark.parametrize(("first", "second"), [(LQ, CN), (CN, LQ), (D, CN), (CN, D)])
async def test_cancelled_against_settled_is_for_a_person_to_decide(rail, alerts, first, second):
    job = await sent(rail)
    await rail.post_status(status(rail, job, first))
    answer = await rail.post_status(status(rail, job, second))
    assert answer.status_code == 200
    assert len(rail.engine.told(job.payment_id)) == 1
    assert [result for result, _ in await results(rail, job)] == ["moved", "conflict"]
    assert [kind for kind, _ in alerts] == ["contradiction"]


async def test_contradictions_that_arrive_together_are_noticed_too(rail, alerts):
    job = await sent(rail)
    await asyncio.gather(*(rail.post_status(status(rail, job, estado)) for estado in (LQ, CN)))
    assert len(rail.engine.told(job.payment_id)) == 1
    assert sorted(result for result, _ in await results(rail, job)) == ["conflict", "moved"]


async def test_an_order_that_stp_refused_and_now_reports_is_alerted(rail, alerts):
    job = rail.job()
    await rail.rule(job, "refuse")
    with pytest.raises(Exception, match="-20"):
        await rail.worker.send_order(job)
    body = {"id": 3_999_999, "empresa": "TAMIZI", "claveRastreo": rail.key(job), "estado": LQ}
    assert (await rail.post_status(body)).status_code == 200
    assert "contradiction" in [kind for kind, _ in alerts]
    assert not rail.engine.told(job.payment_id)


async def test_a_second_id_for_one_key_is_alerted(rail, alerts):
    job = await sent(rail)
    await rail.post_status(status(rail, job, id=3_888_888))
    assert "second-order-id" in [kind for kind, _ in alerts]


# --- What cannot be matched or read ---------------------------------------------------------------------------------


async def test_an_unknown_order_is_stored_alerted_and_answered(rail, alerts):  # L41 H4
    body = {"id": 123456789, "empresa": "TAMIZI", "claveRastreo": "NADIE123", "estado": LQ, "causaDevolucion": 99}
    answer = await rail.post_status(body)
    assert (answer.status_code, answer.json()) == (200, {"mensaje": "recibido"})
    assert [kind for kind, _ in alerts] == ["unknown-order"]
    rows = await rail.rows(
        "SELECT result FROM stp.callback WHERE body = :b", b=json.dumps(body, separators=(",", ":")).encode()
    )
    assert [row[0] for row in rows] == ["unknown-order"]


@pytest.mark.parametrize("estado", ["ZZ", "PAGADA"])
async def test_an_unknown_status_is_stored_alerted_and_changes_nothing(rail, alerts, estado):  # L32
    job = await sent(rail)
    answer = await rail.post_status(status(rail, job, estado))
    assert answer.json() == {"mensaje": "recibido"}
    assert [kind for kind, _ in alerts] == ["unknown-status"]
    assert (await rail.order(job)).state is OrderState.PENDING
    assert await results(rail, job) == [("unknown-status", 1)]
    await rail.post_status(status(rail, job))
    assert (await rail.order(job)).state is OrderState.SETTLED


async def test_a_status_that_is_not_final_changes_nothing(rail):
    job = await sent(rail)
    await rail.post_status(status(rail, job, "L"))
    assert (await rail.order(job)).state is OrderState.PENDING
    assert not rail.engine.told(job.payment_id)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"id": 5}', b"\xff\xfe", b"[" * 20_000, b'{"estado":"LQ"}'])
async def test_a_body_that_cannot_be_read_is_answered_400_and_kept(rail, body):
    answer = await rail.post_status(body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed-status"
    rows = await rail.rows("SELECT result FROM stp.callback WHERE body = :b", b=body)
    assert [row[0] for row in rows] == ["malformed"]


async def test_an_oversized_body_is_refused(rail):
    assert (await rail.post_status(b"x" * 1_100_000)).status_code == 413


async def test_another_companys_status_does_not_touch_our_order(rail):  # H16
    job = await sent(rail)
    await rail.post_status(status(rail, job, empresa="OTHER"))
    assert (await rail.order(job)).state is OrderState.PENDING


async def test_a_key_that_is_not_ours_is_not_overruled_by_an_id_that_is(rail):
    job = await sent(rail)
    await rail.post_status(status(rail, job, claveRastreo="AJENA1"))
    assert (await rail.order(job)).state is OrderState.PENDING


async def test_without_a_key_the_id_finds_the_order_and_then_the_folio(rail):
    by_id, by_folio = await sent(rail), await sent(rail)
    await rail.post_status({"id": rail.at_stp(by_id)[0].id, "Estado": "LIQUIDACION", "Detalle": ""})
    await rail.post_status({"id": 1, "empresa": "TAMIZI", "folioOrigen": rail.key(by_folio), "estado": "Success"})
    assert (await rail.order(by_id)).state is OrderState.SETTLED
    assert (await rail.order(by_folio)).state is OrderState.SETTLED


@pytest.mark.parametrize("dialect", ["A", "B", "C"])
async def test_all_three_dialects_work_end_to_end(rail, eventually, dialect):
    jobs = {name: rail.job() for name in ("settle", "return", "cancel")}
    for name, job in jobs.items():
        await rail.rule(job, name)
        await rail.worker.send_order(job)
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()  # dialect A names no key: a callback may come before the id it names is known
    outcomes = {"settle": "SETTLED", "return": "RETURNED", "cancel": "CANCELLED"}
    for name, job in jobs.items():
        await eventually(lambda job=job: rail.engine.told(job.payment_id))
        assert [message.outcome for message in rail.engine.told(job.payment_id)] == [outcomes[name]]


# --- Overtaking, and what breaks off --------------------------------------------------------------------------------


async def test_a_callback_that_overtakes_the_answer_is_used(rail):  # H4
    job = rail.job()
    await rail.rule(job, "callback-first")
    sent_order = await rail.worker.send_order(job)
    assert sent_order.order_state == "ACCEPTED"
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]
    assert (await rail.order(job)).state is OrderState.SETTLED


@pytest.mark.parametrize("dialect", ["A"])
async def test_a_callback_without_a_key_that_overtakes_the_answer_is_matched_afterwards(rail, alerts):  # H4
    job = rail.job()
    await rail.rule(job, "callback-first")
    await rail.worker.send_order(job)
    assert not rail.engine.told(job.payment_id), "the id it names was not known yet"
    assert [kind for kind, _ in alerts] == ["unknown-order"]
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]
    assert [kind for kind, _ in alerts] == ["unknown-order"]


async def test_what_matches_no_order_is_looked_at_less_and_less_often(rail, alerts, monkeypatch):
    body = {"id": 77_001, "claveRastreo": "NADIE77001", "estado": LQ}
    await rail.post_status(body)
    looks = []
    observe = OrderStore.observe_callback

    async def counting(self, callback_id, notice, moment):
        if notice.key == "NADIE77001":
            looks.append(moment)
        return await observe(self, callback_id, notice, moment)

    monkeypatch.setattr(OrderStore, "observe_callback", counting)
    for _ in range(60):
        rail.clock.advance(timedelta(minutes=1))
        await rail.callbacks.sweep()
    assert 4 <= len(looks) <= 10
    assert "callback-not-handled" not in [kind for kind, _ in alerts], alerts
    assert [facts for kind, facts in alerts if facts.get("stp_id") == 77_001 and kind == "unknown-order"][1:] == []


async def test_a_callback_answers_for_an_answer_that_got_lost(rail, eventually):
    job = rail.job()
    await rail.rule(job, {"answer": "lost", "times": 1})
    assert (await rail.worker.send_order(job)).order_state in {"ACCEPTED", "UNKNOWN"}
    await eventually(lambda: rail.engine.told(job.payment_id))
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert rail.sends(job) == 1


async def test_with_the_engine_away_the_status_is_kept_answered_and_told_later(rail, eventually):  # H4
    job = await sent(rail)
    rail.engine.away = True
    answer = await rail.post_status(status(rail, job))
    assert (answer.status_code, answer.json()) == (200, {"mensaje": "recibido"})
    assert not rail.engine.told(job.payment_id)
    rail.engine.away = False
    await rail.callbacks.sweep()
    assert not rail.engine.told(job.payment_id), "the sweep leaves fresh ones to whoever received them"
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]
    await rail.callbacks.sweep()
    assert len(rail.engine.told(job.payment_id)) == 1


async def test_a_slow_engine_does_not_keep_stp_waiting(rail):
    job = await sent(rail)
    rail.engine.slow_by = 5
    object.__setattr__(rail.callback_settings, "publish_within", 0.7)
    began = asyncio.get_running_loop().time()
    answer = await rail.post_status(status(rail, job))
    assert asyncio.get_running_loop().time() - began < 2
    assert answer.json() == {"mensaje": "recibido"}
    assert (await rail.order(job)).state is OrderState.SETTLED


async def test_a_callback_whose_handling_broke_off_is_finished_by_the_sweep(rail):
    job = await sent(rail)
    body = json.dumps(status(rail, job)).encode()
    await rail.orders.keep_callback(body, rail.clock())
    assert (await rail.order(job)).state is OrderState.PENDING
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()
    assert (await rail.order(job)).state is OrderState.SETTLED
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]


async def test_a_callback_that_we_cannot_handle_does_not_hold_up_the_rest(rail, monkeypatch):
    good, bad = await sent(rail), await sent(rail)
    for job in (bad, good):
        await rail.orders.keep_callback(json.dumps(status(rail, job)).encode(), rail.clock())
    observe = OrderStore.observe_callback

    async def breaking(self, callback_id, notice, moment):
        if notice.key == rail.key(bad):
            raise RuntimeError("a defect")
        return await observe(self, callback_id, notice, moment)

    monkeypatch.setattr(OrderStore, "observe_callback", breaking)
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()
    assert (await rail.order(good)).state is OrderState.SETTLED
    told = "SELECT result FROM stp.callback WHERE position(convert_to(:key, 'UTF8') IN body) > 0"
    assert [result for (result,) in await rail.rows(told, key=rail.key(bad))] == ["failed"]


async def test_a_database_that_is_away_is_answered_503_so_that_stp_repeats(rail):
    job = await sent(rail)
    good = rail.orders._database
    async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/none") as away:
        rail.orders._database = away
        assert (await rail.post_status(status(rail, job))).status_code == 503
    rail.orders._database = good
    assert (await rail.post_status(status(rail, job))).json() == {"mensaje": "recibido"}
    assert (await rail.order(job)).state is OrderState.SETTLED


async def test_an_order_found_by_asking_in_the_send_job_is_told_by_the_sweep(rail):
    job = rail.job()
    await rail.rule(job, {"refuse": -1, "steps": [{"estado": "LQ", "report": False}]})
    await rail.worker.send_order(job)
    rail.clock.advance(timedelta(seconds=10))
    await asyncio.sleep(0.1)
    if (await rail.order(job)).state is OrderState.PENDING:
        await rail.worker.inquire_order(rail.ask(job))
        return
    await rail.callbacks.sweep()
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]


async def test_what_the_engine_was_told_is_written_down_and_not_told_again(rail):
    job = await sent(rail)
    await rail.post_status(status(rail, job))
    await rail.callbacks.mark()
    rail.clock.advance(timedelta(seconds=10))
    rail.engine.forget()
    await rail.callbacks.sweep()
    assert len(rail.engine.told(job.payment_id)) == 1


async def test_a_state_that_contradicts_our_refusal_is_never_told_by_the_sweep(rail):
    job = rail.job()
    await rail.rule(job, "refuse")
    with pytest.raises(Exception, match="-20"):
        await rail.worker.send_order(job)
    await rail.post_status({"id": 3, "empresa": "TAMIZI", "claveRastreo": rail.key(job), "estado": LQ})
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()
    assert not rail.engine.told(job.payment_id)


async def test_a_callback_tells_what_an_inquiry_saw_first_and_told_nobody(rail):
    job = rail.job()
    await rail.rule(job, "unseen")
    await rail.worker.send_order(job)
    order, _ = await rail.dispatch.look(await rail.order(job))  # as a repeated send-order does: no process is told
    while order.state is OrderState.PENDING:
        order, _ = await rail.dispatch.look(order)
    assert not rail.engine.told(job.payment_id)
    await rail.post_status(status(rail, job))
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]
    assert await results(rail, job) == [("unchanged", 1)]
