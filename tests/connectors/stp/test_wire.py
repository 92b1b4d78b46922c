"""STP's words and ours, both ways: tables against tables."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.stp.accounts import AccountKind, Beneficiary
from connectors.stp.cleaning import clean
from connectors.stp.model import AccountUnknown, ComplianceRefused, OrderRejected, OrderState, Sending, SendOutcome
from connectors.stp.orders import sending_after
from connectors.stp.tracking import TrackingKey
from connectors.stp.wire import (
    CAUSES,
    ERRORS,
    PAYMENT_TYPES,
    SIGNED,
    STATE_OF,
    Cause,
    FoundOrder,
    MalformedCallback,
    NoAnswer,
    NotFound,
    Orden,
    Sender,
    cause_of,
    classify,
    inquiry_body,
    inquiry_joined,
    instant,
    orden,
    outcome_of,
    read_inquiry,
    read_status,
    refusal,
    state_of,
)
from hub.money import Money
from hub.transfer import IdentifierType, Outcome, Party, Reason

V1 = "||40072|TAMIZI|||CR1564969083|90646|1.20|1|40||646180110400000007||40|Ricardo Sanchez|072691004495711499|ND||||||Prueba||||||5273144||T||3|0|||"  # noqa: E501
V2 = "||40072|TAMIZI|||CR1577408680|90646|10.20|1||BANCO|646180157000000004|ND|3|Pach|4242424242424242|ND||||||DebitCardTest||||||9922162||T||3|1|||"  # noqa: E501


# --- The joined string ----------------------------------------------------------------------------------------------


def test_a_clabe_order_joins_as_a_public_client_recorded_it():  # L42
    order = Orden(
        institucionContraparte=40072,
        empresa="TAMIZI",
        claveRastreo="CR1564969083",
        institucionOperante=90646,
        monto=Decimal("1.2"),
        tipoPago=1,
        tipoCuentaOrdenante=40,
        cuentaOrdenante="646180110400000007",
        tipoCuentaBeneficiario=40,
        nombreBeneficiario="Ricardo Sanchez",
        cuentaBeneficiario="072691004495711499",
        rfcCurpBeneficiario="ND",
        conceptoPago="Prueba",
        referenciaNumerica=5273144,
        topologia="T",
        medioEntrega=3,
        prioridad=0,
    )
    assert order.joined() == V1


def test_a_card_order_joins_as_recorded_traffic_has_it():  # L42
    order = Orden(
        institucionContraparte=40072,
        empresa="TAMIZI",
        claveRastreo="CR1577408680",
        institucionOperante=90646,
        monto=Decimal("10.20"),
        tipoPago=1,
        nombreOrdenante="BANCO",
        cuentaOrdenante="646180157000000004",
        rfcCurpOrdenante="ND",
        tipoCuentaBeneficiario=3,
        nombreBeneficiario="Pach",
        cuentaBeneficiario="4242424242424242",
        rfcCurpBeneficiario="ND",
        conceptoPago="DebitCardTest",
        referenciaNumerica=9922162,
        topologia="T",
        medioEntrega=3,
        prioridad=1,
    )
    assert order.joined() == V2


def test_the_34_fields_are_signed_in_stps_order():
    assert "|".join(SIGNED) == (
        "institucionContraparte|empresa|fechaOperacion|folioOrigen|claveRastreo|institucionOperante|monto|tipoPago|"
        "tipoCuentaOrdenante|nombreOrdenante|cuentaOrdenante|rfcCurpOrdenante|tipoCuentaBeneficiario|"
        "nombreBeneficiario|cuentaBeneficiario|rfcCurpBeneficiario|emailBeneficiario|tipoCuentaBeneficiario2|"
        "nombreBeneficiario2|cuentaBeneficiario2|rfcCurpBeneficiario2|conceptoPago|conceptoPago2|claveCatUsuario1|"
        "claveCatUsuario2|clavePago|referenciaCobranza|referenciaNumerica|tipoOperacion|topologia|usuario|"
        "medioEntrega|prioridad|iva"
    )


def test_an_empty_order_has_37_pipes_and_a_full_one_too():
    assert Orden().joined().count("|") == 37
    assert Orden(conceptoPago="a b", iva=Decimal(1)).joined().count("|") == 37


def test_a_zero_prints_as_zero():
    assert Orden(prioridad=0).joined().endswith("|0|||")
    assert Orden(iva=Decimal(0)).joined().endswith("|0.00||")
    assert '"prioridad":0' in Orden(prioridad=0).body("x")


@pytest.mark.parametrize(
    ("given_amount", "printed"),
    [(Decimal("1.2"), "1.20"), (100, "100.00"), ("0.01", "0.01"), ("1.200", "1.20"), (Decimal("1E+2"), "100.00")],
)
def test_amounts_print_with_exactly_two_decimals(given_amount, printed):
    order = Orden(monto=given_amount)
    assert f"|{printed}|" in order.joined()
    assert json.loads(order.body("x"), parse_float=str, parse_int=str)["monto"] == printed


@pytest.mark.parametrize(
    "bad", [1.2, "0.165", "-1", "1,5", True, "١", "1e3", "1" * 18, Decimal("NaN"), Decimal("1E+30")]
)
def test_an_amount_that_is_not_exact_is_refused(bad):
    with pytest.raises(ValidationError, match="monto"):
        Orden(monto=bad)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("nombreBeneficiario", "a|b"),
        ("nombreBeneficiario", "a\nb"),
        ("nombreBeneficiario", "x" * 41),
        ("empresa", "x" * 16),
        ("claveRastreo", "x" * 31),
        ("referenciaNumerica", 0),
        ("referenciaNumerica", 10_000_000),
        ("fechaOperacion", 20261345),
        ("tipoPago", "uno"),
        ("tipoPago", "²"),
        ("tipoPago", True),
        ("tipoPago", -1),
        ("conceptoPago", 7),
    ],
)
def test_a_value_that_stp_cannot_take_is_refused_by_name(name, bad):
    with pytest.raises(ValidationError, match=name):
        Orden(**{name: bad})


def test_what_is_signed_is_what_is_sent():
    """A simulator that knows only the JSON can rebuild the signed string: every value, in the same form."""
    order = _order(name="Ángel Muñoz|Pérez", concept="  Café – niño 😀  ")
    sent = json.loads(order.body("sig"), parse_float=str, parse_int=str)
    assert order.joined() == f"||{'|'.join(sent.get(name, '') for name in SIGNED)}||"
    assert sent["firma"] == "sig"


@given(name=st.text(max_size=80), concept=st.text(max_size=80), tax=st.text(max_size=20))
def test_no_text_whatever_shifts_a_field_or_changes_between_signing_and_sending(name, concept, tax):
    order = _order(name=name, concept=concept, tax=tax)
    joined = order.joined()
    assert joined.count("|") == 37
    assert joined.isascii()
    sent = json.loads(order.body("s"), parse_float=str, parse_int=str)
    assert joined.split("|")[2:-2] == [sent.get(field, "") for field in SIGNED]
    assert sent["conceptoPago"].strip()
    assert len(sent["conceptoPago"]) <= 39
    assert len(sent["nombreBeneficiario"]) <= 39


def test_the_body_is_the_same_bytes_each_time():
    assert _order().body("s", {"latitud": "19.4"}) == _order().body("s", {"latitud": "19.4"})
    assert json.loads(_order().body("s", {"latitud": "19.4"}))["latitud"] == "19.4"
    assert "latitud" not in _order().joined()


def test_the_operation_date_is_left_to_stp():
    assert "fechaOperacion" not in json.loads(_order().body("s"))


def test_text_of_which_nothing_can_be_carried_is_replaced_by_neutral_words():
    order = _order(name="😀", concept="🎉🎉")
    assert order.nombreBeneficiario == "ND"
    assert order.conceptoPago == "PAGO"


def _order(
    name: str | None = "Ana",
    concept: str = "Pago",
    tax: str | None = None,
    constants: tuple[tuple[str, str | int], ...] = (),
) -> Orden:
    party = Party(id_type=IdentifierType.CLABE, identifier="072691004495711499", name=name, tax_id=tax)
    return orden(
        sender=Sender("TAMIZI", "646180110400000007", constants=constants),
        key=TrackingKey("PH2"),
        amount=Money(120, "MXN"),
        payer=party,
        payee=party,
        beneficiary=Beneficiary("072691004495711499", AccountKind.CLABE, 40072),
        concept=concept,
        reference=1,
    )


# --- The id rule and the error table --------------------------------------------------------------------------------


def _answered(number: object, text: object = None, status: int = 200) -> tuple[int, bytes]:
    return status, json.dumps({"resultado": {"id": number, "descripcionError": text}}).encode()


@pytest.mark.parametrize(
    ("number", "text"), [(9349827, None), (1000, None), ("9349827", None), (9349827, ""), (9349827, "  ")]
)
def test_more_than_three_digits_without_an_error_text_is_an_order(number, text):  # L43
    answer = classify(*_answered(number, text))
    assert (answer.outcome, answer.stp_id) == (SendOutcome.ACCEPTED, int(number))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        _answered(9349827, "algo"),
        _answered(9349827, 5),
        _answered(9),
        _answered(999, "algo"),
        _answered(5),
        _answered(None),
        _answered(True),
        _answered(9349827.5),
        _answered("abc"),
        _answered(10**30),
        (200, b""),
        (200, b"not json"),
        (200, b"[]"),
        (200, b'{"resultado": 7}'),
        (200, b'{"resultado": {}}'),
        (200, b'{"resultado": {"id": 93498'),
        (200, b"[" * 100_000),
        (200, b"\xff\xfe"),
        _answered(9349827, None, 500),
        _answered(-20, "x", 500),
        _answered(9349827, None, 201),
        (302, b""),
        (404, b"<html>"),
        (502, b"<html>"),
    ],
)
def test_whatever_is_not_certain_is_unknown(status, body):
    assert classify(status, body).outcome is SendOutcome.UNKNOWN


def test_html_403_of_the_gateway_means_not_sent():
    assert classify(403, b"<html>nginx</html>").outcome is SendOutcome.NOT_SENT


EXPECTED = {
    **dict.fromkeys((1, 2, 3, 5, 6, 7, 8), OrderRejected),
    **dict.fromkeys((-3, -5, -6, -7, -10, -12, -13, -14, -16, -17, -18, -20, -24, -26, -31, -34), OrderRejected),
    **dict.fromkeys((4, -9, -11, -21, -22, -23), AccountUnknown),
    -200: ComplianceRefused,
}


@pytest.mark.parametrize(("number", "kind"), EXPECTED.items())
def test_every_documented_refusal_is_certain_and_says_why(number, kind):  # L43, L44
    answer = classify(*_answered(number, "texto de STP"))
    assert answer.outcome is SendOutcome.REJECTED
    assert answer.documented
    assert answer.error_text == "texto de STP"
    refused = refusal(answer.error_id, answer.detail)
    assert type(refused) is kind
    assert f"STP {number}:" in refused.detail
    assert "texto" not in refused.detail


def test_no_error_number_of_the_table_is_left_out_of_these_tests():
    assert set(ERRORS) == set(EXPECTED) | {-1, -2, -30}


@pytest.mark.parametrize("number", [-1, -2])
def test_a_key_in_use_is_already_registered(number):
    text = "La clave de rastreo {X} para la fecha {20261118} de la institucion {40072} ya existe"
    assert classify(*_answered(number, text)).outcome is SendOutcome.ALREADY_REGISTERED


def test_consult_only_mode_is_tried_again():
    assert classify(*_answered(-30, "x")).outcome is SendOutcome.RETRYABLE


@pytest.mark.parametrize("number", [-4, -8, -15, -19, -25, -27, -28, -29, -32, -33, -100, -999])
def test_an_undocumented_negative_number_is_not_believed_at_once(number):
    answer = classify(*_answered(number, "x"))
    assert answer.outcome is SendOutcome.REJECTED
    assert not answer.documented


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("No se recibió respuesta del servicio", SendOutcome.UNKNOWN),
        ("NO SE RECIBIO RESPUESTA DEL SERVICIO", SendOutcome.UNKNOWN),
        ("Error validando la firma", SendOutcome.CONFIG_ERROR),
        ("Firma invalida No entity found for query", SendOutcome.CONFIG_ERROR),
        ("Firma inválida", SendOutcome.CONFIG_ERROR),
        ("El campo &lt;CONCEPTO PAGO&gt; no", SendOutcome.UNKNOWN),
        ("El campo &lt;conceptoPago&gt; es obligatorio", SendOutcome.REJECTED),
        ("El campo <claveRastreo> es obligatorio", SendOutcome.REJECTED),
        ("algo nuevo", SendOutcome.UNKNOWN),
        ("", SendOutcome.UNKNOWN),
        (None, SendOutcome.UNKNOWN),
    ],
)
def test_id_zero_means_what_its_text_says(text, outcome):
    assert classify(*_answered(0, text)).outcome is outcome


def test_a_missing_field_is_named():
    answer = classify(*_answered(0, "El campo &lt;conceptoPago&gt; es obligatorio"))
    assert answer.detail == "STP 0: the field conceptoPago is mandatory"


@given(st.integers(), st.none() | st.text(max_size=20), st.integers(100, 599))
def test_nothing_but_an_id_over_999_without_a_text_on_http_200_is_ever_accepted(number, text, status):  # L43
    accepted = classify(*_answered(number, text, status)).outcome is SendOutcome.ACCEPTED
    assert not accepted or (status == 200 and number > 999 and not (text or "").strip())


@given(st.binary(max_size=200))
def test_no_answer_whatever_breaks_the_reading(body):
    assert classify(200, body).outcome in SendOutcome
    read_inquiry(200, body)
    with suppress(MalformedCallback):
        read_status(body)


# --- States and causes ----------------------------------------------------------------------------------------------

STATES = {
    OrderState.SETTLED: "LQ TLQ CCO CXO CCE",
    OrderState.RETURNED: "D TD RE",
    OrderState.CANCELLED: "CN CL CA CR RL RA RB TCL EL",
    OrderState.PENDING: "C PL L PA A E EA XC XD XR R EP EC TC TL TA CCR",
}


@pytest.mark.parametrize(
    ("word", "state"), [(word, state) for state, words in STATES.items() for word in words.split()]
)
def test_every_state_of_the_catalogue_has_its_meaning(word, state):
    assert state_of(word) is state
    assert state_of(f" {word.lower()} ") is state


@pytest.mark.parametrize("word", ["", "ZZ", "LQX", "PAGADA"])
def test_an_unknown_state_has_none(word):  # L32
    assert state_of(word) is None


def test_no_state_word_means_two_things():
    words = [word.lower() for state in STATES.values() for word in state.split()]
    assert len(words) == len(set(words))
    assert set(words) <= set(STATE_OF)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (1, Cause(1)),
        ("20", Cause(20)),
        ("", Cause()),
        (None, Cause()),
        (0, Cause(0)),
        ("Cuenta inexistente", Cause(text="Cuenta inexistente")),
        (True, Cause()),
        ([], Cause()),
        (-3, Cause()),
    ],
)
def test_a_cause_is_read_however_it_is_written(value, cause):
    assert cause_of(value) == cause


@pytest.mark.parametrize("code", [*CAUSES, None, 99])
def test_a_return_has_an_outcome_a_reason_and_a_sentence_for_every_cause(code):  # L37
    outcome, reason, detail = outcome_of(OrderState.RETURNED, code)
    assert outcome is Outcome.RETURNED
    assert reason is not Reason.NONE
    assert detail is not None
    assert code is None or str(code) in detail


def test_settled_and_cancelled_have_their_outcomes():  # L35, L36
    assert outcome_of(OrderState.SETTLED, None) == (Outcome.SETTLED, Reason.NONE, None)
    assert outcome_of(OrderState.CANCELLED, None)[:2] == (Outcome.CANCELLED, Reason.SCHEME_CANCELLED)
    with pytest.raises(ValueError, match="no outcome"):
        outcome_of(OrderState.PENDING, None)


# --- Callbacks ------------------------------------------------------------------------------------------------------

DIALECTS = [
    ({"id": 7, "Estado": "LIQUIDACION", "Detalle": ""}, OrderState.SETTLED),
    ({"id": 7, "Estado": "DEVOLUCION", "Detalle": "Cuenta inexistente"}, OrderState.RETURNED),
    ({"id": 7, "Estado": "CANCELACION"}, OrderState.CANCELLED),
    *(
        ({"id": "7", "empresa": "T", "folioOrigen": "K", "estado": word, "tsLiquidacion": "0"}, state)
        for word, state in (
            ("Success", OrderState.SETTLED),
            ("Refund", OrderState.RETURNED),
            ("Cancel", OrderState.CANCELLED),
            ("Decline", OrderState.CANCELLED),
            ("exito", OrderState.SETTLED),
            ("éxito", OrderState.SETTLED),
            ("devolucion", OrderState.RETURNED),
            ("LIQUIDADA", OrderState.SETTLED),
            ("DEVUELTA", OrderState.RETURNED),
            ("CANCELADA", OrderState.CANCELLED),
        )
    ),
    *(
        ({"id": 7, "empresa": "T", "claveRastreo": "K", "estado": word, "causaDevolucion": 1}, state)
        for word, state in (("LQ", OrderState.SETTLED), ("CN", OrderState.CANCELLED), ("D", OrderState.RETURNED))
    ),
]


@pytest.mark.parametrize(("body", "state"), DIALECTS)
def test_each_word_of_each_dialect_is_understood(body, state):  # L32
    notice = read_status(json.dumps(body).encode())
    assert notice.state is state
    assert notice.stp_id == 7


def test_the_current_dialect_is_read_whole():
    body = {
        "id": "9349827", "empresa": "TAMIZI", "claveRastreo": "PHX", "estado": "D", "causaDevolucion": "1",
        "tsLiquidacion": "1763481600123", "nombreCep": "ANA", "otro": {"x": 1},
    }  # fmt: skip
    notice = read_status(json.dumps(body).encode())
    assert (notice.key, notice.company, notice.folio, notice.cause) == ("PHX", "TAMIZI", None, Cause(1))
    assert notice.settled_at == datetime(2025, 11, 18, 16, 0, 0, 123000, tzinfo=UTC)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'{"id": 7}', b'{"estado": "LQ"}', b'{"id": 7, "estado": null}', b"[" * 50_000,
     b'{"id": 7, "estado": {"a": 1}}', b'{"id": true, "estado": "LQ"}', b"\xff", b'{"id": 1' + b"0" * 5000 + b', "estado": "LQ"}'],  # noqa: E501
)  # fmt: skip
def test_a_body_that_is_no_status_is_malformed(body):
    with pytest.raises(MalformedCallback):
        read_status(body)


def test_characters_that_a_database_cannot_hold_are_dropped():
    notice = read_status(b'{"claveRastreo": "A\\u0000B\\ud800", "estado": "LQ"}')
    assert notice.key == "AB"


@pytest.mark.parametrize("value", ["0", 0, 4524, "608", None, "", "x", 10**15])
def test_only_thirteen_digits_are_an_instant(value):
    assert instant(value) is None


# --- Inquiries ------------------------------------------------------------------------------------------------------


def test_an_inquiry_signs_company_key_kind_and_date():
    assert inquiry_joined("TAMIZI", "PHX", date(2026, 11, 18)) == "||TAMIZI|PHX|E|20261118||"
    assert inquiry_joined("TAMIZI", "PHX", None) == "||TAMIZI|PHX|E|||"
    body = json.loads(inquiry_body("TAMIZI", "PHX", date(2026, 11, 18), "sig"))
    assert body == {
        "empresa": "TAMIZI", "claveRastreo": "PHX", "tipoOrden": "E", "fechaOperacion": 20261118, "firma": "sig",
    }  # fmt: skip
    assert "fechaOperacion" not in json.loads(inquiry_body("TAMIZI", "PHX", None, "sig"))


def test_a_found_order_is_read():
    shown = {"idEF": 7, "claveRastreo": "PHX", "estado": "LQ", "monto": 1250.10, "cuentaBeneficiario": "1",
             "causaDevolucion": None, "tsLiquidacion": 1763481600123}  # fmt: skip
    found = read_inquiry(200, json.dumps({"estado": 0, "mensaje": "", "respuesta": shown}).encode())
    assert isinstance(found, FoundOrder)
    assert (found.stp_id, found.state, found.amount) == (7, OrderState.SETTLED, Decimal("1250.1"))


@pytest.mark.parametrize(
    ("status", "answer", "meaning"),
    [
        (400, {"estado": 6}, NotFound),
        (200, {"estado": 6}, NotFound),
        (400, {"estado": 8}, NotFound),
        (200, {"resultado": {"id": -100}}, NotFound),
        (400, {"estado": 2}, NoAnswer),
        (400, {"estado": 3}, NoAnswer),
        (500, {"estado": 6}, NoAnswer),
        (502, {}, NoAnswer),
        (200, {"estado": 0}, NoAnswer),
        (200, {"estado": 0, "respuesta": {"idEF": 1}}, NoAnswer),
        (403, {"estado": 0}, NoAnswer),
    ],
)
def test_only_a_clear_no_counts_as_not_found(status, answer, meaning):
    assert isinstance(read_inquiry(status, json.dumps(answer).encode()), meaning)


def test_cleaned_text_passes_the_wire_unchanged():
    assert Orden(conceptoPago=clean("Pago de nómina")).conceptoPago == "Pago de nomina"


# --- The whole range of answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("doubts", [1, 2])
def test_of_all_numbers_only_documented_ones_ever_release_funds_at_once(doubts):  # L43, L44
    """Whatever number STP answers with: funds are released at once only on a no that a source documents."""
    released = {
        number
        for number in range(-300, 1200)
        for text in (None, "", "algo", "No se recibió respuesta del servicio", "Error validando la firma")
        if sending_after(classify(*_answered(number, text)), doubts) is Sending.REJECTED
    }
    assert released == (set(EXPECTED) if doubts == 1 else set())


@pytest.mark.parametrize("status", [200, 201, 204, 301, 400, 401, 403, 404, 409, 429, 500, 502, 503, 504])
def test_of_all_statuses_only_ok_accepts_or_refuses_and_only_the_gateways_page_says_not_sent(status):
    bodies = [b"", b"<html>nginx</html>", _answered(9349827)[1], _answered(-20, "x")[1], _answered(-1, "x")[1]]
    outcomes = [classify(status, body).outcome for body in bodies]
    if status == 200:
        assert outcomes == ["UNKNOWN", "UNKNOWN", "ACCEPTED", "REJECTED", "ALREADY_REGISTERED"]
    elif status == 403:
        assert outcomes == ["UNKNOWN", "NOT_SENT", "UNKNOWN", "UNKNOWN", "UNKNOWN"]
    else:
        assert set(outcomes) == {"UNKNOWN"}


# --- Any order whatever ---------------------------------------------------------------------------------------------

_LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="|"), max_size=15)
_PRINTED = {
    "institucionContraparte": st.integers(0, 99_999), "tipoPago": st.sampled_from(sorted(PAYMENT_TYPES)),
    "tipoCuentaOrdenante": st.sampled_from([3, 10, 40]), "referenciaNumerica": st.integers(1, 9_999_999),
    "tipoOperacion": st.integers(0, 99), "medioEntrega": st.integers(0, 99), "prioridad": st.integers(0, 1),
    "topologia": st.sampled_from("TV"), "claveRastreo": st.from_regex(r"[A-Za-z0-9]{1,30}", fullmatch=True),
    "fechaOperacion": st.dates().map(lambda day: int(day.strftime("%Y%m%d"))).filter(lambda number: number > 10**7),
    **dict.fromkeys(("monto", "iva"), st.decimals(0, 10**15, places=2)),
    **dict.fromkeys(("empresa", "nombreBeneficiario", "usuario", "conceptoPago", "conceptoPago2"), _LINE),
}  # fmt: skip


@settings(max_examples=150)
@given(st.fixed_dictionaries({}, optional=_PRINTED))
def test_whatever_an_order_holds_its_json_rebuilds_the_signed_string(values):  # L42
    """As STP does it: 34 slots, what is absent is empty, amounts with two decimals, a zero is `0`."""
    order = Orden(**values)
    sent = json.loads(order.body("s", {"latitud": "19.4"}), parse_float=Decimal)
    rebuilt = [
        "" if sent.get(name) is None else f"{Decimal(sent[name]):.2f}" if name in {"monto", "iva"} else str(sent[name])
        for name in SIGNED
    ]
    assert order.joined() == f"||{'|'.join(rebuilt)}||"
    assert order.joined().count("|") == 37
    assert order.body("s") == order.body("s")
    assert Orden.model_validate({name: sent[name] for name in SIGNED if name in sent}).joined() == order.joined()


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("tipoPago", (0, 1, 12, 14, 36), (13, 37, 99)),
        ("tipoCuentaOrdenante", (3, 10, 40), (0, 1, 4, 41)),
        ("tipoCuentaBeneficiario", (3, 10, 40), (0, 99)),
        ("tipoCuentaBeneficiario2", (3, 10, 40), (0, 99)),
        ("topologia", ("T", "V"), ("X", "t", "TV")),
        ("prioridad", (0, 1, "0"), (2, 9, "00")),
        ("claveRastreo", ("A1", "a" * 30), ("A-1", "Ñ", "A 1", "a" * 31)),
        ("institucionContraparte", (2001, 40072, "90646"), (100_000, "040072")),
        ("referenciaNumerica", (1, 9_999_999), (0, 10_000_000, "0000001")),
    ],
)
def test_catalogues_and_limits_are_kept_by_field(name, good, bad):
    for value in good:
        assert f"|{value}|" in f"|{Orden(**{name: value}).joined()}|"
    for value in bad:
        with pytest.raises(ValidationError, match=name):
            Orden(**{name: value})


LIMITS = {
    "empresa": 15, "folioOrigen": 50, "nombreOrdenante": 40, "cuentaOrdenante": 20, "rfcCurpOrdenante": 18,
    "nombreBeneficiario": 40, "cuentaBeneficiario": 20, "rfcCurpBeneficiario": 18, "nombreBeneficiario2": 40,
    "cuentaBeneficiario2": 20, "rfcCurpBeneficiario2": 18, "conceptoPago": 40, "conceptoPago2": 40, "clavePago": 10,
    "referenciaCobranza": 40,
}  # fmt: skip


@pytest.mark.parametrize(("name", "longest"), LIMITS.items())
def test_a_text_that_is_too_long_is_refused_and_never_cut_in_silence(name, longest):
    assert getattr(Orden(**{name: "x" * longest}), name) == "x" * longest
    with pytest.raises(ValidationError, match=name):
        Orden(**{name: "x" * (longest + 1)})


def test_what_a_company_fixes_stands_in_each_of_its_orders():
    order = _order(constants=(("prioridad", 1), ("usuario", "hub"), ("tipoPago", 12)))
    assert (order.prioridad, order.usuario, order.tipoPago, order.topologia) == (1, "hub", 12, "T")
    assert _order().tipoPago == 1
